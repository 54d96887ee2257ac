"""Scoring a folder of probability maps or masks, of any method, against a data set or a folder of masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from serank.datasets.folder import FolderDataset
from serank.datasets.layouts import MASK_ENDINGS, by_name, frame_folder, mask_folder, mask_of, read_list, split_folders
from serank.datasets.masks import resize_mask, target_mask
from serank.errors import FrameError
from serank.evaluation.evaluator import Evaluator
from serank.evaluation.map_files import MAP_SUFFIXES, MapReader, read_values
from serank.evaluation.resolution import Resolution, check_resolution
from serank.evaluation.results import Evaluation, FrameView
from serank.frames.preparation import resize
from serank.frames.reading import FRAME_SUFFIXES, read_frame
from serank.metrics.checks import Protocol
from serank.utils.text import listing

Truth: TypeAlias = "tuple[NDArray[np.bool_], NDArray[np.float32] | None]"
"""A mask and, where it is known, its frame."""
SUFFIXES = ", ".join(sorted(MAP_SUFFIXES))
MISSING_SHOWN = 5
"""Frames without a prediction that are named; the others are counted."""


class _SizeError(ValueError):
    """A prediction of another size than its mask."""


class PredictionFolder:
    """The output of any method, matched with the masks it belongs to, so that methods compare under one definition.

    A prediction is found by the name of its frame, with any of the suffixes below and also with the endings that masks
    have (`_pixels0`, `_mask`). A frame without a prediction counts as an empty map.

    Args:
        predictions: folder of maps or masks, not of its sub-folders: PNG, BMP, TIFF or JPEG of 8 bits (0 to 255) or 16
            bits (0 to 65535), masks of 0 and 1 (where no file exceeds 1; `problems` then says so), NPY (floats in
            [0, 1], bool, uint8, uint16), or MAT up to v7 with one two-dimensional variable.
        targets: root of a data set (see `serank.datasets.FolderDataset`), or a folder of masks in any of these formats.
        split: of the data set, such as `"val"`; `None` takes every frame.
        list_file: text file with a name on each line; only these are measured, in this order.
        frames: folder of the frames, for signal-to-clutter ratios, where `targets` is a plain folder of masks.
        resolution: `"native"` measures at the masks' own size. A side S >= 32 px resizes maps bilinearly and masks by
            nearest to S x S; maps may then be S x S already.
        resize: resize predictions of another size bilinearly, and list them, instead of raising.

    Attributes:
        names: of the frames, in the order of the data set or sorted.
        problems: what is missing, extra or odd, one sentence each; grows as pairs are loaded.

    Raises:
        FileNotFoundError: a folder, list or listed mask isn't there.
        ValueError: two files of one name, no prediction for any frame, or an argument out of its range.
    """

    def __init__(
        self,
        predictions: str | os.PathLike[str],
        targets: str | os.PathLike[str],
        *,
        split: str | None = None,
        list_file: str | os.PathLike[str] | None = None,
        frames: str | os.PathLike[str] | None = None,
        resolution: Resolution = "native",
        resize: bool = False,
    ) -> None:
        self.folder, self.resolution, self.resize = Path(predictions), check_resolution(resolution), resize
        self.problems: list[str] = []
        self._truths = self._find_truths(Path(targets), split, None if frames is None else Path(frames))
        self.names = list(self._truths) if list_file is None else self._listed(Path(list_file), targets)
        self._files = self._match()
        self._reader = MapReader(self._files.values())

    def _find_truths(self, root: Path, split: str | None, frames: Path | None) -> dict[str, Callable[[], Truth]]:
        """What reads each mask of a data set or of a plain folder, by the name of its frame."""
        if split is not None or frame_folder(root) is not None or split_folders(_require(root)):
            if frames is not None:
                raise ValueError(f"frames={frames} is for targets that are a plain folder of masks; {root} has its own")
            dataset = FolderDataset(root, split)
            return {name: partial(_read_sample, dataset, i) for i, name in enumerate(dataset.names)}
        folder = mask_folder(root) or root
        pictures = {} if frames is None else _by_stem(frames, FRAME_SUFFIXES)
        truths: dict[str, Callable[[], Truth]] = {}
        for stem, file in _by_stem(folder, MAP_SUFFIXES).items():
            name = _frame_name(stem)
            if name in truths:
                raise ValueError(f"{folder}: two masks for {name}, such as {file.name}; keep one of them")
            picture = pictures.get(name, pictures.get(stem))
            if frames is not None and picture is None:
                self._note(f"{name}: no frame in {frames}; its targets have no signal-to-clutter ratio")
            truths[name] = partial(self._read_truth, file, picture)
        if not truths:
            raise FileNotFoundError(f"{folder}: no masks; expected {SUFFIXES} files, or a data set's root")
        return truths

    def _read_truth(self, file: Path, picture: Path | None) -> Truth:
        mask, grey, _ = target_mask(read_values(file, colour=True), file)
        if grey:
            self._note(f"{file}: mask has grey values, cut at half of the range")
        frame = None if picture is None else read_frame(picture)
        if frame is not None and frame.shape != mask.shape:
            self._note(f"{picture}: frame is {_size(frame)}, its mask {_size(mask)}; left out")
            frame = None
        return mask, frame

    def _listed(self, file: Path, targets: str | os.PathLike[str]) -> list[str]:
        """The frames that a list names, in its order."""
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such list; expected a text file with a name on each line")
        names = [name if name in self._truths else _frame_name(name) for name in read_list(file)]
        if lost := [name for name in names if name not in self._truths]:
            raise FileNotFoundError(
                f"{file}: {len(lost)} of {len(names)} names have no mask in {targets}: {listing(lost, 5)}"
            )
        return list(dict.fromkeys(names))

    def _match(self) -> dict[str, Path]:
        """The file of each frame that has one; notes the missing and the extra."""
        files = _by_stem(self.folder, MAP_SUFFIXES)
        found = {name: file for name in self.names if (file := mask_of(name, files)) is not None}
        if not found:
            raise ValueError(
                f"{self.folder}: no prediction for any of {len(self.names)} frames. They are named by the frames, such "
                f"as {self.names[0]}.png ({SUFFIXES}); "
                f"found {listing([p.name for p in files.values()], 5) or 'none'}"
            )
        missing = [name for name in self.names if name not in found]
        for name in missing[:MISSING_SHOWN]:
            self._note(f"{name}: no prediction in {self.folder}; counted as an empty map")
        if len(missing) > MISSING_SHOWN:
            self._note(f"{self.folder}: has none for {len(missing)} of {len(self.names)} frames; a list takes fewer")
        used = set(found.values())
        for path in sorted(p for p in self.folder.iterdir() if not p.name.startswith(".") and p not in used):
            self._note(f"{path}: extra, belongs to none of the frames measured; not used")
        return found

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def load(self, name: str) -> FrameView:
        """The arrays of a frame, at the resolution measured.

        Raises:
            KeyError: no frame of this name.
            ValueError: the prediction has another size and `resize` is off.
            serank.errors.FrameError: a file that can't be read, or values out of range.
        """
        mask, frame = self._truths[name]()
        size = mask.shape if self.resolution == "native" else (self.resolution, self.resolution)
        probability = np.zeros(size, np.float32)
        if name in self._files:
            probability = self._reader.read(self._files[name])
            if probability.shape not in (mask.shape, size):
                message = f"{self._files[name]}: map is {_size(probability)}, expected {_size(mask)}"
                if not self.resize:
                    raise _SizeError(message)
                if probability.shape == mask.shape[::-1]:
                    raise FrameError(f"{message}: its sides are swapped; turn it before it is measured")
                self._note(f"{message}; resized bilinearly")
        probability = np.clip(resize(probability, *size), 0, 1)  # bilinear weights may leave [0, 1] by rounding
        return FrameView(None if frame is None else resize(frame, *size), probability, resize_mask(mask, *size))

    def score(
        self,
        *,
        threshold: float = 0.5,
        max_distance: float = 3.0,
        protocol: Protocol = "standard",
        curves: bool = True,
        thresholds: ArrayLike | None = None,
        progress: bool = False,
    ) -> Evaluation:
        """Measures all frames; arguments and result as `serank.evaluation.evaluate`, `problems` among it.

        Raises:
            ValueError: predictions of another size, or an argument out of its range.
            serank.errors.FrameError: a file that can't be read, or values out of range (such as logits); names the
                file and the fix.
        """
        evaluator = Evaluator(threshold, max_distance, protocol, curves=curves, thresholds=thresholds)
        wrong: list[str] = []
        for name in tqdm(self.names, disable=not progress, unit="frame"):
            try:
                frame, probability, mask = self.load(name)
            except _SizeError as error:
                wrong.append(str(error))
                continue
            evaluator.update(name, probability, mask, frame)
        if wrong:
            listed = "\n  ".join([*wrong, *self.problems])  # all that is wrong, to be mended in one go
            raise ValueError(
                f"{len(wrong)} of {len(self.names)} predictions have another size than their masks:\n  {listed}\n"
                "Write them at the frames' own size, or pass resize=True (--resize) to resize them bilinearly"
            )
        if 1 < (highest := self._reader.highest.get(16, 0)) <= 255:
            self._note(
                f"{self.folder}: 16-bit files with values up to {highest} only, read as shares of 65535; "
                "save them with 8 bits if they go to 255"
            )
        if self._reader.taken_as_masks:
            self._note(
                f"{self.folder}: no file exceeds 1: read as masks of 0 and 1; save probabilities as floats if that is "
                "what they are"
            )
        return evaluator.result(resolution=self.resolution, problems=self.problems)


def _read_sample(dataset: FolderDataset, index: int) -> Truth:
    sample = dataset[index]
    return sample.mask, sample.frame


def _frame_name(stem: str) -> str:
    """The name of a mask's frame: the stem without the mask ending, such as `_mask`."""
    ending = next((e for e in MASK_ENDINGS if e and stem.endswith(e)), "")
    return stem.removesuffix(ending)


def _require(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return folder


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """The visible files of a folder by their names without suffix, sorted."""
    files = (file for file in sorted(_require(folder).iterdir()) if file.suffix.lower() in suffixes)
    return by_name(file for file in files if not file.name.startswith(".") and file.is_file())


def _size(array: NDArray[np.generic]) -> str:
    return "{}x{}".format(*array.shape)
