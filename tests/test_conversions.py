"""Detections for other tools: each form read back gives the boxes and masks it was made of."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serank import Detections
from serank.inference import FrameSource, find_detections


def some_detections(seed: int = 0, height: int = 37, width: int = 53) -> Detections:
    probability = np.random.default_rng(seed).random((height, width), np.float32)
    found = find_detections(probability, probability, threshold=0.8, source=FrameSource(Path("clip.mp4"), frame=7))
    assert len(found) > 50
    return replace(found, tracks=np.arange(5, 5 + len(found)))


def none_found() -> Detections:
    frame = np.zeros((8, 9), np.float32)
    return find_detections(frame, frame)


def test_records() -> None:
    found = some_detections()
    rows = found.to_records()
    assert json.loads(json.dumps(rows)) == rows
    assert {(row["frame"], row["index"]) for row in rows} == {("clip.mp4", 7)}
    for names, values in ((("x", "y"), found.centroids), (("x0", "y0", "x1", "y1"), found.boxes)):
        np.testing.assert_array_equal([[row[name] for name in names] for row in rows], values)
    assert [row["score"] for row in rows] == found.scores.tolist()
    assert [row["area"] for row in rows] == found.areas.tolist()
    assert [row["track"] for row in rows] == list(range(5, 5 + len(found)))
    bare = replace(found, source=None, tracks=None)[:1].to_records()
    assert (bare[0]["frame"], bare[0]["index"], bare[0]["track"]) == (None, None, None)
    assert none_found().to_records() == []


def test_pandas() -> None:
    pytest.importorskip("pandas", reason="needs the extra `pandas`")
    found = some_detections()
    table = found.to_pandas()
    assert table.to_dict("records") == found.to_records()
    empty = none_found().to_pandas()
    assert empty.empty
    assert empty.dtypes.astype(str).to_dict() == table.dtypes.astype(str).to_dict() | {"frame": str(empty.frame.dtype)}
    assert found[:3].to_pandas().query("score > 0.9").area.sum() == found[:3].areas.sum()


def test_supervision() -> None:
    pytest.importorskip("supervision", reason="needs the extra `supervision`")
    found = some_detections()
    other = found.to_supervision()
    np.testing.assert_array_equal(other.xyxy, found.boxes)
    np.testing.assert_array_equal(other.confidence, found.scores)
    np.testing.assert_array_equal(other.tracker_id, found.tracks)
    assert other.mask.shape == (len(found), 37, 53)
    np.testing.assert_array_equal(other.mask.sum(axis=(1, 2)), found.areas)
    np.testing.assert_array_equal(other.mask.any(axis=0), found.mask)
    assert set(other.data["class_name"]) == {"target"}
    assert len(other[other.confidence > 0.99]) == (found.scores > 0.99).sum()
    assert found.to_supervision(masks=False).mask is None
    assert len(none_found().to_supervision()) == 0


def filled(runs: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask of COCO's run lengths, which go down the columns."""
    height, width = runs["size"]
    values = np.arange(len(runs["counts"])) % 2 == 1
    return np.repeat(values, runs["counts"]).reshape(width, height).T


@pytest.mark.parametrize("seed", [0, 1])
def test_coco(seed: int) -> None:
    found = some_detections(seed)
    data = json.loads(json.dumps(found.to_coco(image_id=3)))
    assert data["images"] == [{"id": 3, "file_name": "clip.mp4", "width": 53, "height": 37, "index": 7}]
    assert [category["name"] for category in data["categories"]] == ["target"]
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(found) + 1))
    for number, (annotation, one) in enumerate(zip(data["annotations"], found, strict=True), 1):
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == one.box
        assert (annotation["area"], annotation["track_id"]) == (one.area, one.track)
        assert annotation["score"] == pytest.approx(one.score, abs=1e-4)
        np.testing.assert_array_equal(filled(annotation["segmentation"]), found.labels == number)
    assert none_found().to_coco()["annotations"] == []


def test_runs_reach_the_frame_s_corners() -> None:
    frame = np.zeros((4, 5), np.float32)
    frame[0, 0] = frame[3, 4] = 1
    counts = [a["segmentation"]["counts"] for a in find_detections(frame, frame).to_coco()["annotations"]]
    assert counts == [[0, 1, 19], [19, 1]]


def test_yolo() -> None:
    found = some_detections()
    rows = np.array([line.split() for line in found.to_yolo(scores=True).splitlines()], float)
    x, y, width, height = rows[:, 1:5].T * [[53], [37], [53], [37]]
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    np.testing.assert_allclose(boxes, found.boxes, atol=1e-4)
    np.testing.assert_allclose(rows[:, 5], found.scores, atol=1e-4)
    assert {len(line.split()) for line in found.to_yolo().splitlines()} == {5}
    assert none_found().to_yolo() == ""


def test_geojson() -> None:
    found = some_detections()
    data = json.loads(json.dumps(found.to_geojson()))
    assert data["type"] == "FeatureCollection"
    for feature, one in zip(data["features"], found, strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert (*np.min(ring, axis=0), *np.max(ring, axis=0)) == one.box
        assert (feature["properties"]["x"], feature["properties"]["y"]) == one.centroid
        assert feature["properties"]["track"] == one.track


@pytest.mark.parametrize(
    ("method", "library", "extra"),
    [
        ("to_pandas", "pandas", "pandas"),
        ("to_supervision", "supervision", "supervision"),
        ("plot", "matplotlib.pyplot", "report"),
    ],
)
def test_a_missing_library_names_its_extra(
    method: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{method} needs .*pip install 'serank\[{extra}\]'"):
        getattr(none_found(), method)()
