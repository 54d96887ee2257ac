"""Pascal VOC: an XML file for each frame, boxes of 1-based, inclusive pixel numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from serank.datasets.labels.objects import Box, LabelledFrame, LabelledObject
from serank.datasets.labels.places import find_frame, split_of
from serank.datasets.labels.values import number, xyxy_box
from serank.utils.files import text_file

SIDES = ("xmin", "ymin", "xmax", "ymax")
SETS = ("train", "val", "test", "trainval")
_TRUTH = re.compile(r"\s+-?[01]$")
"""What lists of one class have after a frame's name."""


class _Builder(ElementTree.TreeBuilder):
    """Refuses document types, since entities that they declare can expand without end; VOC files have none."""

    def doctype(self, *_: object) -> None:
        raise ValueError("declares a document type, which no VOC file needs; remove the declaration")


def read_voc(files: Sequence[Path], root: Path, images: Path | None) -> list[LabelledFrame]:
    """Frames of VOC files; those of `ImageSets/Main` alone have splits where it is there.

    A file without an object stands for a frame without a target. Pixel 1 is the first, and the last is part of the box,
    as the VOC devkit has it; a 0, which some tools write, is taken as 1.
    Arguments and errors as for `formats.read_labels`.
    """
    sets = _image_sets(root, {file.stem for file in files})
    frames = []
    for file in files:
        frame = _read(file, root, images)
        frame.split = sets.get(file.stem) if sets else split_of(file.relative_to(root).parent)
        frames.append(frame)
    return frames


def _image_sets(root: Path, known: set[str]) -> dict[str, str]:
    """The set of each frame; of a line that is no known frame's name, less what may follow the name."""
    found: dict[str, str] = {}
    for name in SETS:
        for base in (root, root.parent):  # where root is Annotations/ itself
            file = base / "ImageSets" / "Main" / f"{name}.txt"
            for line in text_file(file).splitlines() if file.is_file() else ():
                frame = line.strip()
                frame = frame if frame in known else _TRUTH.sub("", frame)
                if frame:
                    found.setdefault(frame, name)  # train and val come before trainval, their union
    return found


def _read(file: Path, root: Path, images: Path | None) -> LabelledFrame:
    annotation = _parse(file)
    name = (annotation.findtext("filename") or "").strip() or file.stem
    folders = [file.parent, *(b / n for b in (file.parent.parent, root) for n in ("JPEGImages", "images", ""))]
    folders = [images, images / file.parent.name] if images is not None else folders
    try:
        # tools leave the name of the frame before it was renamed or converted
        found = find_frame(file.stem, folders, str(file))
    except FileNotFoundError:
        found = find_frame(name, folders, str(file))
    frame = LabelledFrame(found, str(file))
    width, height = annotation.findtext("size/width"), annotation.findtext("size/height")
    if width is not None and height is not None:
        size = int(number(width, str(file), "width")), int(number(height, str(file), "height"))
        frame.size = size if min(size) > 0 else None  # tools write 0 where they do not know
    for i, element in enumerate(annotation.findall("object"), 1):
        where = f"{file}, object {i}"
        frame.objects.append(LabelledObject(_box(element, where), (element.findtext("name") or "").strip(), where))
    return frame


def _parse(file: Path) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(text_file(file), ElementTree.XMLParser(target=_Builder()))
    except ElementTree.ParseError as error:
        raise ValueError(
            f"{file}, line {error.position[0]}: is not XML ({error.msg.partition(':')[0]}); export it again"
        ) from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}" if str(file) not in str(error) else str(error)) from None
    if root.tag != "annotation":
        which = "CVAT's own format; export as COCO 1.0" if root.tag == "annotations" else "no Pascal VOC file"
        raise ValueError(f"{file}: begins with <{root.tag[:40]}>, expected <annotation>; this is {which}")
    return root


def _box(element: ElementTree.Element, where: str) -> Box:
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"{where}: lacks <bndbox>; add it or remove the object")
    texts = []
    for side in SIDES:
        text = box.findtext(side)
        if text is None:
            raise ValueError(f"{where}: <bndbox> lacks <{side}>; add it or remove the object")
        texts.append(text.strip())
    x0, y0, x1, y1 = (number(text, where, side) for text, side in zip(texts, SIDES, strict=True))
    return xyxy_box((max(x0, 1.0) - 1, max(y0, 1.0) - 1, x1, y1), where, SIDES)
