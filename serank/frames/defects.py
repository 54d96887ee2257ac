"""Dead pixels and lines of a sensor, replaced from their neighbours as cameras do.

A network can't tell a hot pixel from a target; optics can: they spread even a point over neighbouring pixels, of which
a defect has nothing. The rules ask for so much that in SIRST, the frames of SIRST-V2, IRSTD-1k and NUDT-SIRST no pixel
of a target is changed (`benchmarks/defects.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.frames.scaling import Array, location_spread

PIXEL_SPREADS, PIXEL_RANGE = 4.0, 0.1
"""A dead pixel is this many spreads off the median of its eight neighbours, whose range is below that share of it."""
PAIR_SPREADS, PAIR_RANGE = 20.0, 0.05
"""The same where one neighbour, which may be dead too, is left out of the range."""
LINE_SPREADS = 6.0
"""Spreads by which a dead line is off the next living ones."""
LINE_SHARE = 0.9
"""Share of a dead line's pixels that have one value."""
MOST_LINES = 2
"""Dead lines side by side, at most: more are a letterbox or a region without data."""
SAMPLE = 128
"""Rows and columns, evenly spread, whose pixels give the frame's spread."""


def repair_defects(values: Array) -> Array:
    """Replaces dead and hot pixels by the median of their neighbours, and dead lines by the nearest living one.

    - A pixel is dead when it is 4 spreads of the frame (`serank.frames.scaling.location_spread`) or more from the
      median of its eight neighbours and these differ by less than a tenth of that among themselves: of a point that
      optics show, some neighbour has more. Of two that touch each is repaired where it is 20 spreads off.
    - A row or column is dead when nine tenths of it have one value, 6 spreads or more from the medians of the lines
      beside it; two side by side count as one.

    Args:
        values: `(H, W)`, real and finite.

    Returns:
        The repaired frame, of the same type, with no value that the given one doesn't have; a view of `values` where
        nothing is dead, and where a side is below 3.
    """
    if values.dtype == np.bool_ or min(values.shape) < 3:
        return values
    rows, columns = (max(1, side // SAMPLE) for side in values.shape)
    _, spread = location_spread(values[::rows, ::columns])
    with np.errstate(over="ignore", invalid="ignore"):  # of the most extreme floats: infinite differences are no less
        repaired = _repair_lines(values, spread)
        repaired = _repair_lines(repaired.T, spread).T
        return _repair_pixels(repaired, spread)


def _repair_lines(values: Array, spread: float) -> Array:
    """The values `(H, W)` with dead rows replaced."""
    height, width = values.shape
    dead = np.zeros(height, np.bool_)
    for column in (width // 4, width // 2, 3 * width // 4):  # one of them may be of another line
        dead |= np.mean(values == values[:, column : column + 1], axis=1) >= LINE_SHARE
    if not dead.any() or dead.all():
        return values
    edges = np.flatnonzero(np.diff(np.concatenate([[False], dead, [False]])))
    repaired = values
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        living = [line for line in (first - 1, end) if 0 <= line < height]
        levels = np.median(values[first:end].astype(np.float64), axis=1)
        off = min(np.abs(levels - np.median(values[line].astype(np.float64))).min() for line in living)
        if end - first <= MOST_LINES and off >= LINE_SPREADS * spread:
            repaired = values.copy(order="K") if repaired is values else repaired
            for line in range(first, end):
                repaired[line] = values[min(living, key=lambda other: abs(other - line))]
    return repaired


def _repair_pixels(values: Array, spread: float) -> Array:
    signed = values.astype(_difference_type(values.dtype))
    padded = np.pad(signed, 1, mode="reflect")
    least = PIXEL_SPREADS * spread
    peaks = _extreme(np.diff(padded[1:-1], axis=1), least) | _extreme(np.diff(padded[:, 1:-1].T, axis=1), least).T
    rows, columns = np.nonzero(peaks)
    around = [padded[rows + i, columns + j] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    neighbours = np.sort(np.stack(around, axis=1).astype(np.float64), axis=1)
    median = neighbours[:, 3]  # the lower of the two in the middle, since a mean is no value that the frame has
    off = np.abs(signed[rows, columns] - median)
    whole = neighbours[:, 7] - neighbours[:, 0]
    without_one = np.minimum(neighbours[:, 6] - neighbours[:, 0], neighbours[:, 7] - neighbours[:, 1])
    dead = ((off >= least) & (whole < PIXEL_RANGE * off)) | (
        (off >= PAIR_SPREADS * spread) & (without_one < PAIR_RANGE * off)
    )
    if not dead.any():
        return values
    repaired = values.copy(order="K")
    repaired[rows[dead], columns[dead]] = median[dead]
    return repaired


def _difference_type(dtype: np.dtype[Any]) -> Any:
    """A small type that holds the differences of such values."""
    if dtype.kind == "f":
        return np.float32 if dtype.itemsize <= 4 else np.float64
    return {1: np.int16, 2: np.int32}.get(dtype.itemsize, np.float64)


def _extreme(steps: Array, least: float) -> NDArray[np.bool_]:
    """Where a value is above both neighbours of its row by `least`, or below both; steps are `(H, W + 1)`."""
    up, down = steps >= least, steps <= -least
    found: NDArray[np.bool_] = (up[:, :-1] & down[:, 1:]) | (down[:, :-1] & up[:, 1:])
    return found
