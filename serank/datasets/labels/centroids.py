"""Lists of centroids: CSV with the columns file, x, y and, if wanted, label."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from serank.datasets.labels.objects import LabelledFrame, LabelledObject, Point
from serank.datasets.labels.places import find_frame, split_of
from serank.datasets.labels.values import number, shown
from serank.utils.files import text_file

COLUMNS = ("file", "x", "y", "label")


def is_centroids(file: Path) -> bool:
    """Whether the first line of a file is a header or a row of such a list; raises ValueError where it isn't CSV."""
    rows = _rows(file)
    if not rows:
        return False
    first = rows[0][1]
    return _header(first) is not None or (3 <= len(first) <= 4 and _is_number(first[1]) and _is_number(first[2]))


def read_centroids(files: Sequence[Path], root: Path, images: Path | None) -> list[LabelledFrame]:
    """Frames of CSV files; a row without x and y stands for a frame without a target.

    x and y are in px from the first pixel's centre, as `Detections.centroids`. The columns may stand in any order under
    a header; without one they are file, x, y, label.
    The columns are separated by commas, semicolons or tabs; a file's name may name a split. Arguments and errors as for
    `formats.read_labels`.
    """
    frames: dict[tuple[Path, str | None], LabelledFrame] = {}
    for file in files:
        split = split_of(file.relative_to(root))
        folders = [images] if images is not None else [file.parent, file.parent / "images", root / "images", root]
        rows = _rows(file)
        if not rows:
            raise ValueError(f"{file}: holds no rows; expected file, x, y")
        header = _header(rows[0][1])
        for line, row in rows if header is None else rows[1:]:
            where = f"{file}, line {line}"
            values = dict(zip(header or COLUMNS, row, strict=False))
            if not {"file", "x", "y"} <= values.keys() or len(row) > len(header or COLUMNS) or not values["file"]:
                raise ValueError(f"{where}: {shown(','.join(row))} is no row of file, x, y; correct the line")
            found = find_frame(values["file"], folders, where)
            frame = frames.setdefault((found, split), LabelledFrame(found, where, split))
            if not values["x"] and not values["y"]:
                continue
            x, y = number(values["x"], where, "x"), number(values["y"], where, "y")
            frame.objects.append(LabelledObject(Point(x + 0.5, y + 0.5), values.get("label") or None, where))
    return list(frames.values())


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """Rows with the numbers of their lines, blank ones left out."""
    text = text_file(file)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=separator)
    try:
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: is not CSV ({error}); correct the line") from None


def _header(row: list[str]) -> list[str] | None:
    names = [cell.lower() for cell in row]
    names = ["file" if name in ("filename", "file_name", "image", "frame") else name for name in names]
    names = ["label" if name == "class" else name for name in names]
    return names if {"file", "x", "y"} <= set(names) else None


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return text == ""
