"""Measuring a model: sizes, protocols, several processes, and the command."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import FolderDataset, Sample
from serank.datasets.masks import resize_mask
from serank.evaluation import Evaluator, evaluate, predict_sample
from serank.frames.preparation import resize
from serank.metrics import DetectionMetrics
from serank.synthetic import SyntheticScenes


class Bright(SeRankDet):
    """Target where the frame is bright, and a record of the sizes that it was run at."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen: list[tuple[int, ...]] = [*getattr(self, "seen", []), tuple(x.shape)]
        return 20 * (x[:, :1] - 0.55)


def bright(**settings: Any) -> Bright:
    return Bright(width=2, mean=0.0, std=1.0, **settings)


def scenes(count: int = 5) -> list[Sample]:
    return list(SyntheticScenes(count, 40, 48, targets=(1, 2), size=(2, 6), scr=(10, 40), empty=0.4, seed=6))


def test_native_is_what_detect_sees() -> None:
    model = bright(working_size=64, threshold=0.4)
    metrics = DetectionMetrics(0.4)
    for sample in scenes():
        metrics.update(model.detect(sample.frame).probability, sample.mask)
    result = evaluate(model, scenes())
    assert {k: result.metrics[k] for k in metrics.compute()} == metrics.compute()
    assert result.metrics["pd"] > 0
    assert (result.threshold, result.resolution, result.protocol) == (0.4, "native", "standard")
    assert [f.name for f in result.frames] == [s.name for s in scenes()]
    assert {f.height for f in result.frames} == {40}
    assert all(math.isfinite(t.scr) for t in result.targets)
    assert {shape[2:] for shape in model.seen} == {(53, 64)}


@pytest.mark.parametrize("protocol", ["standard", "released"])
def test_a_resolution_runs_and_measures_at_exactly_that(protocol: Any) -> None:
    model = bright(working_size=64, tile=48, overlap=8)
    evaluator = Evaluator(0.5, 2.0, protocol)
    for sample in scenes():
        frame = resize(sample.frame, 96, 96)
        probability = torch.sigmoid(torch.from_numpy(20 * (frame - np.float32(0.55)))).numpy()
        evaluator.update(sample.name, probability, resize_mask(sample.mask, 96, 96), frame)
    result = evaluate(model, scenes(), resolution=96, max_distance=2.0, protocol=protocol)
    assert result.metrics == pytest.approx(evaluator.result().metrics, nan_ok=True)
    assert [(f.height, f.width) for f in result.frames] == [(96, 96)] * 5
    assert set(model.seen) == {(1, 1, 96, 96)}
    assert result.resolution == "96"


def test_a_sample_at_a_resolution_agrees_with_itself() -> None:
    model = bright()
    sample = scenes()[0]
    same, probability = predict_sample(model, sample)
    assert same is sample
    assert probability.shape == sample.mask.shape
    square, probability = predict_sample(model, sample, 64)
    assert square.frame.shape == square.mask.shape == probability.shape == (64, 64)


def test_the_model_is_left_as_it_was() -> None:
    model = SeRankDet(width=2).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluate(model, scenes(2), curves=False)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_curves_are_left_out_on_request() -> None:
    assert evaluate(bright(), scenes(1), curves=False).curves is None
    curves = evaluate(bright(), scenes(1), thresholds=[0.2, 0.8]).curves
    assert curves is not None
    assert curves.thresholds.tolist() == [0.2, 0.8]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="dataset is empty"):
        evaluate(bright(), [])
    with pytest.raises(ValueError, match=r"max_distance must be a number of pixels > 0; got '3' \(str\)"):
        evaluate(bright(), scenes(1), max_distance="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"thresholds must be .* numbers in \[0, 1\]; got 'low'"):
        evaluate(bright(), scenes(1), thresholds="low")
    with pytest.raises(ValueError, match="resolution must be"):
        evaluate(bright(), scenes(1), resolution=8)
    with pytest.raises(ValueError, match="threshold must lie in"):
        evaluate(bright(), scenes(1), threshold=2.0)


SAMPLE = Sample("a", np.zeros((4, 4), np.float32), np.zeros((4, 4), np.bool_))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("data/sirst", r"got the path 'data/sirst'; pass FolderDataset\('data/sirst'\)"),
        (Path("data"), r"got the path 'data'; pass FolderDataset\('data'\)"),
        ([SAMPLE[1:3]], r"got list of tuple; pass FolderDataset\(path\) or a list of Sample"),
        (SAMPLE, r"got a single one; pass \[dataset\]"),
        ({"a": SAMPLE}, "got dict; pass"),
        (iter([SAMPLE]), "got list_iterator; pass"),
        (None, "got NoneType; pass"),
    ],
)
def test_what_is_no_data_set(dataset: Any, message: str) -> None:
    expected = r"dataset must be a sequence of Sample \(name, frame, mask, soft, hidden\); "
    with pytest.raises(TypeError, match=expected + message):
        evaluate(bright(), dataset)


