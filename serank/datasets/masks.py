"""Masks as files hold them (0/1, 0/255, grey, colour, 16 bits), and the defects that they are checked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.preparation import unit_frame
from serank.frames.reading import decode

__all__ = ["POLARITY", "Shape", "SizeMismatch", "grey_mask", "has_grey", "is_inverted", "read_mask"]

Shape = tuple[int, int]

POLARITY = "targets must be bright (1 or 255) on black"
"""What masks without a target, or with little else, are reported with."""

KNOWN_MISMATCH = "Misc_111"
"""SIRST's one frame whose published mask has another size."""


@dataclass(frozen=True)
class SizeMismatch:
    """A mask of another size than its frame; sizes are (height, width) in pixels."""

    name: str
    frame: Shape
    mask: Shape

    @property
    def known(self) -> bool:
        """Whether this is the published defect of SIRST."""
        return self.name == KNOWN_MISMATCH

    @property
    def sizes(self) -> str:
        """Both sizes in words."""
        return "mask is {} x {}, its frame {} x {}".format(*self.mask, *self.frame)

    def __str__(self) -> str:
        return f"{self.name}: {self.sizes}{' (the known defect of SIRST, resized by nearest)' if self.known else ''}"


def read_mask(file: Path) -> NDArray[np.uint8]:
    """The mask in a file as `grey_mask` gives it.

    Raises:
        FrameError: a file that can't be read, or values that are NaN or infinite.
    """
    return grey_mask(decode(file), file)


def grey_mask(array: NDArray[np.generic], file: Path) -> NDArray[np.uint8]:
    """Any stored mask as 8-bit grey, 255 for a full target; 0/1 masks are stretched.

    Args:
        array: a mask as decoded, `(H, W)` or `(H, W, 3)`, any type of number.
        file: where it came from, for errors.

    Returns:
        `(H, W)` uint8; a pixel is a target above 127.

    Raises:
        FrameError: values that are NaN or infinite.
    """
    if array.dtype == np.uint8:
        grey: NDArray[np.uint8] = np.rint(unit_frame(array, str(file)) * 255).astype(np.uint8)
        return grey * np.uint8(255) if grey.max() == 1 else grey
    # not `unit_frame`, whose robust range would dim a mask's targets or make a full one empty
    if not np.isfinite(array).all():
        raise FrameError(f"{file}: mask has values that are NaN or infinite")
    values = array.astype(np.float64)
    grey = np.rint(np.clip(values / max(values.max(), 1.0), 0, 1) * 255).astype(np.uint8)
    return grey


def has_grey(grey: NDArray[Any]) -> bool:
    """Whether a mask from `grey_mask` has other values than 0 and 255."""
    return not np.isin(grey, (0, 255)).all()


def is_inverted(mask: NDArray[np.bool_]) -> bool:
    """Whether more than half of the pixels are target, as in a mask with dark targets on white."""
    return bool(mask.mean() > 0.5)
