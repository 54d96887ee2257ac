"""Scoring a folder of probability maps or masks, of any method, against a data set or a folder of masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from serank.datasets import FolderDataset
from serank.datasets.layouts import MASK_ENDINGS, frame_folder, mask_folder, read_list, split_folders
from serank.datasets.masks import target_mask
from serank.datasets.splits import file_name
from serank.errors import FrameError
from serank.evaluation.evaluator import Evaluator
from serank.evaluation.map_files import MAP_SUFFIXES, MapReader, read_values
from serank.evaluation.resolution import Resolution, check_resolution, resize_mask
from serank.evaluation.results import Evaluation
from serank.frames.preparation import resize
from serank.frames.reading import read_frame
from serank.frames.sources import frame_files
from serank.metrics.checks import Protocol
from serank.utils.text import listing

__all__ = ["Pair", "PredictionFolder", "score_predictions"]


class Pair(NamedTuple):
    """A prediction and what it is measured against, all of one size."""

    name: str
    probability: NDArray[np.float32]
    """`(H, W)` in [0, 1]."""
    mask: NDArray[np.bool_]
    frame: NDArray[np.float32] | None
    """`(H, W)` in [0, 1]; `None` where it isn't known."""


class _SizeError(ValueError):
    """A prediction of another size than its mask."""


@dataclass(frozen=True)
class _Truth:
    """A target mask, read when asked for, and its frame."""

    name: str
    read: Callable[[], tuple[NDArray[np.bool_], NDArray[np.float32] | None]]


