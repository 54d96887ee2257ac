"""Reading probability maps and masks that any program wrote: pictures, NumPy and MATLAB files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.evaluation.mat_files import load_mat
from serank.frames.numpy_files import read_array
from serank.frames.reading import FRAME_SUFFIXES, decode, open_held
from serank.inference.maps import is_probability

MAP_SUFFIXES = frozenset({*FRAME_SUFFIXES, ".mat"})
ROUNDING = 1e-6
"""By how much floats may leave [0, 1], as sums of softmax do."""


def read_values(file: Path, *, colour: bool = False) -> NDArray[Any]:
    """The values of a map or mask as stored.

    Args:
        file: picture in grey (or colour of grey content), NPY or NPZ of one array, never unpickled; MAT up to v7 with
            exactly one two-dimensional numeric variable (single numbers don't count).
        colour: take coloured pictures too, as masks may be.

    Returns:
        `(H, W)` of bool, integers or floats, or `(H, W, 3)` of a coloured picture; sides of 1 beyond two dimensions
        are dropped.

    Raises:
        FileNotFoundError: no such file.
        serank.errors.FrameError: a file that can't be read or holds something else; names it and the fix.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    suffix = file.suffix.lower()
    if suffix not in (".npy", ".npz", ".mat"):
        return _load_picture(file, colour=colour)
    if suffix == ".mat":
        values = load_mat(file)
    else:
        with open_held(file) as held:
            values = read_array(held)
    shape = values.shape
    if values.ndim > 2:
        values = values.reshape([side for side in shape if side != 1])
    if values.dtype.kind not in "buif" or values.ndim != 2 or not values.size:
        raise FrameError(f"{file}: holds {values.dtype} of shape {shape}; expected one map (H, W) of numbers or bool")
    return values


def _load_picture(file: Path, *, colour: bool) -> NDArray[Any]:
    values = decode(file)
    if values.ndim == 2:
        return values
    if (values == values[..., :1]).all():
        return values[..., 0]
    if not colour:
        raise FrameError(f"{file}: a colour picture; expected a grey one with the probability or mask as its value")
    return values


class MapReader:
    """Reads the maps of a folder as probabilities.

    - floats: as they are, in [0, 1];
    - bool: 0 and 1;
    - 8 bits: divided by 255, 16 bits by 65535, but where no such file of the folder exceeds 1, they are masks of 0 and
      1. The folder decides, because a single map with hardly anything in it can't be told from a mask; maps that
      `serank detect --probability` wrote say in the file that they are none;
    - other integers: 0 and 1 alone.

    Args:
        files: all that belong together.

    Attributes:
        highest: largest value of the 8- and 16-bit files seen, by number of bits.
        taken_as_masks: whether a file with a 1 in it was read as a mask of 0 and 1.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = list(files)
        self._masks: bool | None = None
        self.highest: dict[int, int] = {}
        self.taken_as_masks = False

    def read(self, file: Path) -> NDArray[np.float32]:
        """`(H, W)` float32 in [0, 1]; raises as `read_values`, and FrameError with the fix for values out of range."""
        values = read_values(file)
        low, high = values.min(), values.max()
        if values.dtype in (np.uint8, np.uint16):
            bits = 8 * values.dtype.itemsize
            self.highest[bits] = max(self.highest.get(bits, 0), int(high))
            full = 1 if high == 1 and self._are_masks() else 2**bits - 1
            self.taken_as_masks |= full == 1
            return (values / np.float32(full)).astype(np.float32)
        if values.dtype.kind == "f":
            if not (np.isfinite(low) and np.isfinite(high)):
                raise FrameError(f"{file}: holds NaN or infinity; expected probabilities in [0, 1]")
            if low < -ROUNDING or high > 1 + ROUNDING:
                raise FrameError(
                    f"{file}: holds {low:g} to {high:g}; expected probabilities in [0, 1]. Logits need a sigmoid "
                    "first, 8-bit values a division by 255, other scores a division by the method's largest"
                )
            probability: NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32)
            return probability
        if low < 0 or high > 1:
            raise FrameError(
                f"{file}: holds {values.dtype} from {low} to {high}; expected 0 and 1 alone. "
                "Save maps as uint8 (0 to 255), uint16 (0 to 65535) or floats in [0, 1]"
            )
        return values.astype(np.float32)

    def _are_masks(self) -> bool:
        if self._masks is None:
            found = (read_values(file) for file in self._files)
            small = all(v.max() <= 1 for v in found if v.dtype in (np.uint8, np.uint16))
            self._masks = small and not any(map(is_probability, self._files))
        return self._masks
