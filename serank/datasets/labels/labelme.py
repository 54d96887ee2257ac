"""LabelMe JSON: a file for each frame with rectangles, polygons and points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serank.datasets.labels.objects import LabelledFrame, LabelledObject, Outline, Point, Shape
from serank.datasets.labels.places import find_frame, split_of
from serank.datasets.labels.values import entry, json_file, member, number, shown, xyxy_box


def is_labelme(content: dict[str, Any]) -> bool:
    """Whether a JSON object is one of LabelMe's."""
    return isinstance(content.get("shapes"), list)


def read_labelme(files: Sequence[Path], root: Path, images: Path | None) -> list[LabelledFrame]:
    """Frames of LabelMe files; one without shapes holds no target.

    A folder in `root` named as a split sets the frames' split; arguments and errors as for `formats.read_labels`.
    """
    return [_read(file, root, images) for file in files]


def _read(file: Path, root: Path, images: Path | None) -> LabelledFrame:
    content = json_file(file)
    near = [file.parent, file.parent.parent / "images", root / "images", root]
    folders = [images, images / file.parent.name] if images is not None else near
    name = content.get("imagePath") or file.stem
    found = find_frame(entry(name, str, str(file), "'imagePath'"), folders, str(file))
    frame = LabelledFrame(found, str(file), split_of(file.relative_to(root).parent))
    sides = content.get("imageWidth"), content.get("imageHeight")
    if None not in sides:
        frame.size = member(content, "imageWidth", int, str(file)), member(content, "imageHeight", int, str(file))
    for i, record in enumerate(member(content, "shapes", list, str(file))):
        where = f"{file}, shapes[{i}]"
        record = entry(record, dict, where, "the shape")
        label = entry(record.get("label") or "", str, where, "'label'")
        frame.objects.append(LabelledObject(_shape(record, where), label, where))
    return frame


def _shape(record: dict[str, Any], where: str) -> Shape:
    kind = member(record, "shape_type", str, where) if "shape_type" in record else "polygon"
    points = []
    for i, point in enumerate(member(record, "points", list, where)):
        pair = entry(point, list, where, f"points[{i}]")
        if len(pair) != 2:
            raise ValueError(f"{where}: points[{i}] has {len(pair)} numbers, expected x and y; correct the entry")
        points.append((number(pair[0], where, f"x of points[{i}]"), number(pair[1], where, f"y of points[{i}]")))
    least = {"rectangle": 2, "polygon": 3, "point": 1}
    if kind not in least:
        raise ValueError(f"{where}: shape_type is {shown(kind)}, expected rectangle, polygon or point; draw it as one")
    if len(points) < least[kind]:
        raise ValueError(
            f"{where}: a {kind} of {len(points)} points, expected {least[kind]}; draw it again or remove it"
        )
    if kind == "polygon":
        return Outline((tuple(points),))
    if kind == "point":
        return Point(*points[0])
    xs, ys = zip(*points, strict=True)  # two opposite corners in any order, in newer files all four
    return xyxy_box((min(xs), min(ys), max(xs), max(ys)), where)