class PredictionFolder:
    """Predictions matched by name with the masks that they belong to; see `score_predictions` for the arguments.

    Attributes:
        names: of the frames, in the order of the data set or sorted.
        problems: what is missing, extra or odd, one sentence each; grows as pairs are loaded.

    Raises:
        FileNotFoundError: a folder or a listed mask isn't there.
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
        truths = self._truths(Path(targets), split, None if frames is None else Path(frames))
        if list_file is not None:
            truths = _listed(truths, Path(list_file), targets)
        self._truth = {truth.name: truth for truth in truths}
        self.names = [truth.name for truth in truths]
        self._files = self._match()
        self._reader = MapReader(self._files.values())

    def _truths(self, root: Path, split: str | None, frames: Path | None) -> list[_Truth]:
        """Masks of a data set or of a plain folder."""
        if split is not None or frame_folder(root) is not None or split_folders(_require(root)):
            if frames is not None:
                raise ValueError(f"frames={frames} is for targets that are a plain folder of masks; {root} has its own")
            return _of_dataset(FolderDataset(root, split))
        folder = mask_folder(root) or root
        pictures = {} if frames is None else _by_stem(_require(frames), frame_files(frames))
        truths: dict[str, _Truth] = {}
        for stem, file in _by_stem(folder, _maps(folder)).items():
            name = _frame_name(stem)
            if name in truths:
                raise ValueError(f"{folder}: two masks for {name}, such as {file.name}; keep one of them")
            picture = pictures.get(name, pictures.get(stem))
            if frames is not None and picture is None:
                self._note(f"{name}: no frame in {frames}; its targets have no signal-to-clutter ratio")
            truths[name] = _Truth(name, partial(self._read_truth, file, picture))
        if not truths:
            raise FileNotFoundError(f"{folder}: no masks; expected {_suffixes()} files, or a data set's root")
        return list(truths.values())

    def _read_truth(self, file: Path, picture: Path | None) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        mask, grey = target_mask(read_values(file, colour=True), file)
        if grey:
            self._note(f"{file}: mask has grey values, cut at half of the range")
        frame = None if picture is None else read_frame(picture)
        if frame is not None and frame.shape != mask.shape:
            self._note(f"{picture}: frame is {_size(frame)}, its mask {_size(mask)}; left out")
            frame = None
        return mask, frame

    def _match(self) -> dict[str, Path]:
        """The file of each frame that has one; notes the missing and the extra."""
        files = _by_stem(_require(self.folder), _maps(self.folder))
        found: dict[str, Path] = {}
        for name in self.names:
            stem = next((name + ending for ending in MASK_ENDINGS if name + ending in files), None)
            if stem is None:
                self._note(f"{name}: no prediction in {self.folder}; counted as an empty map")
            else:
                found[name] = files[stem]
        used = set(found.values())
        if not used:
            raise ValueError(
                f"{self.folder}: no prediction for any of {len(self.names)} frames. They are named by the frames, such "
                f"as {self.names[0]}.png ({_suffixes()}); "
                f"found {listing([p.name for p in files.values()], 5) or 'none'}"
            )
        for path in sorted(p for p in self.folder.iterdir() if not p.name.startswith(".") and p not in used):
            self._note(f"{path}: extra, belongs to none of the frames measured; not used")
        return found

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def load(self, name: str) -> Pair:
        """The pair of a frame, at the resolution measured.

        Raises:
            KeyError: no frame of this name.
            ValueError: the prediction has another size and `resize` is off.
            serank.errors.FrameError: a file that can't be read, or values out of range.
        """
        mask, frame = self._truth[name].read()
        size = mask.shape if self.resolution == "native" else (self.resolution, self.resolution)
        if name in self._files:
            file = self._files[name]
            probability = self._reader.read(file)
            if probability.shape not in (mask.shape, size):
                message = f"{file}: map is {_size(probability)}, expected {_size(mask)}"
                if not self.resize:
                    raise _SizeError(message)
                if probability.shape == mask.shape[::-1]:
                    raise FrameError(f"{message}: its sides are swapped; turn it before it is measured")
                self._note(f"{message}; resized bilinearly")
        else:
            probability = np.zeros(size, np.float32)
        if frame is not None:
            frame = resize(frame, *size)
        probability = np.clip(resize(probability, *size), 0, 1)  # bilinear weights may leave [0, 1] by rounding
        return Pair(name, probability, resize_mask(mask, *size), frame)

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
        """Measures all pairs; arguments as for `score_predictions`."""
        evaluator = Evaluator(threshold, max_distance, protocol, curves=curves, thresholds=thresholds)
        wrong: list[str] = []
        for name in tqdm(self.names, disable=not progress, unit="frame"):
            try:
                pair = self.load(name)
            except _SizeError as error:
                wrong.append(str(error))
                continue
            evaluator.update(name, pair.probability, pair.mask, pair.frame)
        if wrong:
            listed = "\n  ".join([*wrong, *self.problems])  # all that is wrong, to be mended in one go
            raise ValueError(
                f"{len(wrong)} of {len(self.names)} predictions have another size than their masks:\n  {listed}\n"
                "Write them at the frames' own size, or pass resize=True (--resize) to resize them bilinearly"
            )
        self._check_depth()
        return evaluator.result(resolution=self.resolution, problems=self.problems)

    def _check_depth(self) -> None:
        if 1 < self._reader.highest.get(16, 0) <= 255:
            self._note(
                f"{self.folder}: 16-bit files with values up to {self._reader.highest[16]} only, read as shares of "
                "65535; save them with 8 bits if they go to 255"
            )


def score_predictions(
    predictions: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    split: str | None = None,
    list_file: str | os.PathLike[str] | None = None,
    frames: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    max_distance: float = 3.0,
    protocol: Protocol = "standard",
    resolution: Resolution = "native",
    resize: bool = False,
    curves: bool = True,
    thresholds: ArrayLike | None = None,
    progress: bool = False,
) -> Evaluation:
    """Scores the output of any method, so that methods can be compared under one definition.

    A prediction is found by the name of its frame, with any of the suffixes below and also with the endings that masks
    have (`_pixels0`, `_mask`). What is missing, extra or resized is listed in `Evaluation.problems`: a frame without a
    prediction counts as an empty map.

    Args:
        predictions: folder of maps or masks, not of its sub-folders: PNG, BMP, TIFF or JPEG of 8 bits (0 to 255) or 16
            bits (0 to 65535), masks of 0 and 1 (where no file exceeds 1), NPY (floats in [0, 1], bool, uint8, uint16),
            or MAT up to v7 with one two-dimensional variable.
        targets: root of a data set (see `serank.datasets.FolderDataset`), or a folder of masks in any of these formats.
        split: of the data set, such as `"val"`; `None` takes every frame.
        list_file: text file with a name on each line; only these are measured, in this order.
        frames: folder of the frames, for signal-to-clutter ratios, where `targets` is a plain folder of masks.
        threshold: probability above which a pixel is predicted, in [0, 1].
        max_distance: as for `serank.evaluation.evaluate`, and so are `protocol`, `curves`, `thresholds` and `progress`.
        protocol: `"standard"` or `"released"`.
        resolution: `"native"` measures at the masks' own size. A side S >= 32 px resizes maps bilinearly and masks by
            nearest to S x S; maps may then be S x S already.
        resize: resize predictions of another size bilinearly, and list them, instead of raising.
        curves: count ROC and Pd-Fa curves too.
        thresholds: of the curves.
        progress: show a bar.

    Returns:
        The metrics, as `serank.evaluation.evaluate` gives them.

    Raises:
        FileNotFoundError: a folder, list or listed mask isn't there.
        ValueError: predictions of another size, two files of one name, no prediction for any frame, or an argument out
            of its range.
        serank.errors.FrameError: a file that can't be read, or values out of range (such as logits); names the file
            and the fix.
    """
    folder = PredictionFolder(
        predictions, targets, split=split, list_file=list_file, frames=frames, resolution=resolution, resize=resize
    )
    return folder.score(
        threshold=threshold,
        max_distance=max_distance,
        protocol=protocol,
        curves=curves,
        thresholds=thresholds,
        progress=progress,
    )


def _of_dataset(dataset: FolderDataset) -> list[_Truth]:
    def reader(index: int) -> Callable[[], tuple[NDArray[np.bool_], NDArray[np.float32] | None]]:
        def read() -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
            sample = dataset[index]
            return sample.mask, sample.frame

        return read

    return [_Truth(name, reader(i)) for i, name in enumerate(dataset.names)]


def _listed(truths: Sequence[_Truth], file: Path, targets: str | os.PathLike[str]) -> list[_Truth]:
    """The entries that a list names, in its order."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such list; expected a text file with a name on each line")
    by_name = {truth.name: truth for truth in truths}
    names = [name if name in by_name else _frame_name(name) for name in read_list(file)]
    if lost := [name for name in names if name not in by_name]:
        raise FileNotFoundError(
            f"{file}: {len(lost)} of {len(names)} names have no mask in {targets}: {listing(lost, 5)}"
        )
    return [by_name[name] for name in dict.fromkeys(names)]


def _frame_name(stem: str) -> str:
    """The name of a mask's frame: the stem without the mask ending, such as `_mask`."""
    ending = next((e for e in MASK_ENDINGS if e and stem.endswith(e)), "")
    return stem.removesuffix(ending)


def _require(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return folder


def _maps(folder: Path) -> list[Path]:
    found = (p for p in folder.iterdir() if p.suffix.lower() in MAP_SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def _by_stem(folder: Path, files: Sequence[Path]) -> Mapping[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        if file_name(file) in named:
            raise ValueError(f"{folder}: {named[file_name(file)].name} and {file.name} have one name; keep one of them")
        named[file_name(file)] = file
    return named


def _size(array: NDArray[np.generic]) -> str:
    height, width = array.shape
    return f"{height}x{width}"


def _suffixes() -> str:
    return ", ".join(sorted(MAP_SUFFIXES))
