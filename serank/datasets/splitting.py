"""Splitting a folder of frames into training and validation lists, or by those that were published."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from serank.datasets.labels.box_file import BOX_FILE, read_boxes
from serank.datasets.layouts import (
    find_lists,
    frame_folder,
    mask_folder,
    mask_of,
    named_files,
    read_list,
    split_folders,
    write_list,
)
from serank.datasets.splits import available_splits, file_name, split_names
from serank.frames.sources import frame_files
from serank.utils.files import replacing
from serank.utils.text import listing

_NUMBERED = re.compile(r"(.*?)[ _.\-]*\d+")


@dataclass(frozen=True)
class FolderSplit:
    """What `split_folder` wrote; `str` says it in words."""

    root: Path
    train: list[str]
    val: list[str]
    sequences: int | None = None
    """Sequences among the frames, `None` where frames were split one by one."""
    unlabelled: int = 0
    """Frames that have neither mask nor boxes, and are in no list."""
    held_out: int = 0
    """Frames that a list of test frames names, and that are in no list that was written."""
    test: list[str] = field(default_factory=list)
    """Of a published split; empty where none was written."""

    def __str__(self) -> str:
        text = f"{self.root}: train.txt {len(self.train)} frames, val.txt {len(self.val)}"
        text += f", test.txt {len(self.test)}" if self.test else ""
        text += f", {self.sequences} sequences, each in one of them" if self.sequences is not None else ""
        text += f"; {self.unlabelled} without a mask left out" if self.unlabelled else ""
        return text + (f"; {self.held_out} test frames left out" if self.held_out else "")


def sequence_of(name: str) -> str:
    """The sequence of a frame: its name before the number at its end, `clip03` for `clip03_000123`."""
    found = _NUMBERED.fullmatch(name)
    return name if found is None else found[1]


def choose_validation(names: Iterable[str], share: float, *, seed: int = 0, by_sequence: bool = False) -> list[str]:
    """Sorted names for validation, by a hash of each name (or sequence) and the seed.

    The order of `names` doesn't matter, and of a set that grows most frames stay where they were.

    Args:
        names: of frames, all different.
        share: of the frames that go to validation, in (0, 1); at least one frame, not all. Sequences are taken whole,
            as many as come closest to it.
        seed: another one gives another split.
        by_sequence: keep frames of one sequence together, see `sequence_of`.

    Raises:
        ValueError: `share` outside (0, 1), or fewer than two names or sequences.
    """
    if not 0 < share < 1:
        raise ValueError(f"val must be a share of the frames between 0 and 1, such as 0.2; got {share}")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[sequence_of(name) if by_sequence else name].append(name)
    if len(groups) < 2:
        what = f"sequences (all names begin with {next(iter(groups), '')!r})" if by_sequence else "frames"
        fix = "; split without by_sequence, or name frames SEQUENCE_NUMBER" if by_sequence and groups else ""
        raise ValueError(f"{len(groups)} {what} can't be split, expected 2 or more{fix}")
    total = sum(map(len, groups.values()))
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    chosen: list[str] = []
    for key in order:
        more = len(chosen) + len(groups[key])
        if more < total and abs(more - share * total) < abs(len(chosen) - share * total):
            chosen += groups[key]
    # where each sequence is much larger than the share, the smallest comes closest
    return sorted(chosen or groups[min(order, key=lambda key: len(groups[key]))])


def split_folder(
    root: str | os.PathLike[str],
    *,
    val: float = 0.2,
    seed: int = 0,
    by_sequence: bool = False,
    published: str | None = None,
    overwrite: bool = False,
) -> FolderSplit:
    """Writes `train.txt` and `val.txt` for a folder of frames and masks (or frames and `boxes.json`) without lists.

    Frames of a list whose name begins with `test` are left out of both. A published split is written as it is, with
    `test.txt` where the folder has those frames.

    Args:
        root: the folder, with images/ and masks/.
        val: share of the frames for validation, as for `choose_validation`, like `seed`.
        seed: another one gives another split.
        by_sequence: keep frames of one sequence together, so that no frame is validated on whose neighbour in time was
            trained on; see `sequence_of`.
        published: data set whose own lists are written, see `serank.datasets.split_names`; then neither `val` nor
            `seed` nor `by_sequence` is to be given.
        overwrite: replace the lists if they are there.

    Raises:
        FileExistsError: there are such lists already.
        FileNotFoundError: no such folder, no frames with masks in it, or frames of the published split are missing.
        ValueError: `val` out of its range, an unknown published split, or too few frames or sequences.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with images/ and masks/")
    images = frame_folder(folder)
    if images is None:
        ready = ", ".join(part.name for part in split_folders(folder))
        raise FileNotFoundError(
            f"{folder}: no images/ in it" + (f"; it is split into folders already: {ready}" if ready else "")
        )
    files = frame_files(images)
    if published is not None:
        if (val, seed, by_sequence) != (0.2, 0, False):
            raise ValueError(f"published={published!r} has lists of its own; leave out val, seed and by_sequence")
        parts = _published(images, files, published)
        _write(folder, parts, overwrite)
        return FolderSplit(folder, parts["train"], parts["val"], test=parts.get("test", []))
    frames = [file_name(file) for file in files]
    labelled = _labelled(folder, frames)
    if not labelled:
        raise FileNotFoundError(f"{folder}: none of {len(frames)} frames has a mask in masks/ or boxes in {BOX_FILE}")
    tests = _test_names(folder)
    names = [name for name in labelled if name not in tests]
    validation = choose_validation(names, val, seed=seed, by_sequence=by_sequence)
    taken = set(validation)
    training = sorted(name for name in names if name not in taken)
    _write(folder, {"train": training, "val": validation}, overwrite)
    sequences = len({sequence_of(name) for name in names}) if by_sequence else None
    return FolderSplit(folder, training, validation, sequences, len(frames) - len(labelled), len(labelled) - len(names))


