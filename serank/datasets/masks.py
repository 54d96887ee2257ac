"""Masks as files hold them (0/1, 0/255, numbers, grey, colour, 16 bits), and the defects that they are checked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.reading import decode
from serank.metrics.components import label_components
from serank.utils.text import listing

Shape = tuple[int, int]

POLARITY = "targets must be bright (1 or 255) on black"
"""What masks without a target, or with little else, are reported with."""

FULL_SCALE = (1.0, 255.0, 65535.0)
"""Largest values of floats, 8 and 16 bits."""
FEW = 8
"""Different values up to which they are classes or instances, not shares of a pixel."""
NOISE = 0.25
"""Share of the largest value below which the noise of JPEG lies."""

KNOWN_MISMATCH = "Misc_111"
"""SIRST's one frame whose published mask has another size."""


@dataclass(frozen=True)
class SizeMismatch:
    """A mask of another size than its frame; sizes are (height, width) in pixels."""

    name: str
    frame: Shape
    mask: Shape

    @property
    def known(self) -> bool:
        """Whether this is the published defect of SIRST."""
        return self.name == KNOWN_MISMATCH

    @property
    def swapped(self) -> bool:
        """Whether the mask lies on its side against the frame."""
        return self.mask == self.frame[::-1] and self.mask != self.frame and not self.known

    @property
    def sizes(self) -> str:
        """Both sizes in words."""
        turned = " (its sides are swapped: turn one of the two files)" if self.swapped else ""
        return "mask is {} x {}, its frame {} x {}".format(*self.mask, *self.frame) + turned

    def __str__(self) -> str:
        return f"{self.name}: {self.sizes}{' (the known defect of SIRST, resized by nearest)' if self.known else ''}"


class TargetMask(NamedTuple):
    """A mask, and what was lost in making it."""

    mask: NDArray[np.bool_]
    """`(H, W)`, true on targets."""
    grey: bool
    """Whether it has grey values, which were cut at half of the largest."""
    touching: bool = False
    """Whether instances of different numbers touch, which become one target."""


def read_mask(file: Path) -> TargetMask:
    """The mask in a file, see `target_mask`.

    Raises:
        FrameError: a file that can't be read, or as `target_mask`.
    """
    return target_mask(decode(file), file)


def target_mask(array: NDArray[np.generic], file: Path) -> TargetMask:
    """Any stored mask as targets: what isn't clearly background is target, or refused.

    Each file is judged by itself. Background is 0; of colours (and palettes) the largest channel counts.

    - One value besides 0 is target, whatever it is: 1, 2, 127, 255, dark red.
    - Class and instance numbers, which are at most eight values or all from 1 on, and whose largest isn't the type's
      full scale, are all targets. Instances that touch become one target: metrics count the components of masks and of
      predictions alike, and no threshold would part those of a prediction.
    - Other values are shares of a pixel, as resizing and JPEG leave them: target from half of the largest on. A region
      that such a cut would lose is an error.

    Args:
        array: a mask as decoded, `(H, W)` or `(H, W, 3)`, any type of number.
        file: where it came from, for errors.

    Raises:
        FrameError: NaN, infinity or negative values; no value that can be background; a region that can be neither.
    """
    if not np.isfinite(array).all():
        raise FrameError(f"{file}: mask has values that are NaN or infinite")
    if array.dtype.kind in "if" and array.min() < 0:
        raise FrameError(f"{file}: mask has negative values, down to {array.min()}; write background as 0")
    colour = array.ndim == 3 and bool((array != array[..., :1]).any())
    values: NDArray[Any] = array.max(axis=2) if array.ndim == 3 else array
    levels = _levels(values)
    top, present = float(levels[-1]), levels[levels > 0]
    few = len(present) <= FEW
    if colour and 2 * float(levels[0]) > top:
        raise FrameError(f"{file}: colour mask without a black background; write background as 0")
    if len(levels) > 1 and levels[0] > 0 and few:
        raise FrameError(
            f"{file}: mask has the values {listing(levels.tolist(), FEW)} and none of them is 0; write background as 0"
        )
    if len(present) <= 1 or (top not in FULL_SCALE and _are_numbers(present, few=few)):
        return TargetMask(values > 0, grey=False, touching=len(present) > 1 and _touch(values))
    mask = values >= top / 2
    # few levels are no noise, so that each of them means something
    labels, count = label_components(values > (0 if few else top * NOISE))
    lost = count - len(np.unique(labels[mask & (labels > 0)]))
    if lost:
        raise FrameError(
            f"{file}: {lost} regions of the mask have no value of {top / 2:g} or more, half of its largest, so that "
            "they are neither target nor background; write targets as 255 and background as 0"
        )
    return TargetMask(mask, grey=True)


def _levels(values: NDArray[Any]) -> NDArray[Any]:
    """The different values, rising."""
    if values.dtype in (np.uint8, np.uint16):
        return np.flatnonzero(np.bincount(values.ravel()))
    return np.unique(values)


def _are_numbers(present: NDArray[Any], *, few: bool) -> bool:
    """Whether the values can be classes or instances."""
    whole = bool((np.mod(present, 1) == 0).all())
    return whole and (few or len(present) == int(present[-1]))


def _touch(values: NDArray[Any]) -> bool:
    """Whether two neighbours of eight hold different values, neither of them 0."""
    pairs = (
        (values[:, 1:], values[:, :-1]),
        (values[1:], values[:-1]),
        (values[1:, 1:], values[:-1, :-1]),
        (values[1:, :-1], values[:-1, 1:]),
    )
    return any(bool(((a != b) & (a > 0) & (b > 0)).any()) for a, b in pairs)


def is_inverted(mask: NDArray[np.bool_]) -> bool:
    """Whether more than half of the pixels are target, as in a mask with dark targets on white."""
    return bool(mask.mean() > 0.5)


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resizes a mask `(H, W)` to `(height, width)` by nearest neighbour."""
    image = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(image) > 0
