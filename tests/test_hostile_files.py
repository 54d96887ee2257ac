"""Files made to do harm: configs and safetensors headers of any content, links, and what the package never does."""

from __future__ import annotations

import ast
import json
import os
import shutil
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import serank
from serank import SeRankDet
from serank.checkpoints.config_file import MAX_CONFIG
from serank.errors import CheckpointError

ALLOWED = 2**29
"""Bytes of address space that loading may add: Python's own and the few kB of these networks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint, of few parts so that thousands can be tried."""
    path = tmp_path_factory.mktemp("hostile") / "checkpoint"
    SeRankDet(width=1, encoder="plain", attention="none").save_pretrained(path)
    return path


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Makes any allocation of more than `ALLOWED` bytes fail, where the system can."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ALLOWED, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def load(folder: Path) -> str:
    """Tries to load; anything but a checkpoint or the one error is a failure."""
    with bounded_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of entries that are gone
        try:
            SeRankDet.from_pretrained(folder)
        except CheckpointError as error:
            message = str(error)
        else:
            return "loaded"
    message.encode()  # can be printed
    assert len(message) < 10_000, message[:1000]
    return "refused"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)
numbers = [0, -1, 1, 2, 7, 2**31, 2**63, 2**64, 10**9, 10**400, 1e308, 1e-320, -0.0, float("nan"), float("inf")]
texts = ["", "8", "width", "ddc", "\0", "../x", "\ud800", "\u202e", "9.9.9", "0.0", "a" * 5000]
lists: list[Any] = [[], {}, [[]], [0.5, 2.5], ["vanilla"], ["vanilla"] * 2, [1] * 999, [[0.5]], {"a": {"b": []}}]
odd = st.sampled_from([*numbers, *texts, *lists, None, True, False])
VALID = {"serank_version": serank.__version__, **SeRankDet(width=1, encoder="plain", attention="none").config}


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    """A valid config of which some entries have other values, are gone or new."""
    config: dict[str, Any] = dict(VALID)
    for name in draw(st.lists(st.sampled_from(sorted(VALID)), max_size=4)):
        config[name] = draw(odd | anything)
    for name in draw(st.lists(st.sampled_from(sorted(VALID)), max_size=2)):
        config.pop(name, None)
    config |= draw(st.dictionaries(st.text(), odd | anything, max_size=1))
    return json.dumps(config).encode()


