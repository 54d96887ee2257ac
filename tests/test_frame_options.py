"""The options of frames mean the same in detection, data sets, evaluation and training, in Python and the command."""

from __future__ import annotations

import json
import re
import tracemalloc
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from serank import SeRankDet
from serank.cli.entry import main
from serank.cli.options import add_frame_options, frame_options, frames_given
from serank.datasets import BoxFolder, FolderDataset
from serank.evaluation import evaluate, evaluate_boxes
from serank.frames import FrameOptions, FramePreparer, FrameSpec
from serank.frames.preparation import luminance
from serank.inference import Detector, find_detections

Array = NDArray[Any]


class Bright(nn.Module, Detector):
    """Takes grey above 0.7 as target."""

    frame_spec = FrameSpec()
    in_channels = 1
    threshold = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(nn.init.constant_(nn.Parameter().new_empty(1), 40.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x * 0.25 + 0.5 - 0.7)  # of the default mean and standard deviation


def sky(seed: int = 0) -> NDArray[np.uint8]:
    """Sky with two targets of 5 x 6 and 3 x 3 pixels."""
    grey = np.rint(np.random.default_rng(seed).normal(90, 4, (48, 64)))
    grey[20:25, 30:36] = 230
    grey[8:11, 8:11] = 230
    return grey.astype(np.uint8)


def mask() -> NDArray[np.bool_]:
    targets = np.zeros((48, 64), np.bool_)
    targets[20:25, 30:36] = targets[8:11, 8:11] = True
    return targets


def write(root: Path, frames: list[Array]) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i, frame in enumerate(frames):
        if frame.dtype.kind == "f":
            np.save(root / "images" / f"{i}.npy", frame)
        else:
            Image.fromarray(frame).save(root / "images" / f"{i}.png")
        Image.fromarray(mask()).save(root / "masks" / f"{i}.png")
    names = [str(i) for i in range(len(frames))]
    if len(names) > 1:
        (root / "train.txt").write_text(names[0])
        (root / "val.txt").write_text("\n".join(names[1:]))
    (root / "boxes.json").write_text(json.dumps({name: [[30, 20, 36, 25], [8, 8, 11, 11]] for name in names}))
    return root


def kelvin(grey: Array) -> NDArray[np.float32]:
    return (273 + 0.1 * grey).astype(np.float32)


def with_value(array: Array, where: Any, value: float) -> Array:
    copy = array.copy()
    copy[where] = value
    return copy


CASES: dict[str, tuple[Callable[[Array], Array], dict[str, Any], list[str]]] = {
    "black-hot": (lambda g: 255 - g, {"polarity": "black-hot"}, ["--invert"]),
    "range": (
        lambda g: (7000 + 10 * g.astype(np.uint16)).astype(np.uint16),
        {"value_range": (7000, 9550)},
        ["--range", "7000", "9550"],
    ),
    "no data": (
        lambda g: with_value(kelvin(g), slice(40, 48), -9999),
        {"no_data": -9999, "value_range": (273, 298.5)},
        ["--no-data", "-9999", "--range", "273", "298.5"],
    ),
    "text": (
        lambda g: with_value(g, (slice(40, 48), slice(0, 30)), 255),
        {"ignore": [[0, 40, 30, 48]]},
        ["--ignore", "0,40,30,48"],
    ),
    "palette": (
        lambda g: __import__("matplotlib").colormaps["inferno"](g, bytes=True)[..., :3],
        {"palette": "inferno"},
        ["--palette", "inferno"],
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.* 90% of its pixels")
def test_every_door_reads_the_frames_alike(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if case == "palette":
        pytest.importorskip("matplotlib")
    recast, options, words = CASES[case]
    model, frames = Bright(), [sky(0), sky(1)]
    plain, other = write(tmp_path / "plain", frames), write(tmp_path / "other", [recast(f) for f in frames])
    told = FrameOptions(**options)

    for i, frame in enumerate(frames):
        expected, found = model.detect(frame), model.detect(recast(frame), **options)
        np.testing.assert_array_equal(found.mask, expected.mask)
        sample = FolderDataset(other, options=told)[i]
        np.testing.assert_array_equal(sample.frame, FramePreparer(FrameSpec(), told)(recast(frame)).grey)

    expected_metrics = evaluate(model, FolderDataset(plain)).metrics
    assert expected_metrics["iou"] == expected_metrics["pd"] == 1
    assert evaluate(model, FolderDataset(other, options=told)).metrics == pytest.approx(expected_metrics, nan_ok=True)
    by_boxes = evaluate_boxes(model, BoxFolder(other, options=told)).metrics
    assert by_boxes == pytest.approx(evaluate_boxes(model, BoxFolder(plain)).metrics, nan_ok=True)
    assert by_boxes["pd"] == 1

    SeRankDet(width=2).save_pretrained(tmp_path / "checkpoint")
    for match in ("masks", "boxes"):
        printed = []
        for root, given in ((plain, []), (other, words)):
            command = ["evaluate", str(root), "--checkpoint", str(tmp_path / "checkpoint"), "--match", match]
            assert main([*command, *given]) == 0
            printed.append(capsys.readouterr().out)
        if case in ("black-hot", "range", "palette"):  # in the others a network sees what was filled in
            assert printed[0] == printed[1]


@pytest.mark.parametrize("case", CASES)
def test_the_command_has_the_options(case: str) -> None:
    _, options, words = CASES[case]
    parser = ArgumentParser()
    add_frame_options(parser)
    for more, repair in (([], None), (["--repair"], True), (["--no-repair"], False)):
        given = parser.parse_args([*words, *more])
        told, expected = frame_options(given), FrameOptions(**options, repair=repair)
        for setting in fields(FrameOptions):
            np.testing.assert_array_equal(getattr(told, setting.name), getattr(expected, setting.name))
        written = " ".join([*words, *more]).replace("--invert", "--polarity black-hot")
        assert sorted(" ".join(frames_given(given)).split()) == sorted(written.split())


def test_options_of_frames_need_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--predictions", str(tmp_path), "--targets", str(tmp_path)]
    assert main([*command, "--invert", "--no-repair"]) == 1
    assert "--polarity black-hot, --no-repair is for a checkpoint" in capsys.readouterr().err


def test_training_takes_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [sky(0), sky(1)]
    plain = write(tmp_path / "plain", frames)
    inverted = write(tmp_path / "inverted", [255 - f for f in frames])
    small = ["--width", "2", "--epochs", "1", "--crop", "32", "--batch-size", "1", "--working-size", "64"]
    losses = []
    for i, (root, words) in enumerate(((plain, []), (inverted, ["--invert"]), (inverted, []))):
        assert main(["train", str(root), "--output", str(tmp_path / f"run{i}"), *small, *words]) == 0
        losses += re.findall(r"epoch 1 of 1: loss ([\d.]+)", capsys.readouterr().err)
    assert losses[0] == losses[1] != losses[2]


def test_what_is_ignored_counts_in_neither_mask_nor_map(tmp_path: Path) -> None:
    root = write(tmp_path, [sky()])
    sample = FolderDataset(root, options=FrameOptions(ignore=[[0, 0, 20, 20]]))[0]
    assert sample.mask[8:11, 8:11].sum() == 0
    assert sample.mask.sum() == 30
    assert sample.hidden is not None
    assert sample.hidden.sum() == 400
    result = evaluate(Bright(), [sample])
    assert (result.metrics["targets"], result.metrics["pd"], result.metrics["fa"]) == (1, 1, 0)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_no_metric_counts_what_detection_was_told_to_ignore(width: int, tmp_path: Path) -> None:
    """However thin the region is."""
    ignored = [[33, 0, 33 + width, 48]]
    found = Bright().detect(sky(), ignore=ignored)
    sample = FolderDataset(write(tmp_path, [sky()]), options=FrameOptions(ignore=ignored))[0]
    assert sample.hidden is not None
    assert sample.hidden.sum() == 48 * width
    assert not sample.mask[:, 33 : 33 + width].any()
    [row] = evaluate(Bright(), [sample]).frames
    assert row.predicted_pixels == found.mask.sum()


@pytest.mark.parametrize(
    "option",
    [
        {"value_range": (0, 1)},
        {"no_data": 0},
        {"polarity": "black-hot"},
        {"palette": "auto"},
        {"ignore": [[0, 0, 4, 4]]},
        {"repair": False},
    ],
)
def test_a_prepared_frame_takes_no_options(option: dict[str, Any]) -> None:
    if "palette" in option:
        pytest.importorskip("matplotlib")
    frame = FramePreparer(FrameSpec())(sky())
    assert len(Bright().detect(frame, polarity="white-hot")) == 2
    with pytest.raises(ValueError, match=f"a prepared Frame takes no options; got {next(iter(option))}"):
        Bright().detect(frame, **option)


@pytest.mark.parametrize("width", [1, 2])
def test_a_column_without_data_leaves_a_target_whole(width: int, tmp_path: Path) -> None:
    frame = with_value(kelvin(sky()), (slice(None), slice(33, 33 + width)), np.nan)
    options: dict[str, Any] = {"no_data": float("nan"), "value_range": (273, 298.5)}
    found = Bright().detect(frame, **options)
    assert [(d.box, d.area) for d in found if d.area > 9] == [((30, 20, 36, 25), 5 * (6 - width))]
    assert len(found) == 2
    assert not found.mask[:, 33 : 33 + width].any()
    assert not found.probability[:, 33 : 33 + width].any()
    root = write(tmp_path, [frame])
    metrics = evaluate(Bright(), FolderDataset(root, options=FrameOptions(**options))).metrics
    assert (metrics["targets"], metrics["pd"], metrics["false_components"]) == (2, 1, 0)


def test_wide_gaps_part_detections_and_nothing_is_found_within_them() -> None:
    probability = np.zeros((20, 40), np.float32)
    probability[8:12, 5:30] = 0.9
    hidden = np.zeros((20, 40), np.bool_)
    hidden[:, 10:13] = True
    found = find_detections(probability, probability, hidden=hidden)
    assert sorted(found.boxes.tolist()) == [[5, 8, 10, 12], [13, 8, 30, 12]]
    assert sorted(np.unique(found.labels).tolist()) == [0, 1, 2]
    hidden = np.zeros((20, 40), np.bool_)
    hidden[8:10, 5:30], hidden[10:12, 5:30] = True, True
    assert len(find_detections(probability, probability, hidden=hidden)) == 0
    hidden[10:12] = False
    assert find_detections(probability, probability, hidden=hidden).boxes.tolist() == [[5, 10, 30, 12]]


def test_nothing_left_of_a_frame_is_said() -> None:
    frame = with_value(kelvin(sky()), slice(0, 24), -1)
    with pytest.raises(ValueError, match="no pixel is left; each one is without data or ignored"):
        Bright().detect(frame, no_data=-1, ignore=[[0, 24, 64, 48]])


@pytest.mark.parametrize("table", ["inferno", "gnuplot2"])
@pytest.mark.parametrize("name", ["iron", "Ironbow"])
def test_names_of_cameras_palettes(name: str, table: str) -> None:
    colours = pytest.importorskip("matplotlib").colormaps[table](sky(), bytes=True)[..., :3]
    frame = FramePreparer(FrameSpec(), FrameOptions(palette=name))(colours)
    assert np.abs(frame.grey * 255 - sky()).max() <= 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("white-hot", 'has no colours; pass polarity="white-hot"'),
        ("lava", 'no public table of this camera\'s palette; pass raw counts, or palette="auto" (--palette auto)'),
        ("jet", "pass raw counts, or as palette= (--palette) the name of theirs in matplotlib"),
        ("ironbo", "got 'ironbo'; did you mean 'ironbow'"),
        ("infreno", "got 'infreno'; did you mean 'inferno'"),
    ],
)
def test_palettes_without_a_table_are_said(name: str, message: str) -> None:
    colours = pytest.importorskip("matplotlib").colormaps["inferno"](sky(), bytes=True)[..., :3]
    with pytest.raises(ValueError, match=re.escape(message)):
        FramePreparer(FrameSpec(), FrameOptions(palette=name))(colours)


def test_colour_frames_take_little_memory() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), np.uint8)
    tracemalloc.start()
    luminance(colours)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * 2_000_000  # bytes a pixel, where three float64 copies took 24 and more


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"value_range": (0, 1, 2)}, "value_range must be (low, high), two numbers; got (0, 1, 2)"),
        ({"value_range": 3}, "value_range must be (low, high), two numbers; got 3"),
        ({"ignore": [[0, 0, 4, 4], [1, 2]]}, "ignore has boxes of unequal length; expected x0, y0, x1, y1"),
        ({"ignore": [[0, 0, 4]]}, "or boxes (N, 4); got int64 of shape (1, 3)"),
        ({"palette": "infernal"}, "a palette of matplotlib, such as inferno"),
        ({"no_data": ["a"]}, "no_data must be a number; got 'a'"),
    ],
)
def test_what_is_no_option_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FrameOptions(**given)


