"""Folders of frames and masks, in the layouts this field uses, with the defects they are known to have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.datasets.layouts import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    Layout,
    Overlap,
    find_layout,
    find_list,
    frame_folder,
    list_overlaps,
    mask_folder,
    mask_of,
    read_list,
    role,
    same_frame,
    split_folders,
)
from serank.datasets.masks import Shape, SizeMismatch, has_grey, read_mask
from serank.datasets.sample import RawSample, Sample
from serank.datasets.splits import available_splits, split_names, warn_sirst_test_names
from serank.frames.preparation import luminance, unit_frame
from serank.frames.reading import decode
from serank.frames.sources import frame_files
from serank.utils.text import listing

__all__ = ["FolderDataset", "check_overlap", "warn_overlap"]

_WARNED: set[tuple[Path, str]] = set()
"""Folders and what was warned of: training, validation and test set of one are opened one after the other."""


class FolderDataset(Sequence[Sample]):
    """Frames and masks in a folder, read on access.

    Layouts, found by what is there:

    - `images/ masks/` with lists `SPLIT.txt`, also in `img_idx/` (as `SPLIT.txt` or `SPLIT_*.txt`) or `idx_427/`;
    - `SPLIT/images/ SPLIT/masks/`;
    - masks named as the frame, `NAME_pixels0.png` (the original SIRST) or `NAME_mask.png`;
    - `IRSTD1k_Img/ IRSTD1k_Label/`.

    A folder without lists can be split by a bundled one: `FolderDataset(root, "sirst:val")` takes the frames of
    SIRST's own validation list; `available_splits` names them all.

    A mask of another size than its frame (SIRST's `Misc_111`) is resized by nearest; masks of grey values are cut at
    half of their range (to 255 for 8 bits, else to the larger of 1 and their maximum); each is warned of once per
    data set. Masks of 0 and 1 are targets where they are 1. A name that a list repeats is taken once, with a warning.

    Also warned of (`UserWarning`), once for a folder: lists of it that share frames though they should not (train or
    trainval with test, val with train or test), and a training list with test frames of SIRST's 341/86 split.
    `describe_folder` reports on a whole folder.

    Args:
        root: the folder.
        split: name of a list or sub-folder, such as `"train"`, or of a bundled list, such as `"sirst:train"`; `None`
            takes every frame.
        cache: keep decoded files in memory (as stored, about one byte a pixel for 8-bit frames).

    Attributes:
        names: names of the frames, in the list's order, without suffix.
        layout: how the folder is laid out.
        mismatches: masks of another size than their frame, among the samples read so far.

    Raises:
        FileNotFoundError: no such folder, split, frame or mask; the message says what was looked for.
        ValueError: a list that is not UTF-8 text.
        ValueError: two files of one name and different suffixes.
        FrameError: on access, a file that can't be read.
    """

    def __init__(self, root: str | os.PathLike[str], split: str | None = None, *, cache: bool = False) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder; expected one with images/ and masks/")
        base, listed = self._choose(split)
        images, masks = frame_folder(base), mask_folder(base)
        if images is None or masks is None:
            raise FileNotFoundError(
                f"{base}: expected a folder of frames ({' or '.join(IMAGE_FOLDERS)}) and one of masks "
                f"({' or '.join(MASK_FOLDERS)}){_split_hint(base)}"
            )
        frames, targets = _by_name(images), _by_name(masks)
        self.names = sorted(frames) if listed is None else listed
        if repeated := len(self.names) - len(set(self.names)):
            self.names = list(dict.fromkeys(self.names))
            warnings.warn(f"{self.root}: {split} names {repeated} frames twice, taken once", stacklevel=2)
        self._files: list[tuple[Path, Path]] = []
        lost: list[str] = []
        for name in self.names:
            mask = mask_of(name, targets)
            if name not in frames or mask is None:
                lost.append(f"{name} ({'frame' if name not in frames else 'mask'})")
            else:
                self._files.append((frames[name], mask))
        if lost:
            raise FileNotFoundError(f"{base}: {len(lost)} of {len(self.names)} entries lack a file: {listing(lost, 5)}")
        if not self._files:
            raise FileNotFoundError(f"{base}: no frames in {images}")
        layout = find_layout(self.root) or find_layout(base)
        assert layout is not None  # frames and masks were found above
        self.layout: Layout = layout
        self._cache: dict[int, tuple[NDArray[np.generic], NDArray[np.bool_]]] | None = {} if cache else None
        self.mismatches: list[SizeMismatch] = []
        self._warned: set[str] = set()
        _warn_of_splits(self.root, split, self.names)

    def _choose(self, split: str | None) -> tuple[Path, list[str] | None]:
        """The folder that holds images/ and masks/, and the names to take from it, `None` for all."""
        if split is None:
            return self.root, None
        if split in available_splits():
            dataset, _, part = split.partition(":")
            return self.root, list(split_names(dataset, part))
        if frame_folder(self.root / split) is not None:
            return self.root / split, None
        return self.root, read_list(find_list(self.root, split))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The sample at `index`; negative counts from the end."""
        index = range(len(self))[index]
        frame_file, mask_file = self._files[index]
        pair = None if self._cache is None else self._cache.get(index)
        if pair is None:
            frame = decode(frame_file)
            height, width = frame.shape[:2]
            pair = frame, self._mask(self.names[index], mask_file, (height, width))
            if self._cache is not None:
                self._cache[index] = pair
        frame, mask = pair
        unit = unit_frame(frame, str(frame_file))
        if frame.dtype in (np.bool_, np.uint8):
            return Sample(self.names[index], unit, mask.copy())
        return RawSample.of(self.names[index], unit, mask.copy(), luminance(frame))

    def _mask(self, name: str, file: Path, shape: Shape) -> NDArray[np.bool_]:
        image = Image.fromarray(read_mask(file))
        if has_grey(np.asarray(image)):
            self._warn("grey", f"{file}: mask has grey values, cut at half of the range")
        if image.size != (shape[1], shape[0]):
            mismatch = SizeMismatch(name, shape, (image.height, image.width))
            self._warn("size", f"{file}: {mismatch.sizes}; resized by nearest")
            if mismatch not in self.mismatches:
                self.mismatches.append(mismatch)
            image = image.resize((shape[1], shape[0]), Image.Resampling.NEAREST)
        mask: NDArray[np.bool_] = np.asarray(image) > 127
        return mask

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"{message} (said once for this data set)", stacklevel=4)


