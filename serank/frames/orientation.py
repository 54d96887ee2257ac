"""The Orientation tag of TIFF and EXIF: pixels are turned as every viewer shows them.

Its values 1 to 8 say which sides of the picture the first row and column are.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.held import HeldFile
from serank.frames.tiff_tags import Tag, TiffTags


def exif_orientation(exif: bytes | None) -> int:
    """The orientation in EXIF data, 1 (upright) where there is none or the data are damaged.

    Args:
        exif: with or without the mark `Exif`, which JPEG puts first.
    """
    if not exif:
        return 1
    try:
        tags = TiffTags(HeldFile(io.BytesIO(exif.removeprefix(b"Exif\0\0")), "EXIF"))
        return next(iter(tags)).number(Tag.ORIENTATION, 1)
    except FrameError:
        return 1  # damaged metadata don't make pixels wrong, and other programs show the file as it is stored


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns and mirrors `(H, W, ...)` as an orientation says; 5 to 8 swap the sides, numbers beyond 8 do nothing."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
