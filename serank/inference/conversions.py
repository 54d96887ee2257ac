"""Detections in the forms of other tools: tables, supervision, COCO, YOLO and GeoJSON."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from serank.utils.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

    from serank.inference.detections import Detections

COCO_CATEGORIES = [{"id": 1, "name": "target", "supercategory": ""}]
DETECTION_COLUMNS = ("x", "y", "score", "area", "x0", "y0", "x1", "y1", "track")
"""Of a table with a row for each detection."""
DTYPES = {"index": "Int64", "track": "Int64"} | {
    name: "int64" if name == "area" else "float64" for name in DETECTION_COLUMNS[:-1]
}
"""Of the columns of `pandas_frame`, also where it has no row; `Int64` is the integer that can be missing."""


def records(found: Detections) -> list[dict[str, Any]]:
    """As `Detections.to_records`."""
    source = found.source
    place = {
        "frame": None if source is None else printable(str(source.path)),
        "index": None if source is None else source.index,
    }
    return [
        place | dict(zip(DETECTION_COLUMNS, (*one.centroid, one.score, one.area, *one.box, one.track), strict=True))
        for one in found
    ]


def pandas_frame(found: Detections) -> DataFrame:
    """As `Detections.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"to_pandas needs pandas ({error}); run: pip install 'serank[pandas]'") from error

    columns = ["frame", "index", *DETECTION_COLUMNS]
    return pd.DataFrame(records(found), columns=columns).astype(DTYPES)


def supervision_detections(found: Detections, *, masks: bool) -> Any:
    """As `Detections.to_supervision`."""
    try:
        with warnings.catch_warnings():
            # supervision says at import that it works without OpenCV, which this conversion needs not
            warnings.filterwarnings("ignore", message="OpenCV", category=UserWarning)
            import supervision
    except ImportError as error:
        raise ImportError(
            f"to_supervision needs supervision ({error}); run: pip install 'serank[supervision]'"
        ) from error

    numbers = np.arange(1, len(found) + 1)
    return supervision.Detections(
        xyxy=found.boxes.copy(),
        mask=found.labels == numbers[:, None, None] if masks else None,
        confidence=found.scores.copy(),
        class_id=np.zeros(len(found), int),
        tracker_id=None if found.tracks is None else found.tracks.copy(),
        data={
            "class_name": np.array(["target"] * len(found), dtype=str),
            "area": found.areas.copy(),
            "centroid": found.centroids.copy(),
        },
    )


def coco(found: Detections, image_id: int) -> dict[str, Any]:
    """As `Detections.to_coco`."""
    height, width = found.mask.shape
    image: dict[str, Any] = {"id": image_id, "file_name": "", "width": width, "height": height}
    if found.source is not None:
        image["file_name"] = printable(str(found.source.path))
        if found.source.index is not None:
            image["index"] = found.source.index
    shapes = zip(found.to_dict()["detections"], pixel_runs(found), strict=True)
    return {
        "images": [image],
        "annotations": [coco_annotation(one, runs, n, image_id) for n, (one, runs) in enumerate(shapes, 1)],
        "categories": COCO_CATEGORIES,
    }


def coco_annotation(one: dict[str, Any], runs: dict[str, Any], number: int, image_id: int) -> dict[str, Any]:
    """A detection of `Detections.to_dict` and its item of `pixel_runs` as an annotation of COCO."""
    x0, y0, x1, y1 = one["box"]
    annotation = {
        "id": number,
        "image_id": image_id,
        "category_id": COCO_CATEGORIES[0]["id"],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": one["area"],
        "segmentation": runs,
        "iscrowd": 0,
        "score": one["score"],
    }
    return annotation | ({"track_id": one["track"]} if "track" in one else {})


def pixel_runs(found: Detections) -> list[dict[str, Any]]:
    """Each detection's mask in COCO's uncompressed run lengths.

    The runs go down the columns of the frame, from the left, and start with one of background.
    """
    height, width = found.mask.shape
    shapes: list[dict[str, Any]] = []
    for number, (x0, y0, x1, y1) in enumerate(found.boxes.astype(int).tolist(), 1):
        window = found.labels[y0:y1, x0:x1].T
        columns, rows = np.nonzero(np.isin(window, number))
        places = (columns + x0) * height + rows + y0
        breaks = np.flatnonzero(np.diff(places) > 1)
        starts = places[np.append(0, breaks + 1)]
        ends = places[np.append(breaks, len(places) - 1)] + 1
        borders = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
        counts = np.diff(borders).tolist()
        shapes.append({"size": [height, width], "counts": counts if counts[-1] else counts[:-1]})
    return shapes


def yolo_lines(frame: dict[str, Any], *, scores: bool = False) -> str:
    """The lines of a YOLO label file.

    Args:
        frame: as of `Detections.to_dict`.
        scores: add a sixth column.
    """
    width, height = frame["width"], frame["height"]
    lines: list[str] = []
    for one in frame["detections"]:
        x0, y0, x1, y1 = one["box"]
        shares: Iterable[float] = (
            (x0 + x1) / 2 / width,
            (y0 + y1) / 2 / height,
            (x1 - x0) / width,
            (y1 - y0) / height,
        )
        score = f" {one['score']:.4f}" if scores else ""
        lines.append("0 " + " ".join(f"{share:.6f}" for share in shares) + f"{score}\n")
    return "".join(lines)


def geojson(found: Detections) -> dict[str, Any]:
    """As `Detections.to_geojson`."""
    features = []
    for row in records(found):
        x0, y0, x1, y1 = (row.pop(name) for name in ("x0", "y0", "x1", "y1"))
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        features.append({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": row})
    return {"type": "FeatureCollection", "features": features}
