"""`boxes.json`: the boxes of a data set's targets, beside its masks or instead of them."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from serank.datasets.labels.rule import PixelBox
from serank.datasets.labels.values import entry, json_file, number, shown

BOX_FILE = "boxes.json"


def write_boxes(file: Path, boxes: Mapping[str, Sequence[PixelBox]]) -> None:
    """Writes the boxes of each frame, a line for a frame, so that versions can be compared."""
    lines = (f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(found)}" for name, found in boxes.items())
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_boxes(file: str | os.PathLike[str]) -> dict[str, list[tuple[float, float, float, float]]]:
    """Boxes of each frame by its name without suffix: x0, y0, x1, y1 in px, x1 and y1 exclusive.

    Names come in Unicode's composed form (NFC). A frame with an empty list holds no target.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it isn't JSON, or a value in it isn't a box.
    """
    found = {}
    for name, listed in json_file(Path(file)).items():
        boxes = []
        for i, values in enumerate(entry(listed, list, f"{file}, {name!r}", "its list")):
            where = f"{file}, {name!r}, box {i + 1}"
            if not isinstance(values, list) or len(values) != 4:
                raise ValueError(f"{where}: is {shown(values)}, expected x0, y0, x1, y1")
            x0, y0, x1, y1 = (number(v, where, side) for v, side in zip(values, ("x0", "y0", "x1", "y1"), strict=True))
            if x1 <= x0 or y1 <= y0:
                raise ValueError(
                    f"{where}: {values} is empty; x1 and y1 are exclusive, so expected x1 > x0 and y1 > y0"
                )
            boxes.append((x0, y0, x1, y1))
        found[unicodedata.normalize("NFC", name)] = boxes  # as lists have names
    return found
