"""Making a folder of frames and masks of labels in other formats."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.datasets.labels.box_file import BOX_FILE, write_boxes
from serank.datasets.labels.formats import LabelFormat, read_labels
from serank.datasets.labels.masks import object_mask
from serank.datasets.labels.objects import Box, LabelledFrame, Outline, Point, Runs
from serank.datasets.labels.places import frame_names
from serank.datasets.labels.rule import FRACTION, PixelBox, check_fraction
from serank.datasets.labels.sheet import CELLS, SheetCell, cut, draw_sheet
from serank.datasets.layouts import split_command, write_list
from serank.frames.defects import repair_defects
from serank.frames.options import Polarity, check_polarity
from serank.frames.preparation import unit_frame
from serank.frames.reading import decode
from serank.utils.files import check_new_folder, new_folder

SHEET_FILE = "contact_sheet.png"

_KINDS = {Box: "boxes", Point: "points", Outline: "outlines", Runs: "masks"}


@dataclass
class ImportReport:
    """What `import_labels` wrote; `str` says it in words."""

    folder: Path
    format: LabelFormat
    frames: int = 0
    empty: int = 0
    """Frames without a target."""
    objects: Counter[str] = field(default_factory=Counter)
    """Targets by what they were labelled with: `boxes`, `points`, `outlines`, `masks`."""
    splits: dict[str, int] = field(default_factory=dict)
    """Lists that were written, and how many frames each has."""
    flat: list[str] = field(default_factory=list)
    """Boxes and points in which no bright (for black-hot no dark) target stands out: file and entry."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.objects.items()) or "no targets"
        lists = ", ".join(f"{split}.txt {count}" for split, count in self.splits.items()) or "none"
        if not any(split.startswith(("val", "test")) for split in self.splits):  # nothing to validate on
            lists += f"; `{split_command(self.folder)}` writes train.txt and val.txt"
        lines = [
            f"{self.folder}: {self.frames} frames of {self.format} labels, {self.empty} without a target; {kinds}",
            f"  lists   {lists}",
        ]
        if sum(self.objects.values()):
            lines.append(f"  look at {self.folder / SHEET_FILE}: targets as they are, and with box and mask")
        if self.flat:
            shown = "; ".join(self.flat[:3]) + ("; ..." if len(self.flat) > 3 else "")
            lines.append(
                f"  {len(self.flat)} boxes or points in which nothing stands out; is the polarity right? ({shown})"
            )
        return "\n".join(lines)


