"""Which format a path holds, and its reader.

The formats are read with Python's own json, xml and csv. General loaders, such as supervision's, give arrays for a
whole set: the line or entry of a wrong value, which errors must name, is lost there, as are points, splits, and which
objects of a file were boxes and which outlines.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

from serank.datasets.labels.centroids import is_centroids, read_centroids
from serank.datasets.labels.coco import is_coco, read_coco
from serank.datasets.labels.labelme import is_labelme, read_labelme
from serank.datasets.labels.objects import LabelledFrame
from serank.datasets.labels.places import visible
from serank.datasets.labels.values import json_value
from serank.datasets.labels.voc import read_voc
from serank.datasets.labels.yolo import find_yaml, read_yolo

LabelFormat = Literal["coco", "yolo", "voc", "labelme", "centroids"]


def find_format(path: Path) -> LabelFormat | None:
    """The format of a file or of a folder's labels, by what is there; `None` where none is recognised.

    A few files are opened, no more, so that a large set is as quick as a small one.

    Raises:
        OSError: a file that can't be opened.
        ValueError: a broken file, where no other tells the format.
    """
    if path.is_file():
        return _format_of_file(path)
    if not path.is_dir():
        return None
    if find_yaml(path) is not None or _has_text_labels(path):
        return "yolo"
    broken: list[ValueError] = []
    for pattern in ("*.json", "*.xml", "*.csv"):
        for file in visible(path, pattern)[:3]:  # beside other files, such as settings
            try:
                found = _format_of_file(file)
            except ValueError as error:
                broken.append(error)
                continue
            if found is not None:
                return found
    if broken:
        raise broken[0]
    return None


def import_hint(root: str | os.PathLike[str]) -> str:
    """What to do with a folder whose labels are no masks, for errors; empty where it holds no labels that are known."""
    found = None
    with suppress(OSError, ValueError):
        found = find_format(Path(root))
    if found is None:
        return ""
    return f"it holds {_TITLES[found]} labels: `serank import {root} --output FOLDER` makes frames and masks of them"


_TITLES: dict[LabelFormat, str] = {
    "coco": "COCO",
    "yolo": "YOLO",
    "voc": "Pascal VOC",
    "labelme": "LabelMe",
    "centroids": "centroid",
}


def read_labels(path: Path, format: LabelFormat | None, images: Path | None) -> tuple[LabelFormat, list[LabelledFrame]]:
    """Reads all labels of a path.

    Args:
        path: label file, or folder of a data set.
        format: `None` to find out.
        images: folder of the frames, `None` to look for it.

    Returns:
        The format, and the frames in the order of the label files.

    Raises:
        FileNotFoundError: no such path, no label file of the format, or a frame that isn't there.
        ValueError: an unknown format, or a label file with something wrong; names file and entry.
    """
    if format is not None and format not in get_args(LabelFormat):
        raise ValueError(f"format must be one of {', '.join(get_args(LabelFormat))}; got {format!r}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder of frames")
    chosen = format or find_format(path)
    if chosen is None:
        raise ValueError(
            f"{path}: no labels that are known; expected COCO, YOLO, Pascal VOC, LabelMe or a CSV of file, x, y, or "
            "name the format (--format)"
        )
    root = path if path.is_dir() else path.parent
    if chosen == "yolo":
        return chosen, read_yolo(root, path if path.is_file() else find_yaml(root), images)
    pattern, read = _READERS[chosen]
    # an XML file that is no VOC is an error of its own, other JSON and CSV files are passed over
    files = [path] if path.is_file() else visible(root, pattern)
    files = [file for file in files if path.is_file() or chosen == "voc" or _format_of_file(file) == chosen]
    if not files:
        raise FileNotFoundError(f"{path}: no {_TITLES[chosen]} labels; expected {pattern} files")
    return chosen, read(files, root, images)


def _format_of_file(file: Path) -> LabelFormat | None:
    suffix = file.suffix.lower()
    if suffix == ".json":
        content = json_value(file)
        if not isinstance(content, dict):  # such as COCO's results
            return None
        return "coco" if is_coco(content) else "labelme" if is_labelme(content) else None
    if suffix == ".csv":
        return "centroids" if is_centroids(file) else None
    if suffix == ".xml":
        with file.open("rb") as stream:
            return "voc" if b"<annotation" in stream.read(2048) else None
    return "yolo" if suffix in (".yaml", ".yml") else None


def _has_text_labels(root: Path) -> bool:
    """Whether text files lie in a `labels` folder beside or below an `images` folder."""
    folders = [p for p in root.rglob("labels") if p.is_dir()]
    return any(any(folder.rglob("*.txt")) for folder in folders) and any(p.is_dir() for p in root.rglob("images"))


_READERS: dict[LabelFormat, tuple[str, Callable[[list[Path], Path, Path | None], list[LabelledFrame]]]] = {
    "coco": ("*.json", read_coco),
    "voc": ("*.xml", read_voc),
    "labelme": ("*.json", read_labelme),
    "centroids": ("*.csv", read_centroids),
}
