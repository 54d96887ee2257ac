"""`Detections` as a sequence: picking, order, and how it shows itself."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serank import Detections, SeRankDet
from serank.inference import Detection, FrameSource, find_detections


@pytest.fixture
def found() -> Detections:
    """Four detections with scores 0.9, 0.8, 0.7 and 0.6 and areas 6, 1, 2 and 3."""
    frame = np.zeros((40, 50), np.float32)
    frame[3:5, 4:7] = 0.9
    frame[0, 0] = 0.8
    frame[39, 48:50] = 0.7
    frame[20:23, 20] = 0.6
    return find_detections(frame, frame)


def test_an_int_gives_one_detection(found: Detections) -> None:
    first = found[0]
    assert isinstance(first, Detection)
    assert (first.box, first.centroid, first.area, first.track) == ((4, 3, 7, 5), (5, 3.5), 6, None)
    assert first.score == pytest.approx(0.9)
    assert found[np.int64(3)] == found[-1]
    assert [one.area for one in found] == found.areas.tolist() == [6, 1, 2, 3]
    assert first in found


@pytest.mark.parametrize(
    ("key", "areas"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 6]),
        ([2, 0], [2, 6]),
        ([-1], [3]),
        ([], []),
        (np.array([True, False, False, True]), [6, 3]),
        ([False, True, False, False], [1]),
    ],
)
def test_picking_keeps_every_part_in_step(found: Detections, key: Any, areas: list[int]) -> None:
    some = replace(found, tracks=np.arange(10, 14))[key]
    assert isinstance(some, Detections)
    assert some.areas.tolist() == areas
    assert some.mask.sum() == sum(areas)
    assert [(some.labels == i + 1).sum() for i in range(len(some))] == areas
    for i, one in enumerate(some):
        rows, columns = np.nonzero(some.labels == i + 1)
        assert one.centroid == (columns.mean(), rows.mean())
        assert one.track == 10 + found.areas.tolist().index(one.area)
    assert some.probability is found.probability


def test_masks_of_scores(found: Detections) -> None:
    assert found[found.scores > 0.75].areas.tolist() == [6, 1]
    assert len(found[found.scores > 1]) == 0


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (4, IndexError, "detection 4 of 4; they are numbered from 0"),
        (-5, IndexError, "detection -5 of 4"),
        ([0, 4], IndexError, r"detections \[0, 4\] of 4"),
        ([0, -4], IndexError, "name one twice"),
        ([True, False], IndexError, "a mask of 2 for 4 detections"),
        (True, TypeError, "picked by int, slice, bool mask or list of ints; got True"),
        ("score", TypeError, "got 'score'"),
        ([0.5], TypeError, r"got \[0.5\]"),
    ],
)
def test_wrong_picks(found: Detections, key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        found[key]


def test_sorting(found: Detections) -> None:
    assert found.sorted("area").areas.tolist() == [6, 3, 2, 1]
    assert found.sorted("x", descending=False).centroids[:, 0].tolist() == [0, 5, 20, 48.5]
    assert found.sorted("y").areas.tolist() == [2, 3, 6, 1]
    assert found.sorted("area").sorted().scores.tolist() == found.scores.tolist()
    with pytest.raises(ValueError, match="by must be one of score, area, x, y; got 'track'"):
        found.sorted("track")
    numbered = replace(found, tracks=np.array([2, 4, 1, 3]))
    assert numbered.sorted("track").areas.tolist() == [1, 3, 6, 2]


def test_the_source_is_told(tmp_path: Path, found: Detections) -> None:
    model = SeRankDet(width=2).eval()
    path = tmp_path / "a.png"
    Image.fromarray(np.tile(np.arange(30, dtype=np.uint8), (20, 1))).save(path)
    with Image.open(path) as image:
        sources = [d.source for d in model.detect([path, str(path), image, np.asarray(image)])]
    assert sources == [FrameSource(path)] * 3 + [None]
    assert repr(model.detect(path, 1.0)) == f"Detections(0 in {path} of 20x30, threshold=1.0)"
    assert repr(found) == "Detections(4 in a frame of 40x50, threshold=0.5)"
    clip = FrameSource(Path("clip.mp4"), frame=12)
    assert (str(clip), clip.index) == ("clip.mp4, frame 12", 12)
    assert (str(FrameSource(Path("a.tif"), page=0)), FrameSource(Path("a.tif"), page=0).index) == ("a.tif, page 0", 0)


def test_notebooks_get_picture_and_table(found: Detections) -> None:
    shown = replace(found, source=FrameSource(Path("a<b.png")), tracks=np.array([2, 4, 1, 3]))
    html = shown._repr_html_()
    assert "4 detections in a&lt;b.png; score p: peak probability, above 0.5" in html
    assert "<td>0</td><td>5.0</td><td>3.5</td><td>0.900</td><td>6</td><td>4, 3, 7, 5</td><td>2</td>" in html
    assert html.count("<tr>") == 5
    calibrated = replace(found, calibrated=True)._repr_html_()
    assert "score p: how often such detections are true (calibrated), probability above 0.5" in calibrated
    (data,) = re.findall(r"base64,([^\"]+)", html)
    assert base64.b64decode(data) == shown._repr_png_()
    with Image.open(io.BytesIO(shown._repr_png_())) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(shown.image()))
    frame = np.zeros((60, 60), np.float32)
    frame[::4, ::4] = 1
    assert "and 205 more" in find_detections(frame, frame)._repr_html_()


def test_the_image_is_what_is_saved(found: Detections, tmp_path: Path) -> None:
    found.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert np.array_equal(np.asarray(saved.convert("RGB")), np.asarray(found.image()))


def test_plot_has_axes_in_pixels(found: Detections) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="plots need the extra `report`")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert found.plot(ax) is ax
    assert tuple(ax.images[0].get_extent()) == (-0.5, 49.5, 39.5, -0.5)
    assert ax.get_title() == "4 detections; score p: peak probability, above 0.5"
    assert found.plot() is not ax
    plt.close("all")