# ---------- several processes ----------

SCRIPT = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_evaluate import bright, scenes
from serank.evaluation import evaluate
from serank.evaluation import choose_threshold

torch.set_num_threads(1)
rank, folder = int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = [evaluate(bright(), scenes(count), threshold=0.5).to_dict() for count in (5, 1)]
found.append(choose_threshold(bright(), scenes(), false_alarms=0.01).threshold)
broken = scenes(3)
broken[1] = broken[1]._replace(mask=broken[1].mask[:5])  # measured by the second process
try:
    evaluate(bright(), broken)
except Exception as error:
    found.append(f"{type(error).__name__}: {error}")
(folder / f"{rank}.json").write_text(json.dumps(found))
dist.destroy_process_group()
"""


def test_two_processes_measure_as_one(tmp_path: Path) -> None:
    from serank.evaluation import choose_threshold

    command = [sys.executable, "-W", "error::UserWarning:serank", "-c", SCRIPT, str(Path(__file__).parent)]
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first[:3] == second[:3]
    # an odd number of frames, and fewer frames than processes
    for count, found in zip((5, 1), first[:2], strict=True):
        assert found == evaluate(bright(), scenes(count), threshold=0.5).to_dict()
        assert len(found["frames"]) == count
    assert first[2] == choose_threshold(bright(), scenes(), false_alarms=0.01).threshold
    # one that fails doesn't leave the other waiting
    assert second[3].startswith("ValueError: probability and target must have the same")
    assert first[3].startswith("RuntimeError: evaluation stopped: process 1 failed with ValueError: probability")


# ---------- the command ----------


def write(folder: Path, name: str, values: NDArray[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for sample in scenes():
        write(tmp_path / "set" / "images", sample.name, np.rint(sample.frame * 255).astype(np.uint8))
        write(tmp_path / "set" / "masks", sample.name, sample.mask.astype(np.uint8) * 255)
    (tmp_path / "set" / "some.txt").write_text("\n".join(s.name for s in scenes()[:3]))
    return tmp_path / "set"


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    model = SeRankDet(width=2)
    torch.nn.init.zeros_(model.head.get_parameter("bias"))  # about half of its pixels are targets
    model.save_pretrained(tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


def test_command_measures_a_checkpoint(root: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(root), "--split", "some", "--checkpoint", checkpoint, "--threshold", "0.9"]
    assert main([*arguments, "--resolution", "64", "--protocol", "released", "--max-distance", "2"]) == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    assert first.startswith("IoU 0.0000  nIoU 0.0000  Pd 0.0000  Fa 0.00e-6")
    assert "(3 frames, " in first
    assert second.startswith("AUC 0.")
    assert "target-free frame" in second
    assert captured.err == ""


def test_command_scores_predictions(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sample in scenes()[:4]:
        write(tmp_path / "maps", sample.name, sample.mask.astype(np.uint8) * 255)
    write(tmp_path / "maps", "stranger", np.zeros((4, 4), np.uint8))
    arguments = ["evaluate", "--predictions", str(tmp_path / "maps"), "--targets", str(root)]
    assert main([*arguments, "--split", "some"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("IoU 1.0000  nIoU 1.0000  Pd 1.0000  Fa 0.00e-6")
    assert captured.err.count("extra") == 2
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert f"serank evaluate: {scenes()[4].name}: no prediction" in captured.err
    write(tmp_path / "maps", scenes()[0].name, np.zeros((20, 24), np.uint8))
    assert main(arguments) == 1
    assert "--resize" in capsys.readouterr().err
    assert main([*arguments, "--resize"]) == 0
    assert "resized bilinearly" in capsys.readouterr().err


def test_command_chooses_and_saves_a_threshold(
    root: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(root), "--checkpoint", checkpoint, "--save", str(tmp_path / "chosen")]
    assert main([*arguments, "--budget", "0.001"]) == 0
    out = capsys.readouterr().out.splitlines()
    chosen = SeRankDet.from_pretrained(tmp_path / "chosen").threshold
    assert out[0] == f"threshold {chosen:.7g} chosen"
    assert chosen != SeRankDet.from_pretrained(checkpoint).threshold
    assert evaluate(SeRankDet.from_pretrained(tmp_path / "chosen"), scenes()).metrics["fa"] <= 0.001
    assert out[2].startswith("IoU ")
    card = (tmp_path / "chosen" / "README.md").read_text()
    assert card.startswith((Path(checkpoint) / "README.md").read_text().rstrip())
    assert "for at most 0.001 false pixels per pixel" in card
    assert main([*arguments, "--budget-frame", "0"]) == 0
    again = SeRankDet.from_pretrained(tmp_path / "chosen")
    assert evaluate(again, scenes()).metrics["false_components"] == 0


@pytest.mark.parametrize("source", ["model", "resized", "predictions"])
def test_command_writes_a_report(source: str, root: Path, checkpoint: str, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    for sample in scenes():
        write(tmp_path / "maps", sample.name, np.roll(sample.mask, 9, 1).astype(np.uint8) * 255)
    arguments = {
        "model": [str(root), "--checkpoint", checkpoint, "--working-size", "48", "--tile", "32", "--overlap", "8"],
        "resized": [str(root), "--checkpoint", checkpoint, "--resolution", "64"],
        "predictions": ["--predictions", str(tmp_path / "maps"), "--targets", str(root)],
    }[source]
    assert main(["evaluate", *arguments, "--split", "some", "--output", str(tmp_path / "out"), "--no-overlays"]) == 0
    page = tmp_path / "out" / "index.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report {page}"
    assert page.is_file()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["about"]["split"] == "some"
    prepared = "scaled to 48 px by 0.5 to 2.5, in tiles of up to 32 px that share 8 px"
    assert report["about"].get("frames") == (prepared if source == "model" else None)
    assert len(report["frames"]) == 3


@pytest.mark.parametrize("ending", ["", "/data"], ids=["names", "paths"])
def test_several_folders_are_measured_as_one(
    ending: str, root: Path, checkpoint: str, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("matplotlib")
    folders = [str(shutil.copytree(root, tmp_path / f"{name}{ending}")) for name in ("a", "b")]
    command = ["evaluate", *folders, "--split", "some", "--checkpoint", checkpoint, "--threshold", "0.4"]
    assert main([*command, "--output", str(tmp_path / "out"), "--no-overlays"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert main(["evaluate", str(root), *command[3:]]) == 0
    once = capsys.readouterr().out.splitlines()[0]
    assert line == once.replace("(3 frames, 2 targets)", "(6 frames, 4 targets)") != once
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["about"]["data"] == ", ".join(folders)
    names = FolderDataset(root, "some").names
    labels = ["a/data", "b/data"] if ending else ["a", "b"]
    assert [f["name"] for f in report["frames"]] == [f"{label}/{name}" for label in labels for name in names]
    assert main(["evaluate", folders[0], f"{folders[0]}/../{Path(folders[0]).name}", "--checkpoint", checkpoint]) == 1
    assert "ROOT names a folder twice" in capsys.readouterr().err


def test_a_folder_that_is_no_report_is_refused_before_anything_is_measured(
    root: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    absent = str(tmp_path / "absent")  # anything loaded or measured would fail on this
    assert main(["evaluate", str(root), "--checkpoint", absent, "--output", str(tmp_path / "mine")]) == 1
    assert "holds 'notes.txt', which no report has" in capsys.readouterr().err


def test_how_the_command_prepares_frames(root: Path, checkpoint: str, capsys: Any) -> None:
    model = SeRankDet.from_pretrained(checkpoint)
    dataset = FolderDataset(root)
    # among the probabilities that these random weights give
    threshold = float(np.median(model.detect(dataset[0].frame).probability))
    ways: dict[str, dict[str, Any]] = {
        "": {},
        "--working-size 32": {"working_size": 32},
        "--working-size 0": {"working_size": None},
        "--working-size 96 --scale-range 0.5 1.5": {"working_size": 96, "scale_range": (0.5, 1.5)},
        "--tile 32 --overlap 8": {"tile": 32, "overlap": 8},
    }
    lines = set()
    for given, changes in ways.items():
        command = ["evaluate", str(root), "--checkpoint", checkpoint, "--threshold", str(threshold), *given.split()]
        assert main(command) == 0
        lines.add(line := capsys.readouterr().out.splitlines()[0])
        metrics = evaluate(model.reconfigured(**changes).optimize(), dataset, threshold=threshold, curves=False).metrics
        assert f"IoU {metrics['iou']:.4f}  nIoU {metrics['niou']:.4f}" in line
        assert f"Fa {metrics['fa'] * 1e6:.2f}e-6" in line
    assert len(lines) == 4  # the checkpoint leaves the frames' size, so the first and the third are the same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either ROOT, to run a checkpoint, or --predictions with --targets"),
        (["ROOT", "--predictions", "p", "--targets", "t"], "give either ROOT"),
        (["--predictions", "p"], "--predictions and --targets belong together"),
        (["ROOT", "--targets", "t"], "--predictions and --targets belong together"),
        (["--predictions", "p", "--targets", "t", "--budget", "1"], "need a checkpoint"),
        (["ROOT", "--resize"], "--resize is for --predictions"),
        (["ROOT", "--save", "s"], "--save needs --calibrate, or --budget or --budget-frame"),
        (["ROOT", "--budget", "1", "--threshold", "0.5"], "--threshold and a budget exclude each other"),
        (["ROOT", "--budget", "-1"], "false_alarms must be >= 0"),
        (["--predictions", "p", "--targets", "t", "--working-size", "64"], "--working-size is for a checkpoint"),
        (["--predictions", "p", "--targets", "t", "--tile", "64", "--overlap", "8"], "--tile, --overlap is for"),
        (["--predictions", "p", "--targets", "t"], "--checkpoint and --device run a network; --predictions holds"),
        (["ROOT", "--budget", "1", "--save", "r", "--output", "r"], "--save 'r' lies in the folder of the report"),
        (["ROOT", "--budget", "1", "--save", "r/c", "--output", "r"], "--save 'r/c' lies in the folder of the report"),
        (["ROOT", "--scale-range", "0.5", "1", "--resolution", "64"], "--scale-range is for --resolution native"),
        (["ROOT", "--tile", "64", "--overlap", "64"], "overlap must lie in 0 to 32, half of tile=64; got 64"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, root: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(root) if a == "ROOT" else a for a in arguments]
    assert main(["evaluate", "--checkpoint", checkpoint, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len([line for line in error.splitlines() if "training frames among them" not in line]) == 1


@pytest.mark.parametrize("value", ["31", "big", "-5", "2.5", "4097"])
def test_wrong_resolution(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "root", f"--resolution={value}"])
    assert 'resolution must be "native" or a side of 32 to 4096 pixels' in capsys.readouterr().err


@pytest.mark.slow
def test_command_under_torchrun(root: Path, checkpoint: str, tmp_path: Path) -> None:
    arguments = ["evaluate", str(root), "--checkpoint", checkpoint, "--threshold", "0.4"]
    one = subprocess.run([sys.executable, "-m", "serank", *arguments], capture_output=True, text=True, check=True)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = subprocess.run([*start, "-m", "serank", *arguments], capture_output=True, text=True, check=True)
    assert two.stdout == one.stdout
    assert one.stdout.startswith("IoU ")
