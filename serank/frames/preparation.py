"""Arrays to what a network takes: grey values, their scaling, the working size, normalisation and tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.filling import fill
from serank.frames.scaling import Array, to_unit

TILE_STEP = 16
"""Networks with four poolings pad other sides to a multiple of this."""

LARGEST_SIDE = 4096
"""Largest working size and tile in pixels; a tile of it takes 16 times the memory of the usual 1024 pixels."""
SMALLEST_TILE = 2 * TILE_STEP
LARGEST_SCALE, FREE_SIZE = 16, 1024
"""Most that a working size above the second enlarges a frame. With an overlap of at most half a tile, all these bound
the work and memory that a config can ask for."""
BAND_PIXELS = 2**16
"""Pixels whose luminance is computed at once."""


@dataclass(frozen=True)
class FrameSpec:
    """How frames are brought to what a network was trained on.

    Attributes:
        mean: subtracted from grey in [0, 1]; one number, or one for each input channel.
        std: divides the result; like `mean`.
        working_size: longest side in pixels to which frames are scaled, 1 to 4096; `None` leaves their size.
        scale_range: least and largest factor by which that scaling may change a frame, 0 < low <= 1 <= high, with
            high <= 16 where `working_size` is above 1024. A frame that would need more is scaled by this much and,
            where it is then larger than a tile, cut into tiles.
        tile: largest side of the tiles of large frames, in scaled pixels, 32 to 4096.
        overlap: pixels that neighbouring tiles share, at most half a tile; their outputs are blended linearly across
            it.
        repair: whether dead pixels and lines are replaced from their neighbours first
            (`serank.frames.defects.repair_defects`).
    """

    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.25
    working_size: int | None = None
    scale_range: Sequence[float] = (0.5, 2.5)
    tile: int = 1024
    overlap: int = 128
    repair: bool = True

    def __post_init__(self) -> None:
        if not np.isfinite(self.mean).all():
            raise ValueError(f"mean must be finite; got {self.mean}")
        if not (np.isfinite(self.std).all() and np.all(np.asarray(self.std) > 0)):
            raise ValueError(f"std must be > 0 and finite; got {self.std}")
        if self.working_size is not None and not 1 <= self.working_size <= LARGEST_SIDE:
            raise ValueError(
                f"working_size must lie in 1 to {LARGEST_SIDE} px, or be None, which leaves frames their size; got "
                f"{self.working_size}"
            )
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= 1 <= self.scale_range[1]:
            raise ValueError(f"scale_range must be (low, high), 0 < low <= 1 <= high; got {self.scale_range}")
        if self.working_size is not None and self.working_size > FREE_SIZE and self.scale_range[1] > LARGEST_SCALE:
            raise ValueError(
                f"scale_range must be (low, high) with high <= {LARGEST_SCALE} where working_size is above {FREE_SIZE} "
                f"px; got {self.scale_range} and working_size={self.working_size}. Lower either"
            )
        if not SMALLEST_TILE <= self.tile <= LARGEST_SIDE:
            raise ValueError(f"tile must lie in {SMALLEST_TILE} to {LARGEST_SIDE} px; got {self.tile}")
        if not 0 <= self.overlap <= self.tile // 2:
            raise ValueError(
                f"overlap must lie in 0 to {self.tile // 2}, half of tile={self.tile}; got {self.overlap}. Lower "
                "it, or take larger tiles"
            )

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

    def statistics(self, like: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mean` and `std`, each `(1, channels, 1, 1)`, with the dtype and on the device of `like`."""
        mean, std = (
            like.new_tensor(np.broadcast_to(value, channels).copy()).view(1, -1, 1, 1)
            for value in (self.mean, self.std)
        )
        return mean, std

    def normalise(
        self, x: torch.Tensor, channels: int, statistics: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Grey `(B, 1, H, W)` in [0, 1] -> the network's input `(B, channels, H, W)`, less `mean`, over `std`.

        Args:
            x: grey in [0, 1].
            channels: of the network.
            statistics: what `statistics` gives, where it was sent to the device before.
        """
        mean, std = self.statistics(x, channels) if statistics is None else statistics
        return (x - mean) / std


def unit_frame(array: Array, name: str = "the frame") -> NDArray[np.float32]:
    """Pixel values as grey in [0, 1], see `serank.frames.scaling.to_unit`.

    Three channels become grey by the ITU-R BT.601 weights, which leaves grey content stored as colour as it is. Masked
    pixels of a masked array don't count and are filled from their neighbours.

    Args:
        array: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`.
        name: what errors call it.

    Returns:
        `(H, W)` float32 in [0, 1].

    Raises:
        FrameError: other dimensions, an empty side, NaN or infinity, complex or object dtype, every pixel masked.
    """
    pixels, missing = check_pixels(array, name)
    if missing is None:
        return to_unit(luminance(pixels))
    return to_unit(fill(luminance(pixels), missing), ~missing)


def check_pixels(array: Array, name: str, no_data: Sequence[float] = ()) -> tuple[Array, NDArray[np.bool_] | None]:
    """An array as a frame's pixels, and which of them hold no data.

    Args:
        array: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`; of a masked array the masked pixels hold no data.
        name: what errors call it.
        no_data: values that stand for no data; NaN stands for infinities too. A pixel of three channels is missing
            where all of them hold the value, or one is NaN.

    Returns:
        `(H, W)` or `(H, W, 3)`, finite, and `(H, W)` bool; `None` where every pixel holds data. Missing pixels that
        aren't finite become 0.

    Raises:
        FrameError: other dimensions, an empty side, complex or object dtype, NaN or infinity that `no_data` doesn't
            name, no pixel with data.
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
    missing: NDArray[np.bool_] = np.zeros(array.shape, np.bool_)
    if isinstance(array, np.ma.MaskedArray):
        missing |= np.ma.getmaskarray(array)
        array = array.data
    if array.dtype.kind == "f":
        broken = ~np.isfinite(array)
        if any(math.isnan(value) for value in no_data):
            missing |= broken
        for value in filter(math.isinf, no_data):
            missing |= array == value
        if bad := int(np.count_nonzero(broken & ~missing)):
            raise FrameError(
                f"{name}: {bad} of {array.size} values are NaN or infinite; replace dead pixels first, or let them be "
                'filled from their neighbours with no_data=float("nan") (--no-data nan)'
            )
        if broken.any():
            array = np.where(broken, array.dtype.type(0), array)
    if array.ndim == 3:
        missing = np.asarray(missing.any(2))
    for value in no_data:
        with np.errstate(over="ignore"):  # beyond the type no pixel has it
            equal = np.asarray(array == (array.dtype.type(value) if array.dtype.kind == "f" else value))
        missing |= equal.reshape(*missing.shape, -1).all(2)
    if missing.all():
        raise FrameError(f"{name}: no pixel holds data, all are masked or one of no_data={list(no_data)}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return array, missing if missing.any() else None


def luminance(array: Array) -> Array:
    """Grey `(H, W)` of `(H, W)` or `(H, W, 3)`, of the same type (float32 for float16), by the ITU-R BT.601 weights."""
    if array.ndim == 2:
        return array
    if (array == array[..., :1]).all():
        return array[..., 0]
    floats = array.dtype.kind == "f"
    grey: Array = np.empty(array.shape[:2], np.float32 if array.dtype == np.float16 else array.dtype)
    step = max(1, BAND_PIXELS // array.shape[1])
    for start in range(0, array.shape[0], step):  # float64 of a few rows at once
        band = array[start : start + step].astype(np.float64)
        weighted = 0.299 * band[..., 0] + 0.587 * band[..., 1] + 0.114 * band[..., 2]
        grey[start : start + step] = weighted if floats else np.rint(weighted)
    return grey


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
