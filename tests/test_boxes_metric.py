"""Evaluation by boxes: the counts, their class, the runner and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import BoxFolder, Sample
from serank.evaluation import evaluate_boxes
from serank.inference import Detector, find_detections
from serank.metrics import BoxMetrics, match_boxes

pytestmark = pytest.mark.filterwarnings("ignore:.* 90% of its pixels")  # frames of one square or two


def test_a_box_is_found_by_a_centroid_in_it() -> None:
    # the box covers pixels 10 to 13, whose centres are 10 to 13 and whose edges are 9.5 and 13.5
    boxes = [[10, 10, 14, 14]]
    for x, inside in ((9.4, False), (9.5, True), (13.5, True), (13.6, False)):
        match = match_boxes([[x, 12.0]], boxes, [0.9])
        assert bool(match.inside[0]) is inside
        assert match.box.tolist() == [0 if inside else -1]
    assert match_boxes([[13.6, 12.0]], boxes, [0.9], tolerance=0.2).inside[0]
    assert not match_boxes([[13.8, 12.0]], boxes, [0.9], tolerance=0.2).inside[0]


def test_matching_is_one_to_one_by_score_and_surplus_is_no_false_component() -> None:
    match = match_boxes([[11, 11], [12, 12], [40, 40]], [[10, 10, 14, 14]], [0.6, 0.9, 0.7])
    assert match.box.tolist() == [-1, 0, -1]  # the highest score finds it
    assert match.inside.tolist() == [True, True, False]


def test_of_overlapping_boxes_the_nearest_free_one_is_found() -> None:
    boxes = [[0, 0, 20, 20], [6, 6, 10, 10]]
    assert match_boxes([[8, 8]], boxes, [0.5]).box.tolist() == [1]
    assert match_boxes([[8.0, 8.0], [7.5, 7.0]], boxes, [0.5, 0.8]).box.tolist() == [0, 1]


def test_frames_without_boxes_or_detections() -> None:
    metrics = BoxMetrics()
    assert all(math.isnan(metrics.compute()[key]) for key in ("pd", "false_components"))
    metrics.update([[1, 1], [5, 5]], [], [0.9, 0.8])
    assert math.isnan(metrics.compute()["pd"])
    assert metrics.compute()["false_components"] == 2
    metrics.update([], [[0, 0, 4, 4]], [])
    assert metrics.compute() == {
        "pd": 0.0,
        "false_components": 1.0,
        "frames": 2.0,
        "boxes": 1.0,
        "found": 0.0,
        "duplicates": 0.0,
    }
    metrics.reset()
    assert metrics.compute()["frames"] == 0


def test_figures_curve_and_sizes() -> None:
    metrics = BoxMetrics(tolerance=1)
    metrics.update([[2, 2], [3, 3], [30, 30]], [[0, 0, 4, 4], [50, 50, 59, 54]], [0.9, 0.5, 0.4])
    metrics.update([[1, 1]], [[0, 0, 8, 3]], [0.7])
    figures = metrics.compute()
    assert (figures["pd"], figures["false_components"], figures["duplicates"]) == (2 / 3, 0.5, 1)
    curve = metrics.curve([0, 0.4, 0.7, 0.8, 0.95])
    assert curve.pd.tolist() == [2 / 3, 2 / 3, 1 / 3, 1 / 3, 0]
    assert curve.false_components.tolist() == [0.5, 0, 0, 0, 0]
    groups = {group.label: (group.targets, group.detected) for group in metrics.by_size()}
    assert BoxMetrics().by_size() == []
    assert groups == {"1-4 px": (1, 1), "5-8 px": (1, 1), "9-16 px": (1, 0), "17-32 px": (0, 0), ">32 px": (0, 0)}


points = st.tuples(st.integers(0, 30), st.integers(0, 30))
corners = st.tuples(st.integers(0, 25), st.integers(0, 25), st.integers(1, 8), st.integers(1, 8))


@given(st.lists(st.tuples(points, st.integers(1, 9)), max_size=8), st.lists(corners, max_size=5), st.integers(0, 3))
def test_the_curve_is_what_fewer_detections_give(
    found: list[tuple[tuple[int, int], int]], sides: list[tuple[int, int, int, int]], tolerance: int
) -> None:
    boxes = [[x, y, x + w, y + h] for x, y, w, h in sides]
    whole = BoxMetrics(tolerance)
    match = whole.update([p for p, _ in found], boxes, [s / 10 for _, s in found])
    taken = match.box[match.box >= 0].tolist()
    assert len(set(taken)) == len(taken)
    thresholds = [0.05, 0.35, 0.65]
    curve = whole.curve(thresholds)
    for i, threshold in enumerate(thresholds):
        kept = [(p, s / 10) for p, s in found if s / 10 > threshold]
        part = BoxMetrics(tolerance)
        part.update([p for p, _ in kept], boxes, [s for _, s in kept])
        np.testing.assert_equal(part.compute()["pd"], curve.pd[i])
        assert part.compute()["false_components"] == curve.false_components[i]


def test_metric_refuses() -> None:
    with pytest.raises(ValueError, match="tolerance must be >= 0 px and finite; got -1"):
        BoxMetrics(-1)
    for value, got in (("2", r"'2' \(str\)"), (None, r"None \(NoneType\)")):
        with pytest.raises(ValueError, match=f"tolerance must be a number of px >= 0; got {got}"):
            BoxMetrics(value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"boxes must have x1 > x0 and y1 > y0; got \[4.0, 4.0, 4.0, 8.0\]"):
        match_boxes([[1, 1]], [[4, 4, 4, 8]], [0.5])
    with pytest.raises(ValueError, match="scores must be 1 numbers, one for each centroid; got 2"):
        match_boxes([[1, 1]], [], [0.5, 0.6])
    with pytest.raises(ValueError, match="scores must be finite; got nan"):
        match_boxes([[1, 1], [2, 2]], [], [0.5, math.nan])
    with pytest.raises(ValueError, match=r"centroids must be finite; got \[1.0, inf\]"):
        match_boxes([[1.0, 1.0], [1.0, math.inf]], [], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"centroids must be finite numbers of shape \(N, 2\); got shape \(1, 3\)"):
        match_boxes([[1, 1, 1]], [], [0.5])
    with pytest.raises(ValueError, match="thresholds"):
        BoxMetrics().curve([1.5])


class Bright(SeRankDet):
    """Finds what is brighter than half: a detector whose figures are known."""

    def detect(self, image, threshold=None, **_):  # type: ignore[no-untyped-def]
        return find_detections(image.grey, image.grey, threshold=self.check_options(threshold)[0])


def box_folder(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for name, targets in (("a", [(5, 5), (20, 20)]), ("b", [(8, 30)])):
        frame = np.full((40, 48), 20, np.uint8)
        for y, x in targets:
            frame[y : y + 3, x : x + 3] = 230
        Image.fromarray(frame).save(root / "images" / f"{name}.png")
    boxes = {"a": [[4, 4, 9, 9], [40, 2, 46, 8]], "b": [[30, 8, 33, 11]]}
    (root / "boxes.json").write_text(json.dumps(boxes))
    (root / "val.txt").write_text("b\n")
    return root


class CalibratedBright(SeRankDet):
    """Finds what `Bright` finds, with scores far below the threshold."""

    def detect(self, image, threshold=None, **_):  # type: ignore[no-untyped-def]
        return find_detections(
            image.grey, image.grey, threshold=self.check_options(threshold)[0], calibration=(-3.0, 0.1)
        )


def test_curve_of_boxes_goes_by_probability_where_scores_are_calibrated(tmp_path: Path) -> None:
    dataset = BoxFolder(box_folder(tmp_path))
    plain = evaluate_boxes(Bright(width=4), dataset)
    found = evaluate_boxes(CalibratedBright(width=4), dataset)
    assert plain.curve.pd[0] > 0
    np.testing.assert_array_equal(found.curve.pd, plain.curve.pd)
    np.testing.assert_array_equal(found.curve.false_components, plain.curve.false_components)


def test_evaluation_counts_a_detector_on_boxes(tmp_path: Path) -> None:
    model: Detector = Bright(width=4)
    result = evaluate_boxes(model, BoxFolder(box_folder(tmp_path / "set")), threshold=0.5)
    assert (result.metrics["pd"], result.metrics["false_components"]) == (2 / 3, 0.5)
    assert [(f.name, f.boxes, f.found, f.false_components) for f in result.frames] == [("a", 2, 1, 1), ("b", 1, 1, 0)]
    assert [(g.label, g.targets, g.detected) for g in result.by_size] == [("1-4 px", 1, 1), ("5-8 px", 2, 1)]
    assert result.curve.thresholds.tolist() == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert result.curve.pd.tolist() == [2 / 3] * 5 + [0]  # the targets' level is 230 / 255
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["metrics"]["found"] == 2
    assert plain["by_size"][1] == {"label": "5-8 px", "low": 5, "high": 9, "targets": 2, "detected": 1, "pd": 0.5}
    assert str(result).startswith("Pd 0.6667  false components 0.500 a frame  by boxes grown by 0 px")
    wide = evaluate_boxes(model, BoxFolder(tmp_path / "set"), threshold=0.5, tolerance=25)
    assert wide.metrics["pd"] == 1
    with pytest.raises(ValueError, match="dataset is empty"):
        evaluate_boxes(model, [])
    samples = [Sample("a", np.zeros((4, 4), np.float32), np.zeros((4, 4), np.bool_))]
    expected = r"sequence of BoxSample \(name, frame, boxes, hidden\); got list of Sample; pass BoxFolder\(path\)"
    with pytest.raises(TypeError, match=expected):
        evaluate_boxes(model, samples)  # type: ignore[arg-type]


def test_box_folder_reads_and_refuses(tmp_path: Path) -> None:
    root = box_folder(tmp_path / "set")
    assert BoxFolder(root, "val").names == ["b"]
    with pytest.raises(FileNotFoundError, match=r"lacks 85 frames"):
        BoxFolder(root, "sirst:val")
    sample = BoxFolder(root)[-1]
    assert (sample.name, sample.frame.shape, sample.boxes.tolist()) == ("b", (40, 48), [[30, 8, 33, 11]])
    (root / "val.txt").write_text("b\nc\n")
    with pytest.raises(FileNotFoundError, match="lacks 1 frames, 'c' first"):
        BoxFolder(root, "val")
    (root / "boxes.json").write_text('{"a": []}')
    (root / "val.txt").write_text("b\n")
    with pytest.raises(
        ValueError, match=r"boxes\.json: lacks 1 frames of val, 'b' first; add them, with \[\] for no target"
    ):
        BoxFolder(root, "val")
    (root / "boxes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no boxes to measure by; .*`serank import` writes"):
        BoxFolder(root)


def test_evaluate_command_by_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = box_folder(tmp_path / "set")
    SeRankDet(width=4).save_pretrained(tmp_path / "checkpoint")
    output = tmp_path / "new" / "report"
    command = ["evaluate", str(root), "--match", "boxes", "--checkpoint", str(tmp_path / "checkpoint")]
    # at threshold 0 a frame is one detection, whose centroid is the frame's centre
    assert main([*command, "--tolerance", "30", "--threshold", "0", "--output", str(output)]) == 0
    out, error = capsys.readouterr()
    assert "all 2 frames, training frames among them if there are any; --split takes one of val" in error
    assert "Pd 0.6667  false components 0.000 a frame  by boxes grown by 30 px  (2 frames, 3 boxes" in out
    report = json.loads((output / "report.json").read_text())
    assert report["metrics"]["found"] == 2
    assert report["about"]["data"] == str(root)
    assert f"report {output / 'index.html'}" in out
    assert len(list((output / "pictures" / "overlays").iterdir())) == 2
    assert main([*command, "--no-overlays", "--output", str(output)]) == 0  # in place of the older one
    assert not (output / "pictures" / "overlays").exists()
    capsys.readouterr()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    for more, message in (
        (["--budget", "1e-6"], "--budget: not for --match boxes"),
        (["--budget", "0"], "--budget: not for --match boxes"),
        (["--calibrate"], "--calibrate: not for --match boxes"),
        (["--resolution", "256"], "--resolution: not for --match boxes"),
        (["--output", str(tmp_path / "other")], "holds 'notes.txt', which no report has"),
        (["--tolerance", "-1"], "tolerance must be >= 0 px"),
    ):
        assert main([*command, *more]) == 1
        assert message in capsys.readouterr().err
    assert main(["evaluate", str(root), "--tolerance", "2"]) == 1
    assert "--tolerance is for --match boxes" in capsys.readouterr().err
