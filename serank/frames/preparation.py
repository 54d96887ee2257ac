"""Arrays to what a network takes: grey values in [0, 1], the working size, normalisation and tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError

__all__ = ["HEADROOM", "ROBUST_PERCENTILES", "TILE_STEP", "Array", "FrameSpec", "resize", "tiles", "unit_frame"]

ROBUST_PERCENTILES = (0.1, 99.9)
"""Percentiles of a frame's values between which its robust range lies."""
HEADROOM = 1.0
"""By how much of that range its upper end is raised."""

TILE_STEP = 16
"""Networks with four poolings pad other sides to a multiple of this."""

Array: TypeAlias = NDArray[Any]


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
