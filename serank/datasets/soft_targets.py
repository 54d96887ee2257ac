"""Soft targets: probability maps of frames, as files beside a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serank.datasets.masks import Shape
from serank.datasets.splits import file_name
from serank.errors import FrameError
from serank.frames.reading import decode
from serank.utils.text import listing


def find_soft_targets(folder: Path, names: Sequence[str]) -> list[Path]:
    """The file `NAME.png` of each name; other files of the folder don't matter.

    Raises:
        FileNotFoundError: no such folder, or names without a file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of soft targets; serank detect --probability writes one")
    there = {file_name(file): file for file in folder.glob("*.png")}
    if lost := [name for name in names if name not in there]:
        raise FileNotFoundError(
            f"{folder}: {len(lost)} of {len(names)} frames lack a soft target NAME.png: {listing(lost, 5)}"
        )
    return [there[name] for name in names]


def read_soft_target(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """A map `(H, W)` of 0 to 255.

    Args:
        file: 8-bit grey.
        shape: of its frame.

    Raises:
        FrameError: a file that can't be read, is no 8-bit grey picture, or has another size.
    """
    values = decode(file)
    if values.dtype != np.uint8 or values.ndim != 2:
        raise FrameError(f"{file}: holds {values.dtype} of shape {values.shape}; a soft target is 8-bit grey (H, W)")
    if values.shape != shape:
        sizes = "{} x {}, its frame {} x {}".format(*values.shape, *shape)
        raise FrameError(f"{file}: soft target is {sizes}; write it anew with serank detect --probability")
    return values.astype(np.uint8)
