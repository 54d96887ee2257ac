"""Pixels of PIL images, values as stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.held import check_pixel_count
from serank.frames.tiff_tags import Tag


def image_pixels(image: Image.Image, name: str) -> NDArray[Any]:
    """The pixels of a PIL image; palettes are looked up, alpha is dropped.

    Args:
        image: of any mode; loaded if it isn't.
        name: what errors call it.

    Returns:
        `(H, W)` or `(H, W, 3)`; uint8, uint16, int32 or float32.

    Raises:
        FrameError: too many pixels, or values that Pillow reads with loss or wrongly.
    """
    check_pixel_count(*image.size, name)
    _check_trusted(image, name)
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        indices = np.asarray(image)
        indices = indices[..., 0] if image.mode == "PA" else indices
        return look_up(indices, palette, name)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    elif image.mode in ("CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    pixels: NDArray[Any] = np.asarray(image)
    if image.mode == "I" and (stored := _stored_type(image)):
        pixels = pixels.astype(stored)
    if image.mode == "LA":
        pixels = pixels[..., 0]
    elif image.mode in ("RGBA", "RGBX"):
        pixels = pixels[..., :3]
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def look_up(indices: NDArray[Any], colours: NDArray[np.uint8], name: str) -> NDArray[Any]:
    """The colours `(H, W, 3)` of indices `(H, W)` into a palette `(N, 3)`; raises FrameError where it lacks one."""
    if not len(colours) or indices.max() >= len(colours):
        raise FrameError(f"{name}: truncated or corrupt (colours that its palette lacks)")
    looked_up: NDArray[Any] = colours[indices]
    return looked_up


def _stored_type(image: Image.Image) -> type[np.integer[Any]] | None:
    """The 16-bit type of a file whose values Pillow widens to 32 bits; `None` for what has 32."""
    if image.format == "PPM":
        return np.uint16
    tags = getattr(image, "tag_v2", None)
    return np.int16 if tags is not None and tags.get(Tag.BITS_PER_SAMPLE) == (16,) else None


def _check_trusted(image: Image.Image, name: str) -> None:
    """Refuses images opened from files that Pillow reads wrongly, and that are read right by their path."""
    # the tile says how the file stores its pixels; Pillow has no 16-bit colour and would drop the low bytes
    tiles = getattr(image, "tile", None) or ()
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[-1]) for tile in tiles):
        raise FrameError(
            f"{name}: Pillow drops the low bytes of 16-bit colour; pass the file's path instead of the image"
        )
    if image.mode == "I" and any(t[0] in ("ppm", "ppm_plain") and 65535 not in t[-1] for t in tiles):
        raise FrameError(f"{name}: Pillow stretches these values to 16 bits; pass the file's path instead of the image")
    tags = getattr(image, "tag_v2", None)
    if tags is None or not tiles:
        return
    wide = image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
    inverted, form = tags.get(Tag.PHOTOMETRIC_INTERPRETATION) == 0, tags.get(Tag.SAMPLE_FORMAT, (1,))[:1]
    if tags.get(Tag.ORIENTATION, 1) != 1 or (wide and (inverted or (form == (1,) and image.mode == "I"))):
        raise FrameError(f"{name}: Pillow reads this TIFF file wrongly; pass the file's path instead of the image")
    if image.mode == "L" and form == (2,):
        raise FrameError(
            f"{name}: Pillow reads these signed values as unsigned; pass the file's path instead of the image"
        )