def import_labels(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: LabelFormat | None = None,
    images: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    polarity: Polarity = "white-hot",
    fraction: float = FRACTION,
    link: bool = False,
) -> ImportReport:
    """Makes a folder of frames and masks, as `FolderDataset` reads it, of labels in another format.

    Read are COCO JSON, YOLO, Pascal VOC, LabelMe and CSV lists of centroids. Boxes and points become masks by the rule
    of `serank.datasets.labels.rule`; outlines and run-length masks are masks already. Written are `images/` (the files
    as they are), `masks/NAME.png` (0 or 255), `boxes.json`, a list for each split of the source, and
    `contact_sheet.png` with up to 48 targets, to check by eye. The folder appears when it is complete.

    Args:
        path: label file, or folder of a data set.
        output: folder to write; must be new or empty.
        format: `"coco"`, `"yolo"`, `"voc"`, `"labelme"` or `"centroids"`; `None` finds out.
        images: folder of the frames; `None` looks where each format has them.
        classes: names of those that are targets; `None` takes all. Frames without one are kept, as target-free.
        polarity: whether targets are brighter (`"white-hot"`) or darker (`"black-hot"`) than their surroundings.
        fraction: of the local contrast above which a pixel is target, in (0, 1), for boxes and points.
        link: make symbolic links to the frames in place of copies.

    Returns:
        What was written.

    Raises:
        FileExistsError: `output` is a file or not empty.
        FileNotFoundError: no such path, no label file, or a frame that isn't there.
        ImportError: a YOLO folder with a YAML file, and PyYAML isn't installed.
        ValueError: an argument or a label that is wrong; names file and entry, value, what was expected and the fix.
        serank.errors.FrameError: a frame that can't be read.
    """
    check_polarity(polarity)
    check_fraction(fraction)
    target = check_new_folder(output)
    chosen, frames = read_labels(Path(path), format, None if images is None else Path(images))
    if not frames:
        raise ValueError(f"{path}: the labels name no frame; expected at least one")
    _keep(frames, classes, Path(path))
    root = Path(path) if Path(path).is_dir() else Path(path).parent
    names = frame_names([frame.file for frame in frames], root)
    report = ImportReport(target, chosen, frames=len(frames))
    shown = _chosen_objects(frames)
    with new_folder(target) as folder:
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        boxes: dict[str, list[PixelBox]] = {}
        cells: list[SheetCell] = []
        for i, (frame, name) in enumerate(zip(frames, names, strict=True)):
            grey = _grey(frame)
            mask = np.zeros(grey.shape, np.uint8)
            boxes[name] = []
            for j, labelled in enumerate(frame.objects):
                found = object_mask(labelled, grey, polarity=polarity, fraction=fraction)
                x0, y0, x1, y1 = found.where
                mask[y0:y1, x0:x1][found.mask] = 255
                boxes[name].append(found.box)
                report.objects[_KINDS[type(labelled.shape)]] += 1
                if not found.stands_out:
                    report.flat.append(labelled.where)
                if (i, j) in shown:
                    cells.append(cut(name, grey, found))
            report.empty += not frame.objects
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
            place = folder / "images" / f"{name}{frame.file.suffix}"
            if link:
                place.symlink_to(frame.file.resolve())
            else:
                shutil.copyfile(frame.file, place)
        write_boxes(folder / BOX_FILE, boxes)
        if cells:
            draw_sheet(cells).save(folder / SHEET_FILE)
        report.splits = _write_lists(folder, frames, names)
    return report


def _keep(frames: list[LabelledFrame], classes: Sequence[str] | None, path: Path) -> None:
    """Drops targets of other classes."""
    if classes is None:
        return
    present = {found.label for frame in frames for found in frame.objects if found.label}
    if unknown := [name for name in classes if name not in present]:
        known = ", ".join(sorted(present)[:12]) or "no classes"
        raise ValueError(f"{path}: no target of class {unknown[0]!r}; the labels have {known}")
    for frame in frames:
        frame.objects = [found for found in frame.objects if found.label in classes]


def _chosen_objects(frames: list[LabelledFrame]) -> set[tuple[int, int]]:
    """Numbers of frame and target of those on the contact sheet, spread evenly over all."""
    places = [(i, j) for i, frame in enumerate(frames) for j in range(len(frame.objects))]
    count = min(CELLS, len(places))
    return {places[k * len(places) // count] for k in range(count)}


def _grey(frame: LabelledFrame) -> NDArray[Any]:
    """Grey levels as stored, since the range in which frames are shown to a network may cut a bright target's top.

    Dead pixels are repaired as data sets do it, or a mask might mark one in place of a target beside it.
    """
    pixels = decode(frame.file)
    grey = unit_frame(pixels, str(frame.file))  # also says what is wrong with the frame
    grey = repair_defects(pixels if pixels.ndim == 2 else grey)
    height, width = grey.shape
    if frame.size is not None and frame.size != (width, height):
        raise ValueError(
            f"{frame.where}: says {frame.size[0]} x {frame.size[1]} px (width x height), but {frame.file} has {width} "
            f"x {height}: the labels belong to another size; label or export this one, or correct the entry"
        )
    return grey


def _write_lists(folder: Path, frames: Sequence[LabelledFrame], names: Sequence[str]) -> dict[str, int]:
    members: dict[str, list[str]] = defaultdict(list)
    for frame, name in zip(frames, names, strict=True):
        if frame.split is not None:
            members[frame.split].append(name)
    for split, listed in members.items():
        write_list(folder / f"{split}.txt", listed)
    return {split: len(listed) for split, listed in members.items()}