def check_overlap(a: FolderDataset, b: FolderDataset) -> list[str]:
    """Names of the frames that are in both data sets, in the order of `a`.

    Equal names are one frame, wherever the two folders are, but for names that are bare numbers, such as `000012`, in
    different folders: these must be equal files.
    """
    files = dict(zip(b.names, b._files, strict=True))
    return [
        name
        for name, (frame, _) in dict(zip(a.names, a._files, strict=True)).items()
        if name in files and same_frame(name, frame, files[name][0])
    ]


def warn_overlap(train: FolderDataset, test: FolderDataset) -> list[str]:
    """Warns (`UserWarning`) when two data sets share frames, and returns their names, see `check_overlap`."""
    names = check_overlap(train, test)
    if names:
        overlap = Overlap(f"the training set {train.root}", f"the test set {test.root}", tuple(names))
        warnings.warn(f"{overlap}; metrics on this test set will be too good", stacklevel=2)
    return names


def _warn_of_splits(root: Path, split: str | None, names: Sequence[str]) -> None:
    """What is wrong with the folder's lists, said once for the folder, at the caller of `FolderDataset`."""
    for overlap in list_overlaps(root):
        if _first_time(root, str(overlap)):
            warnings.warn(f"{root}: {overlap}, which should have none in common", stacklevel=3)
    known = role(Path(split).name) if split is not None else None
    if known is not None and known[0] in ("train", "trainval") and _first_time(root, f"test frames in {split}"):
        warn_sirst_test_names(names, f"{root}: {split}", stacklevel=4)


def _first_time(root: Path, message: str) -> bool:
    key = (root.resolve(), message)
    first = key not in _WARNED
    _WARNED.add(key)
    return first


def _split_hint(base: Path) -> str:
    names = [folder.name for folder in split_folders(base)] if base.is_dir() else []
    return f"; here are splits in folders, name one of them: {', '.join(names)}" if names else ""


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in frame_files(folder):
        if file.stem in files:
            raise ValueError(f"{folder}: {files[file.stem].name} and {file.name} have one name; keep one of them")
        files[file.stem] = file
    return files
