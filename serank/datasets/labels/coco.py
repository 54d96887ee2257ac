"""COCO JSON: boxes, polygons and run-length masks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serank.datasets.labels.objects import Box, LabelledFrame, LabelledObject, Outline, Runs, Shape
from serank.datasets.labels.places import find_frame, split_of
from serank.datasets.labels.values import entry, json_file, member, number, shown, xywh_box

_OTHERS = re.compile("mask|label|annotation")
"""What names folders that hold no frames."""


def is_coco(content: dict[str, Any]) -> bool:
    """Whether a JSON object has COCO's two lists."""
    return isinstance(content.get("images"), list) and "annotations" in content


def read_coco(files: Sequence[Path], root: Path, images: Path | None) -> list[LabelledFrame]:
    """Frames of COCO files, also those without annotations, which hold no target.

    Each file's name or folder may name a split; arguments and errors as for `formats.read_labels`.
    """
    return [frame for file in files for frame in _read(file, root, images)]


def _read(file: Path, root: Path, images: Path | None) -> list[LabelledFrame]:
    content = json_file(file)
    split = split_of(file.relative_to(root))
    near = [file.parent, file.parent.parent]
    if images is not None:
        folders = [images, images / split] if split else [images]
    else:
        folders = [folder for base in near for folder in (base, base / "images")]
        if split:
            # images/train, train2017, valid
            folders += [base / "images" / split for base in near]
            named = {p for base in near for p in base.iterdir() if p.is_dir() and split_of(Path(p.name)) == split}
            # that of exactly this name first, and none of masks
            folders += sorted(
                (p for p in named if not _OTHERS.search(p.name.lower())), key=lambda p: (p.name != split, p)
            )
    categories = _categories(content, str(file))
    frames: dict[int, LabelledFrame] = {}
    for i, record in enumerate(member(content, "images", list, str(file))):
        where = f"{file}, images[{i}]"
        record = entry(record, dict, where, "the entry")
        name, key = member(record, "file_name", str, where), member(record, "id", int, where)
        if key in frames:
            raise ValueError(f"{where}: id {key} occurs twice; each image needs its own")
        size = None
        if record.get("width") is not None and record.get("height") is not None:
            size = member(record, "width", int, where), member(record, "height", int, where)
        frames[key] = LabelledFrame(find_frame(name, folders, where), where, split, size)
    crowds = 0
    for i, record in enumerate(member(content, "annotations", list, str(file))):
        where = f"{file}, annotations[{i}]"
        record = entry(record, dict, where, "the entry")
        if record.get("iscrowd"):
            crowds += 1
            continue
        image = member(record, "image_id", int, where)
        if image not in frames:
            raise ValueError(f"{where}: image_id {image} is the id of no image; expected one of {len(frames)} images")
        label = None
        if "category_id" in record:
            category = member(record, "category_id", int, where)
            if category not in categories:
                raise ValueError(
                    f"{where}: category_id {category} is not among the categories {sorted(categories)[:9]}"
                )
            label = categories[category]
        frames[image].objects.append(LabelledObject(_shape(record, where), label, where))
    if crowds:
        many = f"{crowds} regions of many objects (iscrowd) are left out"
        warnings.warn(f"{file}: {many}; label their targets one by one if they are wanted", stacklevel=2)
    return list(frames.values())


def _categories(content: dict[str, Any], file: str) -> dict[int, str]:
    found = {}
    for i, record in enumerate(entry(content.get("categories", []), list, file, "'categories'")):
        where = f"{file}, categories[{i}]"
        record = entry(record, dict, where, "the entry")
        found[member(record, "id", int, where)] = member(record, "name", str, where)
    return found


def _shape(record: dict[str, Any], where: str) -> Shape:
    drawn = record.get("segmentation")
    if drawn == [[]]:  # some tools' way to write that there is none
        drawn = None
    box = None
    if record.get("bbox"):
        values = member(record, "bbox", list, where)
        if len(values) != 4:
            raise ValueError(f"{where}: 'bbox' has {len(values)} numbers, expected 4: x, y, width, height")
        if not drawn or 0 not in values[2:]:
            box = xywh_box(values, f"{where}, bbox")
    if isinstance(drawn, dict):
        return _runs(drawn, f"{where}, segmentation")
    if drawn:
        outline = _outline(entry(drawn, list, where, "'segmentation'"), f"{where}, segmentation")
        # box labels are often exported with the box's own corners as outline, which is no mask of the target
        if box is None or not _is_rectangle(outline, box):
            return outline
    if box is None:
        raise ValueError(f"{where}: has neither 'bbox' nor 'segmentation'; add one or remove the annotation")
    return box


def _outline(drawn: list[Any], where: str) -> Outline:
    polygons = []
    for i, polygon in enumerate(drawn if isinstance(drawn[0], list) else [drawn]):
        here = f"{where}[{i}]"
        values = [number(v, here, f"number {j}") for j, v in enumerate(entry(polygon, list, here, "the polygon"))]
        if len(values) < 6 or len(values) % 2:
            raise ValueError(f"{here}: {len(values)} numbers are no polygon; expected x and y of three or more corners")
        polygons.append(tuple(zip(values[::2], values[1::2], strict=True)))
    return Outline(tuple(polygons))


def _is_rectangle(outline: Outline, box: Box) -> bool:
    corners = outline.polygons[0]
    near = all(min(abs(x - box.x0), abs(x - box.x1)) + min(abs(y - box.y0), abs(y - box.y1)) < 0.02 for x, y in corners)
    return len(outline.polygons) == 1 and len(corners) in (4, 5) and near and len(set(corners)) == 4


def _runs(drawn: dict[str, Any], where: str) -> Runs:
    size = member(drawn, "size", list, where)
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError(f"{where}: 'size' is {shown(size)}, expected height and width in px")
    counts = drawn.get("counts")
    if isinstance(counts, str):
        lengths = _decompressed(counts, where)
    else:
        listed = member(drawn, "counts", list, where)
        lengths = [entry(length, int, where, f"'counts' [{i}]") for i, length in enumerate(listed)]
    if min(lengths, default=-1) < 0 or sum(lengths) != size[0] * size[1]:
        raise ValueError(
            f"{where}: 'counts' must be >= 0 and add up to the {size[0] * size[1]} pixels of 'size'; they add up to "
            f"{sum(lengths)}; export the labels again"
        )
    return Runs(tuple(lengths), size[0], size[1])


def _decompressed(text: str, where: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character, the sixth says that more follow; from the fourth number on
    each is the difference to the one before the last."""
    numbers, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError(f"{where}: 'counts' holds {character!r}, which COCO's run lengths don't have here")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            numbers.append(value - (1 << shift) if bits & 16 else value)
            value, shift = 0, 0
    if shift:
        raise ValueError(f"{where}: 'counts' is cut off; export the labels again")
    lengths = numbers[:3]  # the third is still absolute
    for difference in numbers[3:]:
        lengths.append(lengths[-2] + difference)
    return lengths
