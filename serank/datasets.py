"""Folders of frames and masks, in the layouts this field uses, with the defects they are known to have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames import FRAME_SUFFIXES, decode, frame_files, unit_frame

__all__ = ["FolderDataset", "Sample", "grey_statistics"]

IMAGE_FOLDERS = ("images", "IRSTD1k_Img")
MASK_FOLDERS = ("masks", "IRSTD1k_Label")
MASK_ENDINGS = ("", "_pixels0", "_mask")
LIST_FOLDERS = ("", "img_idx", "idx_427", "idx_320")


class Sample(NamedTuple):
    """A frame with its mask."""

    name: str
    frame: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1]."""
    mask: NDArray[np.bool_]
    """`(H, W)` bool, true on targets."""


class FolderDataset(Sequence[Sample]):
    """Frames and masks in a folder, read on access.

    Layouts, found by what is there:

    - `images/ masks/` with lists `SPLIT.txt`, also in `img_idx/` (as `SPLIT.txt` or `SPLIT_*.txt`) or `idx_427/`;
    - `SPLIT/images/ SPLIT/masks/`;
    - masks named as the frame, `NAME_pixels0.png` (the original SIRST) or `NAME_mask.png`;
    - `IRSTD1k_Img/ IRSTD1k_Label/`.

    A mask of another size than its frame (SIRST's `Misc_111`) is resized by nearest; masks of grey values are cut at
    half of their range (to 255 for 8 bits, else to the larger of 1 and their maximum); each is warned of once per
    data set. Masks of 0 and 1 are targets where they are 1.

    Args:
        root: the folder.
        split: name of a list or sub-folder, such as `"train"`; `None` takes every frame.
        cache: keep decoded files in memory (as stored, about one byte a pixel for 8-bit frames).

    Attributes:
        names: names of the frames, in the list's order, without suffix.

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
        base = self.root
        listed: list[str] | None = None
        if split is not None:
            if _folder(self.root / split, IMAGE_FOLDERS) is not None:
                base = self.root / split
            else:
                listed = _read_list(_find_list(self.root, split))
        images, masks = _folder(base, IMAGE_FOLDERS), _folder(base, MASK_FOLDERS)
        if images is None or masks is None:
            raise FileNotFoundError(
                f"{base}: expected a folder of frames ({' or '.join(IMAGE_FOLDERS)}) and one of masks "
                f"({' or '.join(MASK_FOLDERS)})"
            )
        frames, targets = _by_name(images), _by_name(masks)
        self.names = sorted(frames) if listed is None else listed
        self._files: list[tuple[Path, Path]] = []
        lost: list[str] = []
        for name in self.names:
            mask = next((targets[name + e] for e in MASK_ENDINGS if name + e in targets), None)
            if name not in frames or mask is None:
                lost.append(f"{name} ({'frame' if name not in frames else 'mask'})")
            else:
                self._files.append((frames[name], mask))
        if lost:
            shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
            raise FileNotFoundError(f"{base}: {len(lost)} of {len(self.names)} entries lack a file: {shown}")
        if not self._files:
            raise FileNotFoundError(f"{base}: no frames in {images}")
        self._cache: dict[int, tuple[NDArray[np.generic], NDArray[np.bool_]]] | None = {} if cache else None
        self._warned: set[str] = set()

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
            pair = frame, self._mask(mask_file, frame.shape[:2])
            if self._cache is not None:
                self._cache[index] = pair
        frame, mask = pair
        return Sample(self.names[index], unit_frame(frame, str(frame_file)), mask.copy())

    def _mask(self, file: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        image = Image.fromarray(_grey_mask(decode(file), file))
        if not np.isin(np.asarray(image), (0, 255)).all():
            self._warn("grey", f"{file}: mask has grey values, cut at half of the range")
        if image.size != (shape[1], shape[0]):
            self._warn("size", f"{file}: mask is {image.size[::-1]}, its frame {shape}; resized by nearest")
            image = image.resize((shape[1], shape[0]), Image.Resampling.NEAREST)
        mask: NDArray[np.bool_] = np.asarray(image) > 127
        return mask

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"{message} (said once for this data set)", stacklevel=4)


def grey_statistics(samples: Sequence[Sample]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, three digits, as `SeRankDet` takes them.

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("samples is empty; expected at least one frame")
    count, total, squares = 0, 0.0, 0.0
    for i in range(len(samples)):
        frame = samples[i].frame.astype(np.float64)
        count, total, squares = count + frame.size, total + frame.sum(), squares + (frame**2).sum()
    mean = total / count
    return round(mean, 3), max(round(float(np.sqrt(max(squares / count - mean**2, 0.0))), 3), 1e-3)


def _grey_mask(array: NDArray[np.generic], file: Path) -> NDArray[np.uint8]:
    """Any stored mask as 8-bit grey, 255 for a full target; 0/1 masks are stretched."""
    if array.dtype == np.uint8:
        grey: NDArray[np.uint8] = np.rint(unit_frame(array, str(file)) * 255).astype(np.uint8)
        return grey * np.uint8(255) if grey.max() == 1 else grey
    # not `unit_frame`, whose robust range would dim a mask's targets or make a full one empty
    if not np.isfinite(array).all():
        raise FrameError(f"{file}: mask has values that are NaN or infinite")
    values = array.astype(np.float64)
    grey = np.rint(np.clip(values / max(values.max(), 1.0), 0, 1) * 255).astype(np.uint8)
    return grey


def _folder(base: Path, names: Sequence[str]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in frame_files(folder):
        if file.stem in files:
            raise ValueError(f"{folder}: {files[file.stem].name} and {file.name} have one name; keep one of them")
        files[file.stem] = file
    return files


def _find_list(root: Path, split: str) -> Path:
    for folder in LIST_FOLDERS:
        exact = root / folder / f"{split}.txt"
        if exact.is_file():
            return exact
        if (root / folder).is_dir() and folder:
            started = [p for p in (root / folder).glob("*.txt") if p.stem.startswith(f"{split}_")]
            if len(started) == 1:
                return started[0]
    known = sorted(str(p.relative_to(root)) for f in LIST_FOLDERS for p in (root / f).glob("*.txt"))
    raise FileNotFoundError(
        f"{root}: no split {split!r}: neither a folder {split}/images nor a list {split}.txt; "
        f"lists found: {', '.join(known) or 'none'}"
    )


def _read_list(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows editors begin the file with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: the list is not UTF-8 text ({error}); save it as UTF-8") from None
    lines = (line.strip() for line in text.splitlines())
    names = [Path(line).stem if Path(line).suffix.lower() in FRAME_SUFFIXES else line for line in lines if line]
    if not names:
        raise FileNotFoundError(f"{file}: the list is empty")
    return names
