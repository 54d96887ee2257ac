"""Saving and loading: round trips, strictness, and what damaged or foreign files get."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import serank
from serank import SeRankDet
from serank.checkpoints import read_card
from serank.errors import CheckpointError


@pytest.fixture
def model() -> SeRankDet:
    return SeRankDet(width=4, working_size=100, mean=0.3, std=0.2, threshold=0.4).eval()


@pytest.fixture
def folder(model: SeRankDet, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def forget_digest(folder: Path) -> None:
    """Makes the weights an older file, which names no config."""
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")


@torch.no_grad()
def test_round_trip(model: SeRankDet, folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = SeRankDet.from_pretrained(folder)
    assert again.config == model.config
    assert not again.training
    x = torch.randn(1, 1, 40, 40)
    assert torch.equal(again(x), model(x))


@torch.no_grad()
def test_half_precision_files(model: SeRankDet, folder: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "half", half=True)
    sizes = [(f / "model.safetensors").stat().st_size for f in (tmp_path / "half", folder)]
    assert sizes[0] < 0.6 * sizes[1]
    again = SeRankDet.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    x = torch.randn(1, 1, 40, 40)
    torch.testing.assert_close(again(x), model(x), atol=1e-2, rtol=1e-2)


def test_half_precision_that_can_not_hold_a_value(model: SeRankDet, tmp_path: Path) -> None:
    name = next(name for name in model.state_dict() if name.endswith("running_var"))
    model.state_dict()[name][0] = 7e4
    with pytest.raises(ValueError, match=f"half: {name} reaches 7e\\+04 and float16 ends at 65504"):
        model.save_pretrained(tmp_path / "half", half=True)
    assert not list(tmp_path.glob("half/*"))


def test_a_card_is_kept_unless_another_is_given(model: SeRankDet, folder: Path) -> None:
    model.save_pretrained(folder, card="mine")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_channels_last_weights_are_saved(model: SeRankDet, tmp_path: Path) -> None:
    model.to(memory_format=torch.channels_last).save_pretrained(tmp_path)  # type: ignore[call-overload]
    again = SeRankDet.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())


def test_entries_that_do_not_fit_are_listed(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["head.bias"]
    weights["extra.weight"] = torch.zeros(3)
    weights["head.weight"] = torch.zeros(1, 5, 1, 1)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        SeRankDet.from_pretrained(folder)
    for line in (
        "head.bias: missing in file -> (1,)",
        "extra.weight: (3,) -> not in model",
        "head.weight: (1, 5, 1, 1) -> (1, 4, 1, 1)",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_were_changed_are_refused(model: SeRankDet, folder: Path, half: bool) -> None:
    """By a bit, and by a permutation of the rows that leaves the network's size as it was."""
    model.save_pretrained(folder, half=half)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    SeRankDet.from_pretrained(folder)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its weights are not those that were saved"):
        SeRankDet.from_pretrained(folder)
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    weights = load_file(file)
    weights["head.weight"] = weights["head.weight"].flip(1)
    save_file(weights, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"must leave out weights_sha256 of the file's metadata"):
        SeRankDet.from_pretrained(folder)
    save_file(weights, file, metadata={k: v for k, v in metadata.items() if k != "weights_sha256"})
    assert torch.equal(SeRankDet.from_pretrained(folder).state_dict()["head.weight"], weights["head.weight"].float())


