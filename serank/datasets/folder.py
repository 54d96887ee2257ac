"""Folders of frames and masks, in the layouts this field uses, with the defects they are known to have."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serank.datasets.labels.formats import import_hint
from serank.datasets.layouts import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    Layout,
    Overlap,
    by_name,
    find_layout,
    frame_folder,
    list_overlaps,
    mask_folder,
    mask_of,
    role,
    same_frame,
    split_folders,
    split_list,
)
from serank.datasets.masks import POLARITY, Shape, SizeMismatch, is_inverted, read_mask, resize_mask
from serank.datasets.sample import Sample, Samples
from serank.datasets.soft_targets import find_soft_targets, read_soft_target
from serank.datasets.splits import available_splits, warn_sirst_test_names
from serank.errors import FrameError
from serank.frames.frame import CleanPixels, FramePreparer
from serank.frames.options import FrameOptions
from serank.frames.preparation import FrameSpec
from serank.frames.reading import decode
from serank.frames.sources import frame_files
from serank.utils.text import listing

_Stored = tuple[CleanPixels, NDArray[np.bool_], NDArray[np.uint8] | None]
"""A sample's grey values as stored, its mask and its soft target."""

_WARNED: set[tuple[Path, str]] = set()
"""Folders and what was warned of: training, validation and test set of one are opened one after the other."""


