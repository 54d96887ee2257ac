"""The report of an evaluation by boxes: complete, true to the evaluation, and refused where it can't be."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serank import SeRankDet
from serank.datasets import BoxSample
from serank.evaluation import BoxEvaluation, BoxFrameView, evaluate_boxes, view_boxes, write_box_report
from serank.evaluation.report.box_pictures import box_masks
from serank.inference import find_detections


class Bright(SeRankDet):
    """Finds what is brighter than half."""

    def detect(self, image, threshold=None, **_):  # type: ignore[no-untyped-def]
        return find_detections(image.grey, image.grey, threshold=self.check_options(threshold)[0])


MODEL = Bright(width=4)


def sample(name: str, targets: list[tuple[int, int]], boxes: list[list[float]]) -> BoxSample:
    """Targets of 3 x 3 px at rows and columns, in a frame of 40 x 48 px."""
    frame = np.full((40, 48), 0.1, np.float32)
    for y, x in targets:
        frame[y : y + 3, x : x + 3] = 0.9
    return BoxSample(name, frame, np.array(boxes, np.float64).reshape(-1, 4))


@pytest.fixture
def samples() -> dict[str, BoxSample]:
    found = [
        sample("both <b>", [(5, 5), (20, 20)], [[4, 4, 9, 9], [40.5, 2, 46, 8]]),  # a hit, a miss, a false one
        sample("twice", [(5, 5), (5, 12)], [[4, 4, 17, 9]]),  # of two in a box one is a duplicate
        sample("none", [], []),
    ]
    return {one.name: one for one in found}


def report(samples: dict[str, BoxSample], folder: Path, **options: bool | int) -> BoxEvaluation:
    evaluation = evaluate_boxes(MODEL, list(samples.values()))

    def look(name: str) -> BoxFrameView:
        return view_boxes(MODEL, samples[name], evaluation.threshold)

    assert write_box_report(evaluation, folder, look=look, **options) == folder / "index.html"  # type: ignore[arg-type]
    return evaluation


def test_the_report_holds_page_tables_and_pictures(samples: dict[str, BoxSample], tmp_path: Path) -> None:
    evaluation = report(samples, tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert "http" not in page
    links = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert {path.relative_to(tmp_path / "r").as_posix() for path in (tmp_path / "r").rglob("*") if path.is_file()} == (
        links | {"index.html"}
    )
    assert {f"pictures/{name}.png" for name in ("pd_false", "size", "misses", "false_alarms")} < links
    for link in links:
        if link.endswith(".png"):
            with Image.open(tmp_path / "r" / link) as picture:
                assert min(picture.size) > 50
    for words in ('<td class="n">0.6667</td>', "1 of 1 boxes", "1 of 1 frames", "x 40.5 to 46"):
        assert words in page, words
    assert "both &lt;b&gt;" in page
    assert "<b>" not in page
    for name, rows in (("frames.csv", evaluation.frames), ("boxes.csv", evaluation.boxes)):
        with (tmp_path / "r" / name).open(encoding="utf-8", newline="") as stream:
            written = list(csv.DictReader(stream))
        expected = [
            {key: value if isinstance(value, str) else float(value) for key, value in asdict(row).items()}
            for row in rows
        ]
        assert [
            {key: value if key in ("name", "frame") else float(value) for key, value in row.items()} for row in written
        ] == expected
    contents = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert contents["metrics"] == evaluation.metrics
    assert set(contents["versions"]) == {"serank", "torch", "numpy"}


def test_figures_of_frames_and_boxes(samples: dict[str, BoxSample]) -> None:
    evaluation = evaluate_boxes(MODEL, list(samples.values()))
    assert [(f.found, f.false_components, f.false_pixels, f.duplicates) for f in evaluation.frames] == [
        (1, 1, 9, 0),
        (1, 0, 0, 1),
        (0, 0, 0, 0),
    ]
    assert [(f.height, f.width) for f in evaluation.frames] == [(40, 48)] * 3
    assert [(b.frame, b.found) for b in evaluation.boxes] == [("both <b>", True), ("both <b>", False), ("twice", True)]
    np.testing.assert_allclose([b.probability for b in evaluation.boxes], [0.9, 0.1, 0.9], atol=1e-6)


def test_outlines_are_those_of_the_match(samples: dict[str, BoxSample]) -> None:
    masks = box_masks(view_boxes(MODEL, samples["both <b>"], 0.5), 0.0)
    found, missed, matched, false = (np.argwhere(mask) for mask in masks)
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([4, 4], [8, 8])
    assert (missed.min(0).tolist(), missed.max(0).tolist()) == ([2, 40], [7, 45])  # 40.5 lies in pixel 40
    assert (matched.min(0).tolist(), matched.max(0).tolist()) == ([5, 5], [7, 7])
    assert (false.min(0).tolist(), false.max(0).tolist()) == ([20, 20], [22, 22])
    duplicate = box_masks(view_boxes(MODEL, samples["twice"], 0.5), 0.0)
    assert np.count_nonzero(duplicate.matched) == 18
    assert not duplicate.false.any()
    assert not box_masks(view_boxes(MODEL, samples["both <b>"], 0.5), 40.0).missed.any()  # grown over all detections


def test_a_set_without_boxes_or_detections(tmp_path: Path) -> None:
    report({"empty": sample("empty", [], [])}, tmp_path / "r", overlays=False)
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    for words in (
        "No frame of the set has a box",
        "not defined",
        "None: the set has no box",
        "every detection lies in",
    ):
        assert words in page, words
    assert not (tmp_path / "r" / "pictures").exists()


def test_refuses(samples: dict[str, BoxSample], tmp_path: Path) -> None:
    evaluation = evaluate_boxes(MODEL, list(samples.values()))
    view = view_boxes(MODEL, samples["none"], 0.5)
    with pytest.raises(ValueError, match="worst must be >= 1; got 0"):
        report(samples, tmp_path / "r", worst=0)
    wide = BoxFrameView(np.zeros((40, 50), np.float32), view.detections, view.boxes)
    with pytest.raises(ValueError, match=r"gave a frame of shape \(40, 50\); it was measured at \(40, 48\)"):
        write_box_report(evaluation, tmp_path / "r", look=lambda _: wide)
    assert not list(tmp_path.iterdir())
