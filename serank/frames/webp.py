"""WebP files: what they declare is checked here, the pixels are Pillow's."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import features

from serank.errors import FrameError
from serank.frames.held import HeldFile, check_pixel_count
from serank.frames.orientation import exif_orientation, upright
from serank.frames.pillow_images import image_pixels


def read_webp(held: HeldFile) -> NDArray[Any]:
    """The pixels of a WebP file, `(H, W, 3)` uint8, alpha dropped.

    Raises:
        FrameError: a damaged file, an animation, too many pixels, or a Pillow without WebP.
    """
    name = held.name
    if not features.check("webp"):
        raise FrameError(f"{name}: this Pillow is built without WebP; install one with it, or save the file as PNG")
    (size,) = struct.unpack("<I", held.read(4, 4))
    held.read(0, 8 + size)
    kind, head = held.read(12, 4), held.read(20, 10)
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (4, 7))
        if head[0] & 2:
            raise FrameError(f"{name}: an animation; save its frames as single files, a TIFF file or a video")
    elif kind == b"VP8L":
        packed = int.from_bytes(head[1:5], "little")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[6:10]))
    check_pixel_count(width, height, name)
    from PIL.WebPImagePlugin import WebPImageFile

    held.stream.seek(0)
    with WebPImageFile(held.stream) as image:
        if image.size != (width, height):
            raise FrameError(f"{name}: truncated or corrupt (its parts declare different sizes)")
        return upright(np.array(image_pixels(image, name)), exif_orientation(image.info.get("exif")))
