"""Checkpoints of the released code: what is read, what is refused, and `serank convert`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from serank import SeRankDet
from serank.checkpoints.released import IMAGENET_MEAN, IMAGENET_STD, read_released, released_name
from serank.cli.entry import main
from serank.errors import CheckpointError

GRAPH: dict[str, Any] = {"merge_kernel": 3, "table_size": 512, "fusion": "gated", "bias": True}
WEIGHT = "Conv1.cdc_layer.0.conv.weight"
TABLE = "max_channel3.pos_enc.pos_enc"
State = dict[str, Tensor]


def table(side: int) -> Tensor:
    """The positional table as DESIGN.md defines it."""
    angle = np.arange(side)[:, None] * np.exp(-np.log(10000) * np.arange(0, side, 2) / side)
    return torch.from_numpy(np.stack((np.sin(angle), np.cos(angle)), axis=2).reshape(side, side)).float()


def network(width: int = 2, channels: int = 3, **changes: Any) -> SeRankDet:
    """One whose every weight and statistic is random, as after a training."""
    model = SeRankDet(width=width, in_channels=channels, stem_channels=channels, **GRAPH | changes).eval()
    for name, entry in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            entry.fill_(len(name))
        else:
            entry.add_(0.1 * torch.randn_like(entry).clamp(-3, 3))
    return model


def state_of(model: SeRankDet, side: int = 512) -> State:
    """Its entries as the released code would name them, and the tables that it keeps."""
    tables = {f"max_channel{i + 1}.pos_enc.pos_enc": table(side // 2**i) for i in range(5)}
    return {released_name(name): entry for name, entry in model.state_dict().items()} | tables


@pytest.fixture
def model() -> SeRankDet:
    return network()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "best.pth.tar"


def same(model: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(state[name], entry) for name, entry in model.state_dict().items())


def test_names_are_those_of_the_released_code(model: SeRankDet, shared: Path) -> None:
    shapes = json.loads((shared / "fixtures" / "released_state_dict.json").read_text())
    assert set(state_of(model)) == set(shapes)
    assert len(shapes) == 439


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "decode_head.", "module.", "module.decode_head.", "decode_head.module."])
def test_formats_and_prefixes(model: SeRankDet, file: Path, prefix: str, zipped: bool) -> None:
    state = OrderedDict((prefix + name, entry) for name, entry in state_of(model).items())
    torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=zipped)
    again = SeRankDet.from_released(file)
    assert same(model, again)
    assert not again.training


def test_a_bare_state_dict_of_parameters(model: SeRankDet, file: Path) -> None:
    # as a module that holds its tables as parameters gives it with keep_vars
    torch.save({name: nn.Parameter(v, requires_grad=False) for name, v in state_of(model).items()}, file)
    again = SeRankDet.from_released(file)
    assert same(model, again)
    assert all(parameter.requires_grad for parameter in again.parameters())


def content(model: SeRankDet) -> dict[str, Any]:
    """All that the released training writes."""
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    losses = [np.mean([0.5, 0.25]), np.float32(1)]
    figures = {"best_mIoU": 0.5, "best_f1": np.float64(0.5), "mIoU": losses, "nIoU": np.arange(3.0), "f1": np.bool_(1)}
    state = {f"decode_head.{name}": entry.detach().clone() for name, entry in state_of(model).items()}
    return {"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict(), "loss": losses[0]} | figures


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_everything_else_is_ignored_also_numpy_values(model: SeRankDet, file: Path, core: bytes) -> None:
    torch.save(content(model), file, _use_new_zipfile_serialization=False)
    # NumPy 1 and 2 call the module of their constructors by these names
    data = file.read_bytes().replace(b"numpy._core.", b"numpy.core.")
    assert b"cnumpy.core.multiarray\nscalar\n" in data
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data
    # and the weights were on a GPU
    located = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert located != data
    file.write_bytes(located.replace(b"numpy.core.", b"numpy." + core + b"."))
    assert same(model, SeRankDet.from_released(file))


def test_numpy_is_not_called(file: Path, model: SeRankDet, monkeypatch: pytest.MonkeyPatch) -> None:
    class Claims:
        """Asks NumPy for an array of 8 TB."""

        def __reduce__(self) -> tuple[Any, ...]:
            return np.array([1]).__reduce__()[0], (np.ndarray, (10**12,), "d")

    torch.save({"state_dict": state_of(model), "f1": Claims()}, file)
    assert same(model, SeRankDet.from_released(file))
    # and elsewhere in the process nothing more is let in than before
    assert not any("serank" in str(allowed) for allowed in torch.serialization.get_safe_globals())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_become_float32(model: SeRankDet, file: Path, dtype: torch.dtype) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state_of(model).items()}
    torch.save({"state_dict": state}, file)
    assert same(model.to(dtype).float(), SeRankDet.from_released(file))


def test_sizes_are_taken_from_the_entries(file: Path) -> None:
    wide = network(width=5, table_size=256)
    torch.save(state_of(wide, side=256), file)
    again = SeRankDet.from_released(file, working_size=256)
    assert same(wide, again)
    assert (again.config["width"], again.config["in_channels"], again.config["table_size"]) == (5, 3, 256)
    with pytest.raises(ValueError, match=r"working_size must lie in 1 to 256 px, .* got 512"):
        SeRankDet.from_released(file)


def test_other_channels_need_their_statistics(file: Path) -> None:
    grey = network(channels=1)
    torch.save(state_of(grey), file)
    with pytest.raises(CheckpointError, match=r"best.pth.tar: .*mean must be one number or 1, one for each channel"):
        SeRankDet.from_released(file)
    assert same(grey, SeRankDet.from_released(file, mean=0.4, std=0.2))


def test_frames_are_prepared_as_there(model: SeRankDet, file: Path) -> None:
    torch.save(state_of(model), file)
    with pytest.raises(ValueError, match="working_size must lie in 1 to 512 px"):
        SeRankDet.from_released(file, working_size=0)
    again = SeRankDet.from_released(file, working_size=64)
    assert again.threshold == 0.5
    spec = again.frame_spec
    for frame in ((1, 1), (8, 8), (64, 64), (600, 600), (2**13, 2**13)):
        assert spec.working_shape(*frame) == (64, 64)
    assert spec.working_shape(300, 400) == (48, 64)
    assert spec.working_shape(2**27, 1) == (64, 1)
    seen: list[Tensor] = []
    again.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with pytest.warns(UserWarning, match="constant"):
        detections = again.detect(np.full((30, 40), 51, np.uint8))
    assert detections.probability.shape == (30, 40)
    expected = (0.2 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(seen[0], expected.view(1, 3, 1, 1).expand(1, 3, 48, 64))


def drop(state: dict[str, Any]) -> None:
    del state[WEIGHT.replace("weight", "bias")]


def add(state: dict[str, Any]) -> None:
    state["backbone.x\n\x1b[2J"] = torch.zeros(3)


def reshape(state: dict[str, Any]) -> None:
    state["Conv.weight"] = torch.zeros(1, 7, 1, 1)


def integers(state: dict[str, Any]) -> None:
    state["Conv.weight"] = torch.zeros(1, 2, 1, 1, dtype=torch.int64)


def shrink_table(state: dict[str, Any]) -> None:
    state[TABLE] = state[TABLE][:64]


def train_table(state: dict[str, Any]) -> None:
    state[TABLE][5, 7] += 0.01


def break_table(state: dict[str, Any]) -> None:
    state[TABLE][5, 7] = np.nan


def no_table(state: dict[str, Any]) -> None:
    del state["max_channel1.pos_enc.pos_enc"]


def numbers(state: dict[str, Any]) -> None:
    state["extra"] = [1, 2]


def array(state: dict[str, Any]) -> None:
    state["Conv.bias"] = np.zeros(1)


def sparse(state: dict[str, Any]) -> None:
    state["Conv.bias"] = torch.zeros(1).to_sparse()


def meta(state: dict[str, Any]) -> None:
    state["Conv.bias"] = torch.zeros(1, device="meta")


def expanded(state: dict[str, Any]) -> None:
    state[WEIGHT] = torch.zeros(1, 3, 3, 3).expand(10**6, 3, 3, 3)


def number_key(state: dict[Any, Any]) -> None:
    state[7] = torch.zeros(1)


def twice(state: dict[str, Any]) -> None:
    state["module.Conv.bias"] = torch.zeros(1)


def wider(state: dict[str, Any]) -> None:
    state[WEIGHT] = torch.zeros(4, 3, 3, 3)


def too_wide(state: dict[str, Any]) -> None:
    state[WEIGHT] = torch.zeros(5000, 3, 3, 3)


def other_network(state: dict[str, Any]) -> None:
    state.clear()
    state.update(nn.Linear(2, 2).state_dict())


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            drop,
            ["1 entries", "cdc_layer.0.conv.bias: missing in file -> encoder.0.branches.difference.0.bias (2,)"],
        ),
        (add, ["1 entries", r"backbone.x\n\x1b[2J: (3,) -> not in model"]),
        (reshape, ["1 entries", "Conv.weight: (1, 7, 1, 1) -> head.weight (1, 2, 1, 1)"]),
        (integers, ["1 entries", "Conv.weight: (1, 2, 1, 1) of integers -> head.weight (1, 2, 1, 1)"]),
        (shrink_table, ["1 entries", f"{TABLE}: (64, 128) -> the positional table (128, 128)"]),
        (train_table, [f"{TABLE} differs by 0.01 from the fixed"]),
        (break_table, [f"{TABLE} differs by nan from the fixed"]),
        (no_table, ["whose state dict has max_channel1.pos_enc.pos_enc with 2 dimensions", "begins with "]),
        (numbers, ["entry extra of the state dict is no dense tensor but of type list"]),
        (array, ["entry Conv.bias of the state dict is no dense tensor but of type NumPyValue"]),
        (sparse, ["entry Conv.bias of the state dict is no dense tensor but of an unusual kind"]),
        (meta, ["entry Conv.bias of the state dict is no dense tensor but of an unusual kind"]),
        (expanded, [f"entry {WEIGHT} of the state dict is no dense tensor but of an unusual kind"]),
        (number_key, ["entry a int of the state dict is no dense tensor"]),
        (twice, ["entry Conv.bias is there twice"]),
        (wider, ["dilated.1.1.weight (4,)", "\n  and 327 more"]),
        (too_wide, ["width must be <= 1024; got 5000"]),
        (other_network, ["no checkpoint of the released SeRankDet", "this one begins with weight, bias"]),
    ],
)
def test_entries_that_do_not_fit(
    model: SeRankDet, file: Path, change: Callable[[dict[str, Any]], None], messages: list[str]
) -> None:
    state: dict[str, Any] = {name: entry.clone() for name, entry in state_of(model).items()}
    change(state)
    torch.save({"state_dict": state}, file)
    with pytest.raises(CheckpointError) as error:
        SeRankDet.from_released(file)
    for message in [str(file), *messages]:
        assert message in str(error.value)


@pytest.mark.parametrize("held", [[], {"state_dict": [1]}, torch.zeros(3), None, 5])
def test_files_without_a_state_dict(file: Path, held: object) -> None:
    torch.save(held, file)
    with pytest.raises(CheckpointError, match=r"best\.pth\.tar: holds no state dict"):
        SeRankDet.from_released(file)


class Call:
    """Unpickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def payload(kind: str, marker: Path) -> Any:
    """What leaves `marker` behind when it is unpickled without care."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f'echo > "{marker}"'),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "nested": [{"state": (1, [OrderedDict(x=Call(eval, code))])}],
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }[kind]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
@pytest.mark.parametrize(
    ("kind", "wanted"), [("os.system", r"\w+\.system"), ("eval", "eval"), ("exec", "exec"), ("nested", "eval")]
)
def test_malicious_pickles_are_refused(tmp_path: Path, kind: str, wanted: str, place: str, zipped: bool) -> None:
    marker, file = tmp_path / "marker", tmp_path / "best.pth.tar"
    bomb = payload(kind, marker)
    held = {"alone": bomb, "beside": {"state_dict": {}, "loss": bomb}, "inside": {"state_dict": {"Conv.bias": bomb}}}
    torch.save(held[place], file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=f"best.pth.tar: refused, since its pickle wants {wanted}, which is no"):
        SeRankDet.from_released(file)
    assert not marker.exists()
    # the payload is a live one
    torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("kind", ["eval", "getattr"])
def test_malicious_pickles_of_other_protocols(file: Path, tmp_path: Path, kind: str, protocol: int) -> None:
    torch.save({"state_dict": payload(kind, tmp_path / "marker")}, file, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=r"best.pth.tar: (refused|can't be read as a PyTorch checkpoint)"):
        SeRankDet.from_released(file)
    assert not (tmp_path / "marker").exists()


def test_classes_of_other_libraries_are_refused_with_the_way_out(file: Path) -> None:
    torch.save({"state_dict": {}, "args": Path("x")}, file)
    with pytest.raises(CheckpointError, match=r"wants pathlib\..*Path.* save its weights alone .*torch\.save\("):
        SeRankDet.from_released(file)


def test_attributes_that_a_pickle_sets_are_not_used(model: SeRankDet, file: Path) -> None:
    class Dressed:
        """Unpickles as an OrderedDict whose methods are hidden by attributes."""

        def __init__(self, held: dict[str, Any]) -> None:
            self.held = held

        def __reduce__(self) -> tuple[Any, ...]:
            return OrderedDict, (), {"items": 1, "get": 2, "keys": 3}, None, iter(self.held.items())

    state = state_of(model)
    state["Conv.bias"] = nn.Parameter(state["Conv.bias"])
    state["Conv.bias"].__dict__.update(detach=1, numel=2, to=3)
    torch.save(Dressed({"state_dict": Dressed(state)}), file)
    held = torch.load(file, weights_only=True)
    assert held["state_dict"].__dict__["items"] == 1
    assert dict.get(held["state_dict"], "Conv.bias").__dict__["detach"] == 1
    assert same(model, SeRankDet.from_released(file))


def test_no_such_file_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth\.tar: no such file"):
        SeRankDet.from_released(tmp_path / "nothing.pth.tar")
    with pytest.raises(CheckpointError, match=r"not a file; .* Folders are for from_pretrained"):
        SeRankDet.from_released(tmp_path)


def write_text(file: Path) -> None:
    file.write_text("<!DOCTYPE html><title>Enter the password</title>\n")


def write_tar(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def write_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("best/readme.txt", "text")


def write_module(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer PyTorch advises against TorchScript
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)


def write_safetensors(file: Path) -> None:
    save_file({"weight": torch.zeros(3)}, file)


@pytest.mark.parametrize(
    "write", [Path.touch, write_text, write_tar, write_zip, write_module, write_safetensors], ids=lambda f: f.__name__
)
def test_other_kinds_of_files(file: Path, write: Callable[[Path], None]) -> None:
    write(file)
    with pytest.raises(CheckpointError, match=r"best\.pth\.tar: can't be read as a PyTorch checkpoint; trunc") as error:
        SeRankDet.from_released(file)
    assert "to `False`" not in str(error.value)  # PyTorch's advice to read it without protection


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(file: Path, zipped: bool) -> None:
    torch.save({"state_dict": {"Conv.bias": torch.zeros(5000)}}, file, _use_new_zipfile_serialization=zipped)
    data = file.read_bytes()
    for end in range(0, len(data) - 1, len(data) // 40):
        file.write_bytes(data[:end])
        with pytest.raises(CheckpointError, match="truncated, damaged or another kind"):
            read_released(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_give_our_errors_alone(tmp_path_factory: pytest.TempPathFactory, zipped: bool) -> None:
    file = tmp_path_factory.mktemp("damaged") / "best.pth.tar"
    held = {"state_dict": OrderedDict(a=torch.zeros(2, 3), b=nn.Parameter(torch.zeros(1))), "loss": np.float64(1)}
    torch.save(held, file, _use_new_zipfile_serialization=zipped)
    data = file.read_bytes()
    outcomes = set()

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.integers(0, len(data) - 1), st.integers(0, 255), min_size=1, max_size=4))
    def check(changes: dict[int, int]) -> None:
        damaged = bytearray(data)
        for place, byte in changes.items():
            damaged[place] = byte
        file.write_bytes(damaged)
        try:
            read_released(file)
            outcomes.add("read")
        except CheckpointError:
            outcomes.add("refused")

    check()
    assert outcomes == {"read", "refused"}


def test_huge_files_are_not_read(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(2**32 + 1)  # takes no room on most disks
    with pytest.raises(CheckpointError, match=r"best\.pth\.tar: 4\.3 GB, and a checkpoint of the released code"):
        SeRankDet.from_released(file)


def test_archives_that_unpack_to_too_much_are_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": {"Conv.bias": torch.zeros(10**6)}}, file)
    packed = file.with_name("packed.pth.tar")
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < 10**5
    monkeypatch.setattr("serank.checkpoints.released.MAX_BYTES", 10**6)
    with pytest.raises(CheckpointError, match="GB, and a checkpoint of the released code has at most"):
        SeRankDet.from_released(packed)


def bomb(nones: int, *, zipped: bool, file: Path) -> None:
    """A pickle that makes a list of very many `None`s; zipped it is a thousandth of their size."""
    content = b"\x80\x02](" + b"N" * nones + b"e."
    if zipped:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3")
        return
    torch.save({}, file, _use_new_zipfile_serialization=False)
    start = file.read_bytes()
    file.write_bytes(start[: start.index(b"}q\x00.") - 2] + content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nones", [2 * 10**6, 10**8])
def test_pickles_of_very_many_objects_are_refused_at_once(file: Path, zipped: bool, nones: int) -> None:
    bomb(nones, zipped=zipped, file=file)
    start = time.process_time()
    with pytest.raises(CheckpointError, match="refused, its pickle has more than 1000000 operations"):
        SeRankDet.from_released(file)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("zipped", [True, False])
def test_large_pickles_are_not_read(file: Path, zipped: bool) -> None:
    torch.save({"text": "a" * 2**25}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused, its pickle has more than 16777216 bytes"):
        SeRankDet.from_released(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model: SeRankDet, file: Path, value: float) -> None:
    state = state_of(model)
    state["Conv.bias"] = torch.full_like(state["Conv.bias"], value)
    torch.save({"state_dict": state}, file)
    with pytest.raises(CheckpointError, match=r"best\.pth\.tar: entries hold NaN or infinity: Conv\.bias \(1 of 1\)"):
        SeRankDet.from_released(file)
    assert convert(file)[0] == 1


def test_devices_that_are_not_there(model: SeRankDet, file: Path) -> None:
    torch.save(state_of(model), file)
    with pytest.raises(ValueError, match="nowhere"):
        SeRankDet.from_released(file, device="nowhere")


def convert(file: Path, *arguments: str) -> tuple[int, Path]:
    folder = file.parent / "converted"
    return main(["convert", str(file), str(folder), *arguments]), folder


def test_convert_and_detect(model: SeRankDet, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content(model), file)
    assert convert(file, "--working-size", "64")[0] == 0
    folder = file.parent / "converted"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    released, converted = SeRankDet.from_released(file, working_size=64), SeRankDet.from_pretrained(folder)
    assert converted.config == released.config
    frame = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    expected = released.detect(frame).probability
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(converted.detect(frame).probability, expected)
    out = capsys.readouterr().out
    assert "width 2, frames scaled to 64 px" in out
    assert "Licence and metrics" in out


def test_the_card_says_where_the_weights_came_from(model: SeRankDet, file: Path) -> None:
    torch.save(state_of(model), file)
    _, folder = convert(file, "--half", "--working-size", "256")
    card = (folder / "README.md").read_text()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for text in ("`best.pth.tar`", digest, "`license`", "--resolution 256", "float16"):
        assert text in card
    assert card.startswith("---\nlibrary_name: serank\n")
    stored = SeRankDet.from_pretrained(folder)
    assert same(model.half().float(), stored)


def test_convert_replaces_nothing_unasked(
    model: SeRankDet, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save(state_of(model), file)
    assert convert(file)[0] == 0
    other = network()
    torch.save(state_of(other), file)
    assert convert(file)[0] == 1
    assert "holds a checkpoint; name a new folder, or replace it with --overwrite" in capsys.readouterr().err
    folder = tmp_path / "converted"
    assert same(model, SeRankDet.from_pretrained(folder))
    assert convert(file, "--overwrite")[0] == 0
    assert same(other, SeRankDet.from_pretrained(folder))
    # a folder of something else stays as it is
    (folder / "config.json").unlink()
    assert convert(file, "--overwrite")[0] == 1
    assert "is not empty and holds no checkpoint" in capsys.readouterr().err
    assert not (folder / "config.json").exists()
    assert main(["convert", str(file), str(file)]) == 1
    assert "is a file; name a folder" in capsys.readouterr().err


def test_a_failed_conversion_leaves_no_folder(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("no weights")
    status, folder = convert(file)
    assert status == 1
    assert "can't be read as a PyTorch checkpoint" in capsys.readouterr().err
    assert not folder.exists()