def _write(folder: Path, parts: dict[str, list[str]], overwrite: bool) -> None:
    """All lists or none."""
    if not overwrite and (there := [name for name in parts if (folder / f"{name}.txt").exists()]):
        raise FileExistsError(
            f"{folder / there[0]}.txt: is there already; remove it, or replace the lists (--overwrite)"
        )
    with ExitStack() as stack:
        for name, names in parts.items():
            write_list(stack.enter_context(replacing(folder / f"{name}.txt")), names)


def _published(images: Path, files: Iterable[Path], dataset: str) -> dict[str, list[str]]:
    known = [part for name, _, part in (key.partition(":") for key in available_splits()) if name == dataset]
    if not known:
        sets = dict.fromkeys(key.partition(":")[0] for key in available_splits())
        raise ValueError(f"published must be one of {', '.join(sets)}; got {dataset!r}")
    there = {file_name(file) for file in files}
    parts = {part: list(split_names(dataset, part)) for part in ("train", "val")}
    if missing := [name for names in parts.values() for name in names if name not in there]:
        raise FileNotFoundError(
            f"{images}: {len(missing)} frames of the published split {dataset!r} are missing ({listing(missing, 3)}); "
            "get the whole data set, or split what is there without published (--published)"
        )
    if "test" in known and there.issuperset(test := split_names(dataset, "test")):
        parts["test"] = list(test)
    return parts


def _labelled(folder: Path, frames: list[str]) -> list[str]:
    files = named_files(mask_folder(folder))
    boxes = read_boxes(folder / BOX_FILE) if (folder / BOX_FILE).is_file() else {}
    return [name for name in frames if name in boxes or mask_of(name, files) is not None]


def _test_names(folder: Path) -> set[str]:
    found: set[str] = set()
    for split, file in find_lists(folder).items():
        if PurePosixPath(split).name.lower().startswith("test"):
            found.update(read_list(file))
    return found
