"""Looking at every file of a folder of frames and masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from serank.datasets.labels.formats import import_hint
from serank.datasets.layouts import (
    MASK_ENDINGS,
    Overlap,
    disjoint_pairs,
    find_layout,
    find_lists,
    frame_folder,
    list_overlaps,
    mask_folder,
    mask_of,
    read_list,
    role,
    second_mask,
    split_folders,
)
from serank.datasets.masks import Shape, SizeMismatch, is_inverted, read_mask
from serank.datasets.report import FolderReport
from serank.datasets.splits import file_name, identify_split, sirst_test_names
from serank.frames.palettes import has_colours
from serank.frames.reading import decode
from serank.frames.sources import frame_files, passed_over
from serank.utils.digest import sha256


class _Base(NamedTuple):
    """A folder with frames and masks of its own; its frames are called `prefix` + name."""

    prefix: str
    frames: dict[str, Path]
    masks: dict[str, Path]


def describe_folder(root: str | os.PathLike[str]) -> FolderReport:
    """Reads every file of a folder of frames and masks and reports what is there and what is wrong.

    Never raises for a defective folder, not even for one that doesn't exist: what is wrong is in the report. See
    `FolderDataset` for the layouts it knows, and `FolderReport` for what it looks at.

    Args:
        root: the folder.
    """
    report = FolderReport(Path(root))
    try:
        _describe(report)
    except OSError as error:
        report.unreadable.append(str(error))
    return report


def _describe(report: FolderReport) -> None:
    root = report.root
    if not root.is_dir():
        report.unreadable.append(f"{root}: no such folder")
        return
    report.layout = find_layout(root)
    if report.layout is None:
        report.hint = import_hint(root)
        return
    # every folder with frames, also one without masks, which the layout leaves out
    folders = split_folders(root) if report.layout.split_folders else []
    bases = [_open(report, f, f"{f.name}/") for f in folders] or [_open(report, root, "")]
    digests: dict[str, str] = {}
    for base in bases:
        digests |= _read_pairs(report, base)
    members = {base.prefix.rstrip("/"): list(base.frames) for base in bases if base.prefix}
    report.splits = {split: len(names) for split, names in members.items()}
    for split, names in members.items():
        members[split] = [f"{split}/{name}" for name in names]
    for split, file in find_lists(root).items():
        try:
            names = read_list(file)
        except (OSError, ValueError) as error:
            report.unreadable.append(str(error))
            continue
        split = f"{split}.txt" if split in members else split  # a folder and a list of one name
        _check_list(report, split, names, bases)
        members[split] = names
    for split, names in members.items():
        title = identify_split(name.rpartition("/")[2] for name in names)
        if title is not None:
            report.known[split] = title
    report.name_overlaps = list_overlaps(root)
    report.content_overlaps = _content_overlaps(members, digests)
    _check_training_sets(report, members)


def _open(report: FolderReport, base: Path, prefix: str) -> _Base:
    opened: list[dict[str, Path]] = []
    for folder in (frame_folder(base), mask_folder(base)):
        files: dict[str, Path] = {}
        if folder:
            others, broken = ([p.relative_to(report.root).as_posix() for p in paths] for paths in passed_over(folder))
            report.passed_over += others
            report.broken_links += broken
        for file in frame_files(folder) if folder else []:
            if file_name(file) in files:
                report.same_stem.append(file.relative_to(report.root).as_posix())
            files.setdefault(file_name(file), file)
        opened.append(files)
    frames, masks = opened
    report.frames += len(frames)
    used = {name + ending for name in frames for ending in MASK_ENDINGS}
    report.masks_without_frame += [prefix + name for name in masks if name not in used]
    return _Base(prefix, frames, masks)


def _read_pairs(report: FolderReport, base: _Base) -> dict[str, str]:
    """Looks at every pair; SHA-256 of the frame files by name."""
    digests: dict[str, str] = {}
    for name, file in base.frames.items():
        shape = _read_frame(report, base.prefix + name, file, digests)
        mask = mask_of(name, base.masks)
        if mask is None:
            report.frames_without_mask.append(base.prefix + name)
            continue
        report.pairs += 1
        if second_mask(name, base.masks, base.frames) is not None:
            report.two_masks.append(base.prefix + name)
        _read_mask(report, base.prefix + name, mask, shape)
    return digests


def _read_frame(report: FolderReport, name: str, file: Path, digests: dict[str, str]) -> Shape | None:
    try:
        digests[name] = sha256(file)
        pixels = decode(file)
        report.modes[f"{'grey' if pixels.ndim == 2 else 'colour'} {pixels.dtype}"] += 1
    except (OSError, ValueError) as error:
        report.unreadable.append(str(error))
        return None
    shape = (pixels.shape[0], pixels.shape[1])
    report.sizes[shape] += 1
    if has_colours(pixels):
        report.coloured.append(name)
    report.deep += pixels.dtype.itemsize > 1
    return shape


def _read_mask(report: FolderReport, name: str, file: Path, shape: Shape | None) -> None:
    try:
        mask, grey, touching = read_mask(file)
    except (OSError, ValueError) as error:
        report.unreadable.append(str(error))
        return
    if grey:
        report.grey_masks.append(name)
    if touching:
        report.touching_masks.append(name)
    if is_inverted(mask):
        report.inverted_masks.append(name)
    if not mask.any():
        report.empty_masks.append(name)
    if shape is not None and mask.shape != shape:
        report.mismatches.append(SizeMismatch(name.rpartition("/")[2], shape, (mask.shape[0], mask.shape[1])))


def _check_list(report: FolderReport, split: str, names: list[str], bases: list[_Base]) -> None:
    report.splits[split] = len(names)
    complete = {name for base in bases for name in base.frames if mask_of(name, base.masks) is not None}
    missing = [name for name in dict.fromkeys(names) if name not in complete]
    if missing:
        report.missing[split] = missing
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        report.repeated[split] = repeated


def _content_overlaps(members: Mapping[str, list[str]], digests: Mapping[str, str]) -> list[Overlap]:
    overlaps = []
    for a, b in disjoint_pairs(members):
        others = {digests[name] for name in members[b] if name in digests}
        shared = tuple(name for name in dict.fromkeys(members[a]) if digests.get(name) in others)
        if shared:
            overlaps.append(Overlap(a, b, shared))
    return overlaps


def _check_training_sets(report: FolderReport, members: Mapping[str, list[str]]) -> None:
    for split, names in members.items():
        known = role(split)
        found = sirst_test_names(name.rpartition("/")[2] for name in names)
        if known is not None and known[0] in ("train", "trainval") and found:
            report.sirst_test[split] = len(found)