class FolderDataset(Samples[Sample]):
    """Frames and masks in a folder, read on access.

    Layouts, found by what is there:

    - `images/ masks/` with lists `SPLIT.txt`, also in `img_idx/` (as `SPLIT.txt` or `SPLIT_*.txt`) or `idx_427/`;
    - `SPLIT/images/ SPLIT/masks/`;
    - masks named as the frame, `NAME_pixels0.png` (the original SIRST) or `NAME_mask.png`;
    - `IRSTD1k_Img/ IRSTD1k_Label/`.

    A folder without lists can be split by a bundled one: `FolderDataset(root, "sirst:val")` takes the frames of
    SIRST's own validation list; `available_splits` names them all.

    A mask of another size than its frame (SIRST's `Misc_111`) is resized by nearest; one with swapped sides is
    an error. Masks of grey values are cut at half of their largest; each is warned of once per data set, as is a mask
    that is mostly target. Masks of 0 and one other value, of classes and of instances are targets where they aren't 0,
    see `serank.datasets.masks.target_mask`. A name that a list repeats is taken once, with a warning.

    Also warned of (`UserWarning`), once for a folder: lists of it that share frames though they should not (train or
    trainval with test, val with train or test), and a training list with test frames of SIRST's 341/86 split.
    `describe_folder` reports on a whole folder.

    Args:
        root: the folder.
        split: name of a list or sub-folder, such as `"train"`, or of a bundled list, such as `"sirst:train"`; `None`
            takes every frame.
        cache: keep decoded files in memory (as stored, about one byte a pixel for 8-bit frames).
        soft: folder of soft targets, `NAME.png` for each frame: 8-bit grey of the frame's size, 255 for a probability
            of 1, as `serank detect --probability` writes them. A folder that has frames alone, without masks, can be
            trained on with them: its masks then are the pixels above 127.
        options: what is known of the frames, as for `SeRankDet.detect`. Dead pixels are repaired unless it says
            otherwise. Where it hides pixels, without data or ignored, no mask has a target; single pixels and thin
            lines of them are filled in and keep theirs. Nothing can be found in a constant frame, whose targets stay
            and count as missed.

    Attributes:
        names: names of the frames, in the list's order, without suffix.
        mismatches: masks of another size than their frame, among the samples read so far.

    Raises:
        FileNotFoundError: no such folder, split, frame, mask or soft target; the message says what was looked for.
        ValueError: a list that is not UTF-8 text, or two files of one name and different suffixes.
        FrameError: on access, a file that can't be read, or a soft target of another kind or size.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        cache: bool = False,
        soft: str | os.PathLike[str] | None = None,
        options: FrameOptions | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder; expected one with images/ and masks/")
        base, listed = self._choose(split)
        images, masks = frame_folder(base), mask_folder(base)
        unlabelled = soft is not None and masks is None
        if images is None or (masks is None and not unlabelled):
            raise FileNotFoundError(
                f"{base}: expected a folder of frames ({' or '.join(IMAGE_FOLDERS)}) and one of masks "
                f"({' or '.join(MASK_FOLDERS)}){_split_hint(base)}{_labels_hint(self.root)}"
            )
        frames, targets = by_name(frame_files(images)), {} if masks is None else by_name(frame_files(masks))
        self.names = sorted(frames) if listed is None else listed
        if repeated := len(self.names) - len(set(self.names)):
            self.names = list(dict.fromkeys(self.names))
            warnings.warn(f"{self.root}: {split} names {repeated} frames twice, taken once", stacklevel=2)
        self._files: list[tuple[Path, Path | None]] = []
        lost: list[str] = []
        for name in self.names:
            mask = mask_of(name, targets)
            if name not in frames or (mask is None and not unlabelled):
                lost.append(f"{name} ({'frame' if name not in frames else 'mask'})")
            else:
                self._files.append((frames[name], mask))
        if lost:
            raise FileNotFoundError(f"{base}: {len(lost)} of {len(self.names)} entries lack a file: {listing(lost, 5)}")
        if not self._files:
            raise FileNotFoundError(f"{base}: no frames in {images}")
        layout = find_layout(self.root) or find_layout(base)
        assert layout is not None or unlabelled  # frames and masks were found above
        self._layout = layout
        self._soft = None if soft is None else find_soft_targets(Path(soft), self.names)
        self._cache: dict[int, _Stored] | None = {} if cache else None
        self._prepare = FramePreparer(FrameSpec(), options)
        self.mismatches: list[SizeMismatch] = []
        self._warned: set[str] = set()
        _warn_of_splits(self.root, split, self.names)

    def _choose(self, split: str | None) -> tuple[Path, list[str] | None]:
        """The folder that holds images/ and masks/, and the names to take from it, `None` for all."""
        if split is None:
            return self.root, None
        if split in available_splits():
            return self.root, split_list(self.root, split)
        if frame_folder(self.root / split) is not None:
            return self.root / split, None
        if mask_folder(self.root) is None and (hint := _labels_hint(self.root)):
            raise FileNotFoundError(f"{self.root}: no masks in it{hint}")
        return self.root, split_list(self.root, split)

    def subset(self, indices: Iterable[int] | slice) -> FolderDataset:
        """The data set of some samples alone, by their positions, in that order; with a cache of its own."""
        part = copy.copy(self)
        indices = range(len(self))[indices] if isinstance(indices, slice) else indices
        chosen = [self._position(index) for index in indices]
        part.names, part._files = [self.names[i] for i in chosen], [self._files[i] for i in chosen]
        part._soft = None if self._soft is None else [self._soft[i] for i in chosen]
        part._cache = None if self._cache is None else {}
        return part

    @property
    def layout(self) -> Layout:
        """How the folder is laid out; raises ValueError for one without masks."""
        if self._layout is None:
            raise ValueError(f"{self.root}: has no masks, so no layout of a data set")
        return self._layout

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The sample at `index`; negative counts from the end."""
        index = self._position(index)
        frame_file, mask_file = self._files[index]
        stored = None if self._cache is None else self._cache.get(index)
        if stored is None:
            clean = self._prepare.clean(decode(frame_file), str(frame_file), frame_file)
            height, width = clean.values.shape
            soft = None if self._soft is None else read_soft_target(self._soft[index], (height, width))
            if mask_file is not None:
                mask = self._mask(self.names[index], mask_file, (height, width))
            else:
                assert soft is not None  # a folder without masks is opened with soft targets alone
                mask = soft > 127
            if (uncounted := clean.uncounted) is not None:
                mask = mask & ~uncounted
            stored = clean, mask, soft
            if self._cache is not None:
                self._cache[index] = stored
        clean, mask, soft = stored
        copied = None if soft is None else soft.copy()
        hidden = np.ones(mask.shape, np.bool_) if clean.constant else clean.uncounted
        return Sample(self.names[index], self._prepare.scale(clean), mask.copy(), copied, hidden)

    def _mask(self, name: str, file: Path, shape: Shape) -> NDArray[np.bool_]:
        mask, grey, _ = read_mask(file)
        if grey:
            self._warn("grey", f"{file}: mask has grey values, cut at half of the range")
        if is_inverted(mask):
            self._warn("inverted", f"{file}: more than half of the mask is target; inverted? {POLARITY.capitalize()}")
        if mask.shape != shape:
            mismatch = SizeMismatch(name, shape, (mask.shape[0], mask.shape[1]))
            if mismatch.swapped:
                raise FrameError(f"{file}: {mismatch.sizes}")
            self._warn("size", f"{file}: {mismatch.sizes}; resized by nearest")
            if mismatch not in self.mismatches:
                self.mismatches.append(mismatch)
            mask = resize_mask(mask, *shape)
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
    known = role(Path(split).name.removesuffix(".txt")) if split is not None else None
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


def _labels_hint(root: Path) -> str:
    hint = import_hint(root)
    return f"; {hint}" if hint else ""