def test_a_config_of_another_width_is_refused(folder: Path) -> None:
    edit_config(folder, width=8)
    with pytest.raises(CheckpointError, match="entries don't fit the config"):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 5}, "unknown entries depth; SeRankDet takes .*width"),
        ({"width": 0}, "width must be >= 1; got 0"),
        ({"width": "4"}, "width must be an int; got '4'"),
        ({"threshold": 2}, "threshold must lie in"),
        ({"scale_range": [1]}, "scale_range must be"),
        ({"mean": None}, "mean must be a number; got None"),
    ],
)
def test_bad_configs(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"null"])
def test_configs_that_are_no_json_object(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config.json"):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "header"])
def test_unreadable_weights(folder: Path, damage: str) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(
        {"empty": b"", "text": b"not weights", "cut": data[: len(data) // 2], "header": b"\xff" * 8 + data[8:]}[damage]
    )
    with pytest.raises(CheckpointError, match=r"model\.safetensors: can't be read as safetensors"):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_folders_that_lack_a_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"no {file}"):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize("name", ["sirts", "a/b/c", "../elsewhere/x", "./nothing", ""])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"bundled: .*sirst"):
        SeRankDet.from_pretrained(name)


def test_a_repository_that_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nobody/nothing@main: neither a local folder nor in the cache"):
        SeRankDet.from_pretrained("nobody/nothing", cache_dir=tmp_path, local_files_only=True)


def test_the_file_names_the_version_and_the_config_does_not(model: SeRankDet, folder: Path) -> None:
    written = json.loads((folder / "config.json").read_text())
    assert written.pop("serank_version") == serank.__version__
    assert written == model.config == SeRankDet.from_pretrained(folder).config


@pytest.mark.parametrize(
    ("version", "loads"), [("0.0.9", True), ("0.1.99", True), ("0.2.0.dev1", False), ("1.0", False), ("0.2rc1", False)]
)
def test_versions(folder: Path, version: str, loads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serank.checkpoints.config_file.__version__", "0.1.3")
    edit_config(folder, serank_version=version, **({} if loads else {"new_argument": 1}))
    if loads:
        SeRankDet.from_pretrained(folder)
    else:
        with pytest.raises(CheckpointError, match=r"newer than this one, 0\.1\.3; upgrade with: pip install"):
            SeRankDet.from_pretrained(folder)


def test_a_config_without_version_loads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["serank_version"], config["tile"]  # an older one, before an argument was added
    (folder / "config.json").write_text(json.dumps(config))
    forget_digest(folder)
    with pytest.warns(UserWarning, match=r"config\.json: lacks entries, whose defaults are taken: tile=1024\."):
        assert SeRankDet.from_pretrained(folder).config["tile"] == SeRankDet(width=1).config["tile"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_weights_of_other_types_load(folder: Path, dtype: torch.dtype) -> None:
    file = folder / "model.safetensors"
    save_file({k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
    model = SeRankDet.from_pretrained(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "dtype", "line"),
    [
        ("head.weight", torch.int64, "head.weight: I64 -> F16 or BF16 or F32 or F64"),
        ("head.weight", torch.bool, "head.weight: BOOL -> F16 or BF16 or F32 or F64"),
        ("head.weight", torch.float8_e4m3fn, "head.weight: F8_E4M3 -> F16 or BF16 or F32 or F64"),
        ("side_heads.0.bias", torch.uint8, "side_heads.0.bias: U8 -> F16"),
        ("encoder.0.merge.1.num_batches_tracked", torch.float32, "num_batches_tracked: F32 -> I64"),
    ],
)
def test_no_other_kind_of_number_is_cast(folder: Path, name: str, dtype: torch.dtype, line: str) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {name: weights[name].to(dtype)}, file)
    with pytest.raises(CheckpointError, match=f"1 entries don't fit the config.*\n  .*{line}"):
        SeRankDet.from_pretrained(folder)


def test_loading_leaves_random_numbers_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    SeRankDet.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_loaded_weights_are_not_tied_to_the_file(model: SeRankDet, folder: Path) -> None:
    again = SeRankDet.from_pretrained(folder)
    file = folder / "model.safetensors"
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_failed_writing_leaves_the_old_checkpoint(
    model: SeRankDet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("serank.checkpoints.weights.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["theta", "working_size", "mean"])
def test_missing_entries_are_never_taken_in_silence(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    with (
        pytest.warns(UserWarning, match=f"lacks entries, whose defaults are taken: {name}="),
        pytest.raises(CheckpointError, match="was saved with another config"),
    ):
        SeRankDet.from_pretrained(folder)
    forget_digest(folder)
    with pytest.warns(UserWarning, match=f"lacks entries, whose defaults are taken: {name}="):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["head.bias", "encoder.0.merge.1.running_var", "decoder.0.reduce.0.weight"])
def test_weights_that_are_not_finite_are_refused(model: SeRankDet, folder: Path, name: str, value: float) -> None:
    file, before = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    model.state_dict()[name].view(-1)[0] = value
    for half in (False, True):
        with pytest.raises(ValueError, match=rf"not saved, entries hold NaN or infinity: {name} \(1 of \d+\)"):
            model.save_pretrained(folder, half=half)
    assert file.read_bytes() == before
    save_file(model.state_dict(), file)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: entries hold NaN or infinity: {name} \(1 of"):
        SeRankDet.from_pretrained(folder)


def test_values_beyond_float32_are_refused(model: SeRankDet, folder: Path) -> None:
    weights = {name: v.double() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    weights["head.bias"] = torch.full((1,), 1e300, dtype=torch.float64)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"infinity: head\.bias"):
        SeRankDet.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"working_size": 200}, {"theta": 0.5}, {"mean": 0.5}, {"scale_range": [0.5, 2.0]}])
def test_files_of_two_saves_are_refused(model: SeRankDet, folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    other = tmp_path / "other"
    SeRankDet(**(model.config | change)).save_pretrained(other)
    SeRankDet.from_pretrained(other)
    shutil.copy(folder / "config.json", other / "config.json")
    with pytest.raises(CheckpointError, match=r"was saved with another config.*restore it.*reconfigured\(\.\.\.\)"):
        SeRankDet.from_pretrained(other)


def test_the_same_config_written_otherwise_still_matches(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=7))
    SeRankDet.from_pretrained(folder)
    edit_config(folder, serank_version="0.0.1")
    SeRankDet.from_pretrained(folder)


def test_the_threshold_may_be_edited_by_hand(model: SeRankDet, folder: Path, tmp_path: Path) -> None:
    edit_config(folder, threshold=0.9)
    assert SeRankDet.from_pretrained(folder).threshold == 0.9


def test_settings_of_detection_are_kept_by_copies_and_files(model: SeRankDet, tmp_path: Path) -> None:
    model.threshold, model.tta, model.score_calibration = 0.8, 4, (-0.5, 0.25)
    model.save_pretrained(tmp_path / "chosen")
    for copy in (SeRankDet.from_pretrained(tmp_path / "chosen"), model.reconfigured(tile=512), model.optimize()):
        assert (copy.threshold, copy.tta, copy.score_calibration) == (0.8, 4, (-0.5, 0.25))
    for name, value in (("threshold", 1.5), ("tta", 3), ("score_calibration", (1.0,))):
        with pytest.raises(ValueError, match=name):
            setattr(model, name, value)
    assert (model.threshold, model.tta, model.score_calibration) == (0.8, 4, (-0.5, 0.25))


def test_copies_keep_what_is_trained_and_how(model: SeRankDet) -> None:
    model.checkpointing = True
    model.head.requires_grad_(False)
    copy = model.reconfigured(tile=512)
    assert copy.checkpointing is True
    frozen = {name for name, parameter in copy.named_parameters() if not parameter.requires_grad}
    assert frozen == {"head.weight", "head.bias"}


def test_threads_may_save_to_one_folder(model: SeRankDet, tmp_path: Path) -> None:
    """As all processes of a training do whose author forgot to ask for the first one."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(model.save_pretrained, tmp_path) for _ in range(24)]:
            done.result()
    assert SeRankDet.from_pretrained(tmp_path).config == model.config
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_a_path_is_no_bundled_name() -> None:
    with pytest.raises(CheckpointError, match="general: no such folder; for the bundled checkpoint pass the string"):
        SeRankDet.from_pretrained(Path("general"))
    assert read_card(Path("general")) is None
    assert str(read_card("general")).startswith("---")


def test_the_next_save_removes_what_a_killed_one_left(model: SeRankDet, folder: Path) -> None:
    code = (
        "import os, sys, serank.checkpoints.weights as weights\n"
        "from serank import SeRankDet\n"
        "def killed(*_, **__): os._exit(9)\n"
        "weights.save_file = killed\n"
        "SeRankDet(width=1).save_pretrained(sys.argv[1])\n"
    )
    before = {path.name for path in folder.iterdir()}
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 9
    left = {path.name for path in folder.iterdir()} - before
    assert left
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == before | left  # they might be another process's
    for name in left:
        os.utime(folder / name, (0, 0))
    (folder / ".serank-save-mine").mkdir()
    (folder / ".serank-save-mine" / "notes.txt").write_text("mine")
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == before | {".serank-save-mine"}
    assert SeRankDet.from_pretrained(folder).config == model.config


def test_no_other_package_of_a_higher_floor_is_imported() -> None:
    higher = ("serank.serankdet", "serank.evaluation", "serank.train", "serank.cli", "serank.datasets")
    for file in Path(serank.checkpoints.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith(higher), f"{file.name} imports {node.module}"
