"""Reading frames, scaling their values, and resizing them to the scale a checkpoint works at."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serank.errors import FrameError

__all__ = [
    "FRAME_SUFFIXES",
    "MAX_PIXELS",
    "FrameLike",
    "FrameSpec",
    "decode",
    "decode_pages",
    "find_frames",
    "read_frame",
    "resize",
    "tiles",
    "unit_frame",
]

FRAME_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"})
FORMATS = ("PNG", "TIFF", "BMP", "JPEG")
MAX_PIXELS = 2**27
"""Largest frame that is decoded, such as 16384 x 8192: a file that claims more is refused as a decompression bomb."""

ROBUST_PERCENTILES = (0.1, 99.9)
HEADROOM = 1.0

TILE_STEP = 16
"""Networks with four poolings pad other sides to a multiple of this."""

Array: TypeAlias = NDArray[Any]
FrameLike: TypeAlias = "str | os.PathLike[str] | Image.Image | Array | torch.Tensor"


@dataclass(frozen=True)
class FrameSpec:
    """How frames are brought to what a network was trained on.

    Attributes:
        mean: subtracted from grey values in [0, 1]; one number, or one for each input channel.
        std: divides the result; like `mean`.
        working_size: longest side in pixels to which frames are scaled; `None` leaves their size.
        scale_range: least and largest factor by which that scaling may change a frame. A frame that would need
            more is scaled by this much and, where it is then larger than a tile, cut into tiles.
        tile: largest side of the tiles of large frames, in scaled pixels.
        overlap: pixels that neighbouring tiles share; their outputs are blended linearly across it.
    """

    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.25
    working_size: int | None = None
    scale_range: Sequence[float] = (0.5, 2.5)
    tile: int = 1024
    overlap: int = 128

    def __post_init__(self) -> None:
        if not np.isfinite(self.mean).all():
            raise ValueError(f"mean must be finite; got {self.mean}")
        if not (np.isfinite(self.std).all() and np.all(np.asarray(self.std) > 0)):
            raise ValueError(f"std must be > 0 and finite; got {self.std}")
        if self.working_size is not None and self.working_size < 1:
            raise ValueError(f"working_size must be >= 1 px or None; got {self.working_size}")
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= 1 <= self.scale_range[1]:
            raise ValueError(f"scale_range must be (low, high), 0 < low <= 1 <= high; got {self.scale_range}")
        if not 0 <= self.overlap < self.tile:
            raise ValueError(f"overlap must be >= 0 and below tile={self.tile}; got {self.overlap}")

    def scale(self, height: int, width: int) -> float:
        """Factor by which a frame is scaled, in training as in detection."""
        if self.working_size is None:
            return 1.0
        low, high = self.scale_range
        return min(max(self.working_size / max(height, width), low), high)

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a frame is scaled, at least 1."""
        scale = self.scale(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def normalise(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        """Grey `(B, 1, H, W)` in [0, 1] -> `(B, channels, H, W)` less `mean`, over `std`."""
        mean, std = (
            x.new_tensor(np.broadcast_to(value, channels).copy()).view(1, -1, 1, 1) for value in (self.mean, self.std)
        )
        return (x - mean) / std


def find_frames(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files named by `paths`; a folder stands for the frames in it, sorted by name, not recursive, none hidden.

    A path that doesn't exist stays in the list: reading it says so.

    Raises:
        FileNotFoundError: a folder holds no frame.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            frames = frame_files(path)
            if not frames:
                raise FileNotFoundError(f"{path}: no frames in this folder; expected {_suffixes()} files")
            found += frames
        else:
            found.append(path)
    return found


def frame_files(folder: Path) -> list[Path]:
    """Images in a folder, sorted; hidden files (macOS's `._NAME.png`, unfinished output) are no frames."""
    visible = (p for p in folder.iterdir() if p.suffix.lower() in FRAME_SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in visible if p.is_file())


def _suffixes() -> str:
    return ", ".join(sorted(FRAME_SUFFIXES))


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
        raise FrameError(f"{name}: not an image that can be read; expected {_suffixes()}") from None
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
    if isinstance(source, (str, os.PathLike)):
        return unit_frame(decode(source), os.fspath(source))
    if isinstance(source, Image.Image):
        return unit_frame(decode(source))
    if isinstance(source, torch.Tensor):
        known = (torch.float16, torch.float32, torch.float64)
        tensor = source.float() if source.is_floating_point() and source.dtype not in known else source
        array: Array = tensor.numpy(force=True)
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        return unit_frame(array)
    if isinstance(source, np.ndarray):
        return unit_frame(source)
    raise TypeError(
        f"a frame is a path, PIL image, array or tensor; got {type(source).__name__} (lists of frames go to detect)"
    )


def unit_frame(array: Array, name: str = "the frame") -> NDArray[np.float32]:
    """Scales pixel values to grey in [0, 1].

    - bool and uint8: divided by 1 and 255; so are floats and wide integers that hold whole numbers in 0 to 255, as
      other libraries return 8-bit files.
    - uint16, other integers, and other floats that leave [0, 1]: scaled by the frame's own robust range, because 16-bit
      cameras use a narrow, drifting part of theirs. The range goes from the 0.1 percentile to the 99.9 percentile,
      its upper end raised by the span once more, so that a target of a few pixels (fewer than 0.1% of the frame)
      keeps standing out above the clutter; values outside are clipped. A constant frame becomes 0.
    - floats in [0, 1]: as they are.

    Three channels become grey by the ITU-R BT.601 weights, which leaves grey content stored as colour as it is.

    Args:
        array: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`.
        name: what errors call it.

    Returns:
        `(H, W)` float32 in [0, 1].

    Raises:
        FrameError: other dimensions, an empty side, NaN or infinity, complex or object dtype.
    """
    if array.dtype.kind not in "buif":
        raise FrameError(f"{name}: dtype {array.dtype} can't be a frame; expected integers or floats")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise FrameError(
            f"{name}: shape {array.shape} is no frame; expected (H, W), (H, W, 1) or (H, W, 3); "
            "several frames go in a list"
        )
    if 0 in array.shape:
        raise FrameError(f"{name}: shape {array.shape} has an empty side")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise FrameError(f"{name}: {bad} of {array.size} values are NaN or infinite; replace dead pixels first")
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 1 else _luminance(array)
    if array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        return array.astype(np.float32)
    wide = array.dtype.kind == "f" or array.dtype.itemsize > 2
    if wide and low >= 0 and high <= 255 and not np.mod(array, 1).any():
        return array.astype(np.float32) / np.float32(255)
    return _robust_unit(array)


def _luminance(array: Array) -> Array:
    if (array == array[..., :1]).all():
        return array[..., 0]
    red, green, blue = (array[..., i].astype(np.float64) for i in range(3))
    grey: Array = 0.299 * red + 0.587 * green + 0.114 * blue
    if array.dtype.kind == "f":
        return grey
    rounded: Array = np.rint(grey).astype(array.dtype)
    return rounded


def _robust_unit(array: Array) -> NDArray[np.float32]:
    values = array.astype(np.float64) / 4  # so that the span of any finite values stays finite
    low, high = np.percentile(values, ROBUST_PERCENTILES)
    if high <= low:  # the variation, if any, is in fewer pixels than the percentiles see
        low, high = values.min(), values.max()
    else:
        high += HEADROOM * (high - low)
    if high <= low:
        return np.zeros(array.shape, np.float32)
    unit: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return unit


def resize(frame: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resizes `(H, W)` float32 bilinearly, averaging over the source's area where it shrinks."""
    if frame.shape == (height, width):
        return frame
    resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def tiles(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Start and end of as few tiles of at most `tile` as cover `length` with at least `overlap` in common.

    They are evenly spread, and no larger than so many tiles need to be, up to a multiple of `TILE_STEP`: a length just
    above one tile is cut into two of little more than half.
    """
    if length <= tile:
        yield 0, length
        return
    count = -(-(length - overlap) // (tile - overlap))
    needed = -(-(length - overlap) // count) + overlap
    side = min(tile, -(-needed // TILE_STEP) * TILE_STEP)
    for i in range(count):
        start = round(i * (length - side) / (count - 1))
        yield start, start + side
