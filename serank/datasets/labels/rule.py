"""From a box, a point or an outline to a mask, by one stated rule.

A box: the background `b` is the median grey level of the ring around the box, `p` the largest level inside it. The mask
is the 8-connected pixels of the box around that brightest pixel whose level is at least `b + fraction * (p - b)`, with
holes filled; it never leaves the box. A point: the same inside a window around it, the brightest pixel being sought
close to the point. For black-hot frames levels are negated first. Where nothing is brighter
(`p <= b`) the mask of a box is the box, that of a point its pixel. Outlines are masks already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.frames.options import Polarity, check_polarity
from serank.metrics.components import label_components

PixelBox = tuple[int, int, int, int]
"""x0, y0, x1, y1 in px; x1 and y1 are exclusive."""

FRACTION = 0.3
"""Share of the local contrast above which a pixel belongs to the target; measured in docs/labels.md."""
RING = 4
"""Least width in px of the ring around a box in which the background is measured; else half of its longer side."""
WINDOW = 7
"""Largest distance in px, along each axis, of a target's pixels from a point that marks it: a window of 15 x 15 px."""
REACH = 2
"""Largest distance in px, along each axis, of the brightest pixel from a point that marks a target."""


class RuleMask(NamedTuple):
    """Mask of one target."""

    box: PixelBox
    """Where `mask` lies in the frame."""
    mask: NDArray[np.bool_]
    """`(y1 - y0, x1 - x0)` bool, at least one pixel true."""
    stands_out: bool
    """Whether the brightest pixel (darkest for black-hot) differs from the background by more than the opposite one
    does; false where the polarity is wrong or there is no target."""


def check_fraction(fraction: float) -> float:
    """`fraction` as a float; raises ValueError unless it lies in (0, 1)."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction of the local contrast must lie between 0 and 1; got {fraction}")
    return float(fraction)


def box_mask(
    grey: NDArray[Any], box: PixelBox, *, polarity: Polarity = "white-hot", fraction: float = FRACTION
) -> RuleMask:
    """Mask of the target in a box.

    Args:
        grey: `(H, W)` finite grey levels of any real type, linear in intensity.
        box: inside the frame, at least 1 px wide and high.
        polarity: whether targets are brighter or darker than their surroundings.
        fraction: in (0, 1), see the module.

    Raises:
        ValueError: an argument out of its range.
    """
    check_polarity(polarity)
    levels = _levels(grey, box, box, polarity)
    mask = levels.mask(check_fraction(fraction))
    return RuleMask(box, np.ones_like(levels.inside, np.bool_) if mask is None else mask, levels.stands_out)


def point_mask(
    grey: NDArray[Any], x: float, y: float, *, polarity: Polarity = "white-hot", fraction: float = FRACTION
) -> RuleMask:
    """Mask of the target at a point.

    `x` and `y` are column and row in px, 0 the first pixel's centre; the rest as for `box_mask`.
    """
    check_polarity(polarity)
    height, width = grey.shape
    column, row = round(x), round(y)
    if not (0 <= column < width and 0 <= row < height):
        raise ValueError(f"point ({x:g}, {y:g}) lies outside the frame of {width} x {height} px")
    window = _around(column, row, WINDOW, grey.shape)
    levels = _levels(grey, window, _around(column, row, REACH, grey.shape), polarity)
    mask = levels.mask(check_fraction(fraction))
    if mask is None:
        return RuleMask((column, row, column + 1, row + 1), np.ones((1, 1), np.bool_), False)
    return RuleMask(window, mask, levels.stands_out)


class _Levels(NamedTuple):
    inside: NDArray[np.float64]
    """Levels in the box, negated for black-hot."""
    peak: tuple[int, int]
    """Row and column of the brightest pixel."""
    contrast: float
    """Of that pixel against the background."""
    stands_out: bool

    def mask(self, fraction: float) -> NDArray[np.bool_] | None:
        """The component above the level that holds the peak, its holes filled; `None` without contrast."""
        from scipy import ndimage

        if self.contrast <= 0:
            return None
        labels, _ = label_components(self.inside >= self.inside[self.peak] - (1 - fraction) * self.contrast)
        filled: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == labels[self.peak])
        return filled


def _around(column: int, row: int, distance: int, shape: tuple[int, ...]) -> PixelBox:
    height, width = shape
    return (
        max(0, column - distance),
        max(0, row - distance),
        min(width, column + distance + 1),
        min(height, row + distance + 1),
    )


def _levels(grey: NDArray[Any], box: PixelBox, search: PixelBox, polarity: Polarity) -> _Levels:
    """Levels in `box` against the ring around it; the peak is sought in `search`, a part of it."""
    height, width = grey.shape
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"box {box} must lie in the frame of {width} x {height} px and hold a pixel")
    ring = max(RING, (max(x1 - x0, y1 - y0) + 1) // 2)
    left, top = max(0, x0 - ring), max(0, y0 - ring)
    sign = 1.0 if polarity == "white-hot" else -1.0
    near = sign * grey[top : y1 + ring, left : x1 + ring].astype(np.float64)
    outside = np.ones(near.shape, np.bool_)
    outside[y0 - top : y1 - top, x0 - left : x1 - left] = False
    inside = near[y0 - top : y1 - top, x0 - left : x1 - left]
    sought = inside[search[1] - y0 : search[3] - y0, search[0] - x0 : search[2] - x0]
    row, column = np.unravel_index(int(sought.argmax()), sought.shape)
    peak = int(row) + search[1] - y0, int(column) + search[0] - x0
    # a box as large as the frame has no ring
    background = float(np.median(near[outside])) if outside.any() else float(inside.min())
    contrast = float(inside[peak]) - background
    return _Levels(inside, peak, contrast, contrast > max(0.0, background - float(sought.min())))
