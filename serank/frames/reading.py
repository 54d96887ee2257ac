"""Image files, PIL images, arrays and tensors to frames."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serank.errors import FrameError
from serank.frames.preparation import Array, unit_frame

__all__ = [
    "FRAME_SUFFIXES",
    "MAX_PIXELS",
    "FrameLike",
    "count_pages",
    "decode",
    "decode_pages",
    "read_frame",
    "read_pixels",
]

FRAME_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"})
FORMATS = ("PNG", "TIFF", "BMP", "JPEG")
MAX_PIXELS = 2**27
"""Largest frame that is decoded, such as 16384 x 8192: a file that claims more is refused as a decompression bomb."""

FrameLike: TypeAlias = "str | os.PathLike[str] | Image.Image | Array | torch.Tensor"


def decode(source: str | os.PathLike[str] | Image.Image) -> Array:
    """Decodes an image file (its first page) or a PIL image, values as stored.

    Args:
        source: PNG, TIFF, BMP or JPEG file, or a PIL image; modes 1, L, LA, P, RGB, RGBA, I;16, I and F.

    Returns:
        `(H, W)` or `(H, W, 3)`; uint8, uint16, int32 or float32. Palettes are looked up, alpha is dropped.

    Raises:
        FileNotFoundError: no such file.
        FrameError: the file is no image, is truncated or corrupt, or claims more than `MAX_PIXELS`.
    """
    if isinstance(source, Image.Image):
        name = os.fspath(getattr(source, "filename", "")) or "the image"
        with _reading(name):
            return _pixels(source, name)
    return next(pixels for _, pixels in decode_pages(source))


def decode_pages(file: str | os.PathLike[str]) -> Iterator[tuple[int | None, Array]]:
    """Decodes the pages of an image file one after the other; of most formats there is one.

    Smaller copies of a page that a TIFF file holds for previews are left out.

    Args:
        file: as for `decode`.

    Yields:
        The page's number from 0, `None` where the file has one page, and its pixels as `decode` gives them.

    Raises:
        FileNotFoundError: as `decode`.
        FrameError: as `decode`, also for a page after the first.
    """
    name = os.fspath(file)
    with ExitStack() as stack:
        with _reading(name) as at_opening:
            image = stack.enter_context(Image.open(name, formats=FORMATS))
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        for page in range(pages):
            with _reading(name) as here:
                if pages > 1:
                    image.seek(page)
                    if page and _is_preview(image):
                        continue
                pixels = _pixels(image, name)
                # a TIFF may end with its tags; without the last ones, floats would be read as integers
                if image.format == "TIFF" and any("Corrupt EXIF" in str(w.message) for w in (*at_opening, *here)):
                    raise FrameError(f"{name}: truncated or corrupt (its tags are cut off)")
            yield (page if pages > 1 else None), pixels


def count_pages(file: str | os.PathLike[str]) -> int:
    """Pages of a TIFF file, previews among them, without decoding any; 1 for other files and what can't be read."""
    try:
        with _reading(os.fspath(file)), Image.open(file, formats=FORMATS) as image:
            return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
    except (FrameError, FileNotFoundError):
        return 1


def _is_preview(image: Image.Image) -> bool:
    kind = getattr(image, "tag_v2", {}).get(254, 0)  # NewSubfileType, whose lowest bit says so
    return bool(kind & 1)


@contextmanager
def _reading(name: str) -> Iterator[list[warnings.WarningMessage]]:
    """Turns what Pillow raises into our errors; yields the list of its warnings."""
    try:
        # Pillow warns of odd metadata, of palettes with alpha and of large images; what can't be read is said otherwise
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except FrameError:
        raise
    except IsADirectoryError:
        raise FrameError(f"{name}: is a folder, expected an image file") from None
    except UnidentifiedImageError:
        raise FrameError(
            f"{name}: not an image that can be read; expected {', '.join(sorted(FRAME_SUFFIXES))}"
        ) from None
    except Image.DecompressionBombError:
        raise FrameError(f"{name}: claims more than {MAX_PIXELS} pixels; crop or tile it first") from None
    # Pillow's decoders raise many kinds for damaged files, struct.error and zlib.error among them
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise FrameError(f"{name}: can't be read: {error.strerror}") from error
        raise FrameError(f"{name}: truncated or corrupt ({error})") from error


def _pixels(image: Image.Image, name: str) -> Array:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise FrameError(f"{name}: {width}x{height} is more than {MAX_PIXELS} pixels; crop or tile it first")
    # the tile says how the file stores its pixels; Pillow has no 16-bit colour and would drop the low bytes
    if image.mode in ("RGB", "RGBA", "LA") and any(
        ";16" in str(tile[-1]) for tile in getattr(image, "tile", None) or ()
    ):
        raise FrameError(f"{name}: 16-bit colour can't be read without loss; save it as 16-bit grey")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    pixels: Array = np.asarray(image)
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    return pixels


def read_frame(source: FrameLike) -> NDArray[np.float32]:
    """Reads anything that stands for a frame as grey values in [0, 1].

    Args:
        source: path of a PNG, TIFF, BMP or JPEG file, PIL image, array or tensor. Arrays and tensors are `(H, W)`,
            `(H, W, 1)` or `(H, W, 3)`, tensors also `(1, H, W)` or `(3, H, W)`; see `unit_frame` for their types.

    Returns:
        `(H, W)` float32 in [0, 1].

    Raises:
        FileNotFoundError: no such file.
        FrameError: not a frame; the message names the file and the reason.
        TypeError: `source` is none of the above.
    """
    return unit_frame(*read_pixels(source))


def read_pixels(source: FrameLike) -> tuple[Array, str]:
    """The pixel values of anything that stands for a frame, and what messages call it.

    Args:
        source: as for `read_frame`.

    Raises:
        FileNotFoundError: no such file.
        FrameError: a file that can't be read.
        TypeError: `source` is none of the above.
    """
    if isinstance(source, (str, os.PathLike)):
        return decode(source), os.fspath(source)
    if isinstance(source, Image.Image):
        return decode(source), "the frame"
    if isinstance(source, torch.Tensor):
        known = (torch.float16, torch.float32, torch.float64)
        tensor = source.float() if source.is_floating_point() and source.dtype not in known else source
        array: Array = tensor.numpy(force=True)
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        return array, "the frame"
    if isinstance(source, np.ndarray):
        return source, "the frame"
    raise TypeError(
        f"a frame is a path, PIL image, array or tensor; got {type(source).__name__} (lists of frames go to detect)"
    )
