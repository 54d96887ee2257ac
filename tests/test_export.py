"""Exported files: the same logits and detections in ONNX Runtime, without PyTorch, and as programs of torch.export."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from serank import LSFF, SeRankDet
from serank.cli.entry import main
from serank.frames.preparation import tiles
from serank.inference.onnx_export import SUFFIXES, export, preprocessing
from serank.layers import SeRankAttention

onnx = pytest.importorskip("onnx", reason="needs the extra serank[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra serank[export]")
pytest.importorskip("onnxscript", reason="needs the extra serank[export]")

ROOT = Path(__file__).parents[1]
FRAME_FILES = [ROOT / "examples" / "frames" / f"{name}.png" for name in ("sea_640x512", "sky_256x256")]
DEEP_FRAME = ROOT / "examples" / "frames" / "ground_640x480_16bit.png"
LARGE_FRAME = ROOT / "examples" / "frames" / "cloud_1280x1024.png"
SIZES = [(1, 1), (7, 16), (17, 33), (50, 67), (48, 48), (40, 200), (256, 256), (512, 512)]
RELEASED = {"in_channels": 3, "stem_channels": 3, "merge_kernel": 3, "table_size": 512, "fusion": "gated", "bias": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "released graph": RELEASED,
    "plain encoder": {"encoder": "plain", "attention": "none", "fusion": "concat"},
    "rank after": {"attention": "after", "per_channel_fusion": True},
    "no encoding": {"positional_encoding": False, "branches": ["difference"], "rank_offset": 5},
}

Float = NDArray[np.float32]


def small(**arguments: Any) -> SeRankDet:
    """A narrow network whose batch norms have been given statistics, as after training."""
    model = SeRankDet(**{"width": 2, **arguments})
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, nn.Conv2d):  # logits of a size in which differences show
            nn.init.kaiming_normal_(module.weight, a=0.6, generator=generator)
        if isinstance(module, LSFF) and module.mode == "gated":  # which starts at 0 and would hide the gates
            nn.init.constant_(module.gamma, 0.5)
    return model.eval().requires_grad_(False)


def runner(file: Path) -> Callable[[Tensor], Tensor]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0])


def assert_equal_logits(
    run: Callable[[Tensor], Tensor], model: SeRankDet, sizes: list[tuple[int, int]], tolerance: float
) -> None:
    differ = 0
    for height, width in sizes:
        for batch in (1, 4):
            x = torch.randn(batch, model.in_channels, height, width)
            expected = model(x)
            differ += int(((run(x) - expected).abs().flatten(1).amax(1) > tolerance).sum())
            assert min(height, width) == 1 or expected.std() > 1e-3
    # two values of a channel that are equal but for rounding may change places, so that another point is ranked
    assert differ <= 1


@pytest.fixture(scope="module")
def sirst() -> SeRankDet:
    return SeRankDet.from_pretrained("sirst").requires_grad_(False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint as ONNX, written by the command."""
    file = tmp_path_factory.mktemp("onnx") / "sirst.onnx"
    assert main(["export", "--checkpoint", "sirst", "--output", str(file)]) == 0
    return file


def test_logits_of_the_bundled_checkpoint(sirst: SeRankDet, file: Path) -> None:
    assert_equal_logits(runner(file), sirst, SIZES[:-1], 1e-4)


def test_one_file_with_its_metadata_and_nothing_of_this_machine(sirst: SeRankDet, file: Path) -> None:
    assert list(file.parent.iterdir()) == [file]
    assert str(ROOT).encode() not in file.read_bytes()
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version >= 20
    metadata = json.loads({entry.key: entry.value for entry in proto.metadata_props}["serank"])
    assert metadata == preprocessing(sirst, "sirst")
    shape = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1, "height", "width"]


def test_k_of_topk_is_a_constant(sirst: SeRankDet, file: Path) -> None:
    graph = onnx.load(file).graph
    constants = {i.name: onnx.numpy_helper.to_array(i).tolist() for i in graph.initializer if len(i.dims) <= 1}
    found = [constants[node.input[1]] for node in graph.node if node.op_type == "TopK"]
    ranks = [m.k for m in sirst.attention if isinstance(m, SeRankAttention)]
    assert found == [[k] for k in ranks for _ in range(2)]  # one picks the points, one sorts them


