"""BMP files of whole rows. Run lengths are refused, since a few bytes of them can claim any size."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile

from serank.errors import FrameError
from serank.frames.held import HeldFile, check_pixel_count
from serank.frames.pillow_images import image_pixels

BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS = 0, 3, 6


def read_bmp(held: HeldFile) -> NDArray[Any]:
    """The pixels, `(H, W)` or `(H, W, 3)` uint8.

    Raises:
        FrameError: a damaged file, one that holds fewer rows than it declares, run lengths, or too many pixels.
    """
    name = held.name
    start, header = struct.unpack("<II", held.read(10, 8))
    if header == 12:
        width, height, _, bits = struct.unpack("<HHHH", held.read(18, 8))
        compression = BI_RGB
    else:
        width, height, _, bits, compression = struct.unpack("<iiHHI", held.read(18, 16))
    check_pixel_count(width, abs(height), name)
    if compression not in (BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS):
        raise FrameError(f"{name}: BMP compressed by run lengths can't be read; save it as PNG")
    held.read(start, 0 if height == 0 else (width * bits + 31) // 32 * 4 * abs(height))
    held.stream.seek(0)
    with BmpImageFile(held.stream) as image:
        return np.array(image_pixels(image, name))