def test_empty_boxes_and_arrays_of_values_are_taken() -> None:
    assert FrameOptions(ignore=[]).ignored(48, 64, "f") is None
    for array, values in ((np.array([1.0, 2.0]), (1.0, 2.0)), (np.array(3.0), (3.0,)), (np.float32(4), (4.0,))):
        assert FrameOptions(no_data=array).missing_values == values  # type: ignore[arg-type]


def test_evaluation_by_boxes_repairs_as_the_data_set_says(tmp_path: Path) -> None:
    dead = sky()
    dead[40, 50] = 255
    root = write(tmp_path / "set", [dead])
    model = Bright()
    for repair, false in ((None, 0), (True, 0), (False, 1)):
        found = evaluate_boxes(model, BoxFolder(root, options=FrameOptions(repair=repair)))
        assert (found.metrics["pd"], found.metrics["false_components"]) == (1, false)


def test_nothing_is_found_in_a_constant_frame_by_masks_and_by_boxes(tmp_path: Path) -> None:
    grey = np.full((48, 64), 230, np.uint8)  # all of it above the model's 0.7
    framed = np.where(np.arange(64) < 6, 0, grey).astype(np.uint8)  # constant but for pixels without data
    root, options = write(tmp_path / "set", [sky(), grey, framed]), FrameOptions(no_data=0)
    data = FolderDataset(root, options=options)
    assert [sample.hidden is not None and bool(sample.hidden.all()) for sample in data] == [False, True, True]
    by_masks = evaluate(Bright(), data).metrics
    assert (by_masks["targets"], by_masks["pd"], by_masks["fa"]) == (6, 2 / 6, 0)
    with pytest.warns(UserWarning, match="constant, nothing can be found in it"):
        by_boxes = evaluate_boxes(Bright(), BoxFolder(root, options=options)).metrics
    assert (by_boxes["boxes"], by_boxes["pd"], by_boxes["false_components"]) == (6, 2 / 6, 0)
