"""Frames with boxes and no need of masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.datasets.labels.box_file import BOX_FILE, read_boxes
from serank.datasets.labels.formats import import_hint
from serank.datasets.layouts import frame_folder, named_files, split_list
from serank.datasets.sample import Samples
from serank.frames.frame import FramePreparer
from serank.frames.options import FrameOptions
from serank.frames.preparation import FrameSpec
from serank.frames.reading import decode


class BoxSample(NamedTuple):
    """A frame with its boxes."""

    name: str
    frame: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1]."""
    boxes: NDArray[np.float64]
    """`(M, 4)` float64, x0, y0, x1, y1 in px; x1 and y1 are exclusive."""
    hidden: NDArray[np.bool_] | None = None
    """`(H, W)` bool, pixels where nothing may be found, see `serank.frames.Frame`; `None` for none."""


class BoxFolder(Samples[BoxSample]):
    """Frames in images/ with `boxes.json` beside it, as `serank import` writes it, read on access.

    `boxes.json` maps the names of frames, without suffix, to lists of `[x0, y0, x1, y1]`; a frame with an empty list
    holds no target.

    Args:
        root: the folder.
        split: name of a list, such as `"val"`, or of a bundled one, such as `"sirst:val"`; `None` takes every frame of
            `boxes.json`.
        options: what is known of the frames, as for `SeRankDet.detect`; dead pixels are repaired unless it says
            otherwise.

    Attributes:
        names: of the frames, in the list's order.

    Raises:
        FileNotFoundError: no such folder, list or frame, or no `boxes.json`.
        ValueError: `boxes.json` or the list is broken, or a frame of the list has no entry.
        FrameError: on access, a file that can't be read.
    """

    def __init__(
        self, root: str | os.PathLike[str], split: str | None = None, *, options: FrameOptions | None = None
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder; expected one with images/ and {BOX_FILE}")
        images = frame_folder(self.root)
        file = self.root / BOX_FILE
        if images is None or not file.is_file():
            expected = f"expected frames in images/ and {BOX_FILE}, as `serank import` writes them"
            hint = import_hint(self.root) or expected
            raise FileNotFoundError(f"{self.root}: no boxes to measure by; {hint}")
        boxes = read_boxes(file)
        self.names = list(boxes) if split is None else list(dict.fromkeys(split_list(self.root, split)))
        frames = named_files(images)
        if lost := [name for name in self.names if name not in frames]:
            raise FileNotFoundError(
                f"{images}: lacks {len(lost)} frames, {lost[0]!r} first; add them, or correct the list"
            )
        if unknown := [name for name in self.names if name not in boxes]:
            raise ValueError(
                f"{file}: lacks {len(unknown)} frames of {split}, {unknown[0]!r} first; add them, with [] for no target"
            )
        if not self.names:
            raise ValueError(f"{file}: names no frame; expected at least one")
        self._prepare = FramePreparer(FrameSpec(), options)
        self._frames = [frames[name] for name in self.names]
        self._boxes = [np.array(boxes[name], np.float64).reshape(-1, 4) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> BoxSample:  # type: ignore[override]
        """The sample at `index`; negative counts from the end."""
        index = self._position(index)
        file = self._frames[index]
        frame = self._prepare.prepare(decode(file), str(file), file)
        return BoxSample(self.names[index], frame.grey, self._boxes[index].copy(), frame.hidden)