@st.composite
def headers(draw: st.DrawFn, content: bytes) -> bytes:
    """Weights whose header says something else of some entries."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    names = sorted(header)
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        key = draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
        types = st.sampled_from(["F64", "F16", "BF16", "I64", "I32", "BOOL", "U8", "F8_E4M3", "C64", "f32"])
        sizes = st.lists(st.sampled_from([0, 1, 2, 9, 2**31, 2**62, 2**64, -1]) | st.integers(), max_size=5)
        if isinstance(header.get(name), dict):
            header[name][key] = draw(types | sizes | odd | anything)
    for name in draw(st.lists(st.sampled_from(names), max_size=2)):
        header.pop(name, None)
    header |= draw(st.dictionaries(st.text(), odd | anything, max_size=1))
    text = json.dumps(header).encode() + b" " * draw(st.integers(0, 9))
    length = draw(st.just(len(text)) | st.integers(0, 2**64 - 1) | st.integers(0, 2 * len(text)))
    return struct.pack("<Q", length) + text + content[8 + size :]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are others, gone or new."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(result)))
        end = draw(st.just(start) | st.just(start + 1) | st.integers(start, len(result)))
        result[start:end] = draw(st.binary(max_size=8) | st.just(b"[" * 20_000) | st.just(b"9" * 5_000))
    return bytes(result)


def fuzz(folder: Path, kind: str, examples: int) -> Counter[str]:
    """Loads the checkpoint with one file replaced, many times over."""
    name = "config.json" if "config" in kind else "model.safetensors"
    content = (folder / name).read_bytes()
    head = 8 + int.from_bytes(content[:8], "little")
    strategy = {
        "config": configs(),
        "config bytes": damaged(content),
        "weights": headers(content),
        "weights bytes": damaged(content[:head]).map(lambda start: start + content[head:]),
    }[kind]
    outcomes: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(strategy)
    def attempt(replaced: bytes) -> None:
        (folder / name).write_bytes(replaced)
        outcomes[load(folder)] += 1

    try:
        attempt()
    finally:
        (folder / name).write_bytes(content)
    return outcomes


KINDS = ["config", "config bytes", "weights", "weights bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_any_file_loads_or_is_refused(kind: str, folder: Path) -> None:
    outcomes = fuzz(folder, kind, 75)
    assert outcomes["refused"] > 30
    assert load(folder) == "loaded"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_files_load_or_are_refused(kind: str, folder: Path) -> None:
    outcomes = fuzz(folder, kind, 3000)
    print(kind, dict(outcomes))
    assert sum(outcomes.values()) >= 2500
    assert outcomes["refused"] > 1000


def test_the_bound_on_memory_holds() -> None:
    """What the tests above rely on."""
    pytest.importorskip("resource")
    if not Path("/proc/self/statm").is_file():
        pytest.skip("needs /proc")
    with bounded_memory(), pytest.raises((RuntimeError, MemoryError)):
        torch.empty(2 * ALLOWED, dtype=torch.uint8)


def replace_config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(VALID | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10**9}, "width must be <= 1024; got 1000000000"),
        ({"width": 10**400}, "width must be <= 1024"),
        ({"width": "8"}, "width must be an int; got '8'"),
        ({"width": True}, "width must be an int; got True"),
        ({"width": 8.0}, r"width must be an int; got 8\.0"),
        ({"width": None}, "width must be an int; got None"),
        ({"width": [8]}, r"width must be an int; got \[8\]"),
        ({"stem_channels": "1"}, "stem_channels must be an int or None; got '1'"),
        ({"rank_offset": 10**6}, "rank_offset must be <= 16"),
        ({"table_size": 0}, "table_size must be >= 1"),
        ({"working_size": 10**9}, "working_size must be <= 4096"),
        ({"bias": 1}, "bias must be true or false; got 1"),
        ({"theta": "0.7"}, "theta must be a number; got '0.7'"),
        ({"theta": 1e300}, "theta must be finite, at most 1e"),
        ({"threshold": False}, "threshold must be a number; got False"),
        ({"mean": [[0.5]]}, r"mean must be a number; got \[0\.5\]"),
        ({"mean": {}}, "mean must be a number; got {}"),
        ({"std": []}, r"std must be one number or 1, one for each channel; got \[\]"),
        ({"working_size": 16384}, "working_size must be <= 4096; got 16384"),
        ({"working_size": 4096, "scale_range": [0.5, 1e6]}, "high <= 16 where working_size is above 1024 px"),
        ({"tile": 17, "overlap": 16}, "tile must be >= 32; got 17"),
        ({"tile": 33, "overlap": 32}, "overlap must lie in 0 to 16, half of tile=33; got 32. Lower it"),
        ({"tile": 8192}, "tile must be <= 4096; got 8192"),
        ({"in_channels": 1024}, "in_channels must be <= 64; got 1024"),
        ({"scale_range": 1}, "scale_range must be a list of numbers"),
        ({"scale_range": ["a", "b"]}, "scale_range must be a number; got 'a'"),
        ({"branches": "vanilla"}, "branches must be a list of names; got 'vanilla'"),
        ({"branches": [["vanilla"]]}, "branches must be a list of names"),
        ({"encoder": "ddc", "branches": []}, "branches must be distinct names"),
        ({"encoder": ["ddc"]}, "encoder must be"),
        ({"width": 1024}, "entries don't fit the config"),
        ({"stem_channels": 65536, "encoder": "ddc", "attention": "serank", "rank_offset": 16}, "don't fit the config"),
        ({"serank_version": "999.0.0"}, r"written by serank '999\.0\.0', newer than this one.*pip install --upgrade"),
        ({"serank_version": "1"}, "serank_version must be a version"),
        ({"serank_version": 1.0}, "serank_version must be a version"),
        ({"\ud800": 1, "\x1b[31m": 2, "a" * 10**5: 3}, "unknown entries .*; SeRankDet takes .*Correct or remove them"),
    ],
)  # fmt: skip
def test_bad_configs_are_named(changes: dict[str, Any], message: str, folder: Path) -> None:
    before = (folder / "config.json").read_bytes()
    replace_config(folder, **changes)
    try:
        with bounded_memory(), pytest.raises(CheckpointError, match=message) as error:
            SeRankDet.from_pretrained(folder)
    finally:
        (folder / "config.json").write_bytes(before)
    assert str(error.value).startswith(f"{folder}/")
    assert str(error.value).isprintable() or "\n  " in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"width": 1, "width": 2}', "an entry comes twice"),
        (b'{"mean": NaN}', "NaN is no JSON"),
        (b'{"mean": -Infinity}', "-Infinity is no JSON"),
        (b"[" * 500_000, "can't be read as JSON"),
        (b'{"width": ' + b"9" * 10_000 + b"}", "can't be read as JSON"),
        (b" " * MAX_CONFIG + b"{}", "config.json: 1048578 bytes, expected at most 1048576"),
    ],
)
def test_bad_json(content: bytes, message: str, folder: Path) -> None:
    before = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(content)
    try:
        with pytest.raises(CheckpointError, match=message):
            SeRankDet.from_pretrained(folder)
    finally:
        (folder / "config.json").write_bytes(before)


def test_weights_larger_than_the_network_are_not_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    os.truncate(tmp_path / "model.safetensors", 2**40)  # the rest is a hole, which takes no disk
    with (
        bounded_memory(),
        pytest.raises(CheckpointError, match=r"model\.safetensors: 1099511627776 bytes, expected at"),
    ):
        SeRankDet.from_pretrained(tmp_path)


def test_special_files_are_not_opened(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    for target in ("/dev/zero", "/dev/full", tmp_path, tmp_path / "nothing", "model.safetensors"):
        (tmp_path / "model.safetensors").symlink_to(target)
        with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
            SeRankDet.from_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()


def test_saving_replaces_links_and_not_what_they_point_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "saved").mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / "saved" / name).symlink_to(tmp_path / "outside")
    SeRankDet.from_pretrained(folder).save_pretrained(tmp_path / "saved", card="new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert not any(path.is_symlink() for path in (tmp_path / "saved").iterdir())


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Imports and calls that run what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in UNSAFE_MODULES:
                yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in UNSAFE_CALLS:
                yield name
            if name == "torch.load" and arguments.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if name.startswith("yaml.") and name not in ("yaml.safe_load", "yaml.safe_dump"):
                yield name
            if arguments.get("allow_pickle", "False") != "False" or arguments.get("shell", "False") != "False":
                yield f"{name}({arguments})"


def test_the_package_runs_nothing_that_a_file_says() -> None:
    files = sorted(Path(serank.__file__).parent.rglob("*.py"))
    assert len(files) > 40
    found = {str(file): list(unsafe(ast.parse(file.read_text(encoding="utf-8")))) for file in files}
    assert not {file: names for file, names in found.items() if names}


def test_that_search_finds_what_it_looks_for() -> None:
    code = (
        "import pickle\nfrom dill import loads\neval('1')\ntorch.load(f)\nnp.load(f, allow_pickle=True)\nyaml.load(f)"
    )
    assert len(list(unsafe(ast.parse(code)))) == 6
    assert not list(unsafe(ast.parse("model.eval()\ntorch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)")))