def test_metadata_is_all_that_frames_need(sirst: SeRankDet) -> None:
    found = preprocessing(sirst)
    assert json.loads(json.dumps(found)) == found
    spec = sirst.frame_spec
    assert found == {
        "name": None,
        "serank": found["serank"],
        "in_channels": 1,
        "grey": {
            "unit_median": 0.42,
            "unit_contrast": 0.012,
            "noise_steps": 0.5,
            "noise_spreads": [1 / 300, 1 / 5],
            "mean_difference": 1.4,
            "clipped_quantile": 0.9,
            "step_quantiles": [0.05, 0.95],
            "most_pixels": 2**18,
            "stray": 0.05,
            "tolerance": 1e-6,
        },
        "mean": spec.mean,
        "std": spec.std,
        "working_size": spec.working_size,
        "scale_range": list(spec.scale_range),
        "tile": spec.tile,
        "overlap": spec.overlap,
        "repair": True,
        "threshold": sirst.threshold,
        "tta": 1,
        "score_calibration": list(sirst.score_calibration or ()),
    }


def test_the_command_names_a_folder_without_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save_pretrained(tmp_path / "runs" / "best")
    given: dict[str, Any] = {}

    def keep(_: SeRankDet, path: str, **arguments: Any) -> None:
        given.update(arguments)
        Path(path).write_bytes(b"")

    monkeypatch.setattr(SeRankDet, "export", keep)
    command = ["export", "--checkpoint", str(tmp_path / "runs" / "best"), "--output", str(tmp_path / "a.pt2")]
    assert main([*command, "--format", "torch"]) == 0
    assert given == {"format": "torch", "opset": None, "name": "best"}


