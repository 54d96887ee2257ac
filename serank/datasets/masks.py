"""Masks as they are found in files: 0/1, 0/255, grey, colour, 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.preparation import unit_frame

__all__ = ["grey_mask", "has_grey"]


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