@pytest.fixture
def without_torch(tmp_path: Path) -> Callable[..., Any]:
    """Runs the example where importing torch or serank fails; returns the JSON that it writes, or its last words."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'serank'):\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    environment = {"PYTHONPATH": str(tmp_path / "blocked"), "PATH": "", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str | Path, fails: bool = False) -> Any:
        command = [sys.executable, "-W", "error", ROOT / "examples" / "detect_onnx.py", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert bool(done.returncode) == fails, done.stderr
        return done.stderr if fails else json.loads(done.stdout)

    blocked = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert "torch is blocked" in blocked.stderr
    return run


def test_detections_without_torch(
    sirst: SeRankDet, file: Path, tmp_path: Path, without_torch: Callable[..., Any]
) -> None:
    rng = np.random.default_rng(0)
    odd: dict[str, NDArray[Any]] = {
        "colour.png": rng.integers(0, 256, (40, 50, 3), dtype=np.uint8),
        "float.tif": rng.random((40, 50), dtype=np.float32),
        "bytes.tif": rng.integers(0, 256, (40, 50)).astype(np.int32),
        "constant.png": np.full((30, 30), 700, np.uint16),
    }
    for name, pixels in odd.items():
        Image.fromarray(pixels).save(tmp_path / name)
    odd["kelvin.npy"] = rng.normal(290, 2, (40, 50))
    np.save(tmp_path / "kelvin.npy", odd["kelvin.npy"])
    frames = [*FRAME_FILES, DEEP_FRAME, *(tmp_path / name for name in odd)]
    found = without_torch(file, *frames)
    assert [Path(entry["frame"]) for entry in found] == frames
    assert sum(len(entry["detections"]) for entry in found) >= 5
    with pytest.warns(UserWarning, match="false colour|constant"):
        results = sirst.detect(list(frames))
    for entry, expected in zip(found, results, strict=True):
        assert_same_detections(entry, expected.to_dict())


def test_mistakes_with_the_example(file: Path, tmp_path: Path, without_torch: Callable[..., Any]) -> None:
    (tmp_path / "text.png").write_text("no image")
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    for arguments, message in (
        (["nothing.onnx", FRAME_FILES[0]], "nothing.onnx: no such file"),
        ([file, "nothing.png"], "nothing.png: skipped: "),
        ([file, "text.png", FRAME_FILES[0]], "text.png: skipped: "),
        ([file, "deep.png"], "deep.png: skipped: 16-bit colour can't be read without loss"),
        ([file, FRAME_FILES[0], "--threshold", "50"], "--threshold must be in [0, 1]; got 50.0"),
    ):
        error = without_torch(*arguments, fails=True)
        assert message in error
        assert "Traceback" not in error


def assert_same_detections(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in ("height", "width", "threshold"):
        assert found[key] == expected[key]
    ours, theirs = found["detections"], expected["detections"]
    # in the same order too, which follows scores that differ by 1e-6 in the sample frames
    assert [d["box"] for d in ours] == [d["box"] for d in theirs]
    for one, other in zip(ours, theirs, strict=True):
        # a pixel within rounding of the threshold may lie on either side of it
        assert one["area"] == pytest.approx(other["area"], abs=1)
        assert one["centroid"] == pytest.approx(other["centroid"], abs=0.011)
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


def test_the_example_cuts_the_same_tiles() -> None:
    specification = importlib.util.spec_from_file_location("detect_onnx", ROOT / "examples" / "detect_onnx.py")
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    for length in (*range(1, 120), 1025, 2048, 4096):
        for tile, overlap in ((1, 0), (16, 15), (40, 10), (41, 0), (1024, 128)):
            assert list(example.tiles(length, tile, overlap)) == list(tiles(length, tile, overlap))


@pytest.mark.slow
def test_large_frames_are_tiled_without_torch_too(
    sirst: SeRankDet, tmp_path: Path, without_torch: Callable[..., Any]
) -> None:
    model = sirst.reconfigured(tile=256, overlap=64)
    model.export(tmp_path / "tiled.onnx")
    assert max(model.frame_spec.working_shape(1024, 1280)) > 2 * 256
    expected = model.detect(LARGE_FRAME).to_dict()
    assert len(expected["detections"]) >= 2
    assert_same_detections(without_torch(tmp_path / "tiled.onnx", LARGE_FRAME)[0], expected)


def test_an_exporter_that_holds_no_range_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+debian")
    with pytest.raises(RuntimeError, match=r"export needs PyTorch 2\.7 or newer.*this is 2\.6\.0"):
        SeRankDet(width=8).export(tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_program(tmp_path: Path) -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train().export(tmp_path / "small.pt2", format="torch", name="small")
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.eval()
    assert str(ROOT).encode() not in (tmp_path / "small.pt2").read_bytes()
    files = {"serank.json": ""}
    program = torch.export.load(tmp_path / "small.pt2", extra_files=files)
    assert json.loads(files["serank.json"]) == preprocessing(model, "small")
    run = program.module()
    assert_equal_logits(run, model, [size for size in SIZES if min(size) >= 17], 1e-5)
    with pytest.raises(AssertionError, match="size"):
        run(torch.randn(1, 1, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str, format: str, tmp_path: Path) -> None:
    model = small(**VARIANTS[variant])
    path = tmp_path / f"file{SUFFIXES[format]}"
    export(model, path, preprocessing(model), format=format)
    if format == "onnx":
        assert_equal_logits(runner(path), model, SIZES, 1e-4)
    else:
        run = torch.export.load(path).module()
        assert_equal_logits(run, model, [size for size in SIZES if min(size) >= 17], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    model = small()
    export(model, tmp_path / "file.onnx", preprocessing(model), opset=opset)
    assert onnx.load(tmp_path / "file.onnx").opset_import[0].version == opset
    assert_equal_logits(runner(tmp_path / "file.onnx"), model, SIZES, 1e-4)


def test_int8_by_the_example(sirst: SeRankDet, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8.onnx"
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "quantize_onnx.py")]
    done = subprocess.run([*command, file, output, *FRAME_FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"agree by (0\.\d+) .* targets of (\d+) px", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > 0.8
    assert int(found[2]) > 50
    assert output.stat().st_size < 0.5 * file.stat().st_size
    assert [p.value for p in onnx.load(output).metadata_props if p.key == "serank"] == [
        p.value for p in onnx.load(file).metadata_props
    ]
    initializers = onnx.load(output).graph.initializer
    quantised = {i.name.removesuffix("_quantized") for i in initializers if i.data_type == onnx.TensorProto.INT8}
    assert {"encoder.2.merge.0.weight", "decoder.1.refine.1.0.weight"} <= quantised
    in_float = ("encoder.0.", "decoder.0.", "attention.", "head.")
    assert not [name for name in quantised if name.startswith(in_float) or "squeeze" in name]


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("a.onnx", {"format": "tensorrt"}, 'format must be "onnx" or "torch"; got \'tensorrt\''),
        ("a.pt2", {}, r"path must end in \.onnx for format='onnx'; got .*a\.pt2"),
        ("a.onnx", {"format": "torch"}, r"path must end in \.pt2"),
        ("a.pt2", {"format": "torch", "opset": 20}, 'opset is for format="onnx"; leave it out; got 20'),
        ("a.onnx", {"opset": 17}, "opset must be 18 to 23; got 17"),
    ],
)
def test_refused(path: str, arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        small().export(tmp_path / path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="its folder doesn't exist"):
        small().export(tmp_path / "nowhere" / "a.onnx")


def test_what_gives_other_logits_is_not_kept(
    sirst: SeRankDet, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Program:
        model_proto = onnx.load(file)

    bias = next(i for i in Program.model_proto.graph.initializer if i.name == "head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    (tmp_path / "a.onnx").write_text("before")
    with pytest.raises(RuntimeError, match=r"the exported file's logits differ from the network's by 0\.01"):
        sirst.export(tmp_path / "a.onnx")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", "--output", str(tmp_path / "a.onnx")]) == 1
    error = capsys.readouterr().err
    assert package in error
    assert "pip install 'serank[export]'" in error
    assert not list(tmp_path.iterdir())
