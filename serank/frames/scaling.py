"""Pixel values to what a network takes, grey in [0, 1].

A few outliers, such as dead lines, a letterbox, the sun or burned-in text, hardly move it: median and spread come from
the bulk of the pixels, whatever the others hold.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Float: TypeAlias = NDArray[np.float32]
Bool: TypeAlias = NDArray[np.bool_]

UNIT_MEDIAN, UNIT_CONTRAST = 0.42, 0.012
"""Grey of a frame's median and size of one contrast (`location_contrast`), for values of an unknown range; those of
typical 8-bit frames."""
NOISE_STEPS = 0.5
"""Least noise that is assumed, in steps of the quantisation."""
NOISE_SPREADS = (1 / 300, 1 / 5)
"""Least and largest noise that is assumed, in spreads of the frame."""
CLIPPED_QUANTILE = 0.9
"""Deviations from the median count up to this quantile of theirs: a larger one counts as much as that."""
MEAN_DIFFERENCE = 1.4
"""By what the mean clipped mixed difference of 2x2 pixels is divided for the noise. White noise has 1.51; checkpoints
were trained with 1.4."""
STEP_QUANTILES = (0.05, 0.95)
"""Between which quantiles of the values the step of their quantisation is looked for."""
MOST_PIXELS = 2**18
"""Of larger frames evenly spread pixels give median, spread and noise."""
STRAY = 0.05
"""Share of pixels below which values outside an expected range are defects, and not a sign of another range."""
TOLERANCE = 1e-6
"""By how much of a range's size floats may miss its ends, or whole numbers, for rounding."""
LARGEST = 1e150
"""Values beyond this are scaled down first, so that differences and sums stay finite."""


def location_spread(values: Array) -> tuple[float, float]:
    """Median and robust spread of a frame.

    The spread is the mean distance from the median, distances clipped at their 0.9 quantile, but at least the median
    step between neighbouring values that occur in the central 90%: a sky with two levels of grey isn't blown up. Both
    follow gain and offset exactly.

    Args:
        values: of any shape and real dtype, finite.

    Returns:
        Median and spread > 0, 1.0 for a constant.
    """
    median, mean, step = _statistics(values, None)
    return median, max(mean, step)


def location_contrast(values: Array, valid: Bool | None = None) -> tuple[float, float]:
    """Median of a frame and the size of its contrasts: the geometric mean of spread and noise.

    The spread alone (`location_spread`) would blow up a quiet sky as much as it shrinks clouds, and the noise alone
    depends on the optics and on what the camera's processing smooths. The noise is that of single pixels: the mean
    absolute mixed difference of 2x2 pixels, clipped at its 0.9 quantile, which neither slopes nor stripes of rows and
    columns enter; within `NOISE_STEPS` and `NOISE_SPREADS`. All follow gain and offset exactly.

    Args:
        values: `(H, W)`, real and finite.
        valid: `(H, W)`, true where a value counts; `None` counts all. At least one must.

    Returns:
        Median and contrast > 0.
    """
    median, mean, step = _statistics(values, valid)
    spread = max(mean, step)
    least, most = NOISE_SPREADS
    noise = min(max(_noise(values, valid), NOISE_STEPS * step, least * spread), most * spread)
    return median, math.sqrt(spread) * math.sqrt(noise)


def _noise(values: Array, valid: Bool | None) -> float:
    """Size of the noise by its mixed differences, 1.08 times the standard deviation of white noise; 0 without any."""
    height, width = values.shape
    if height < 2 or width < 2:
        return 0.0
    rows = np.arange(0, height - 1, -(-values.size // MOST_PIXELS))
    above, below = values[rows].astype(np.float64), values[rows + 1].astype(np.float64)
    difference = np.abs(np.diff(below, axis=1) - np.diff(above, axis=1))
    if valid is not None:
        both = valid[rows] & valid[rows + 1]
        difference = difference[both[:, 1:] & both[:, :-1]]
    if not difference.size:
        return 0.0
    clipped = np.minimum(difference, np.quantile(difference, CLIPPED_QUANTILE))
    return float(clipped.mean()) / MEAN_DIFFERENCE


def _statistics(values: Array, valid: Bool | None) -> tuple[float, float, float]:
    """Median, mean clipped distance from it, and step of the quantisation (1.0 for a constant)."""
    x = np.sort(evenly_spread(values, valid))
    median = float(np.median(x))
    distance = np.abs(x - median)
    most = float(np.quantile(distance, CLIPPED_QUANTILE))
    # the other form where a sum of extreme values would overflow
    mean = (
        most * float(np.minimum(distance / most, 1).mean())
        if most > LARGEST
        else (float(np.minimum(distance, most).mean()))
    )
    low, high = np.quantile(x, STEP_QUANTILES)
    distinct = _distinct(x[np.searchsorted(x, low) : np.searchsorted(x, high, side="right")])
    if distinct.size < 2:
        distinct = _distinct(x)
    step = float(np.median(np.diff(distinct))) if distinct.size > 1 else 1.0
    return median, mean, step


def to_unit(values: Array, valid: Bool | None = None, *, inverted: bool = False) -> Float:
    """Values as grey in [0, 1].

    - bool and uint8: over 1 and 255; so are floats and wide integers that hold whole numbers in 0 to 255, as other
      libraries return 8-bit files.
    - floats in [0, 1]: as they are.
    - uint16, other integers and other floats (counts, temperatures): the median becomes 0.42 and a contrast
      (`location_contrast`) 0.012, as in typical 8-bit frames, since cameras use a narrow, drifting part of their range.

    Floats may miss a range by a millionth of its size, and fewer than 5% of the pixels by any amount: those are
    defects, and are clipped.

    Args:
        values: `(H, W)`, real and finite.
        valid: `(H, W)`, the pixels that decide about the range; `None` takes all.
        inverted: turn dark into bright.

    Returns:
        `(H, W)` float32 in [0, 1]; a constant of unknown range becomes 0.
    """
    top = _top(values, valid)
    if top is None:
        values = _finite_differences(values)
        if is_constant(values, valid):
            return np.zeros(values.shape, np.float32)
        median, contrast = location_contrast(values, valid)
        return _around_median(values, median, -contrast if inverted else contrast)
    with np.errstate(over="ignore"):  # of stray float64 values, which are clipped anyway
        unit: Float = values.astype(np.float32) / np.float32(top) if top != 1 else values.astype(np.float32)
    if values.dtype not in (np.bool_, np.uint8):
        unit = np.clip(unit, 0, 1)
    return 1 - unit if inverted else unit


def _top(values: Array, valid: Bool | None) -> float | None:
    """The value of white where the type or the values tell it."""
    if values.dtype == np.bool_:
        return 1.0
    if values.dtype == np.uint8:
        return 255.0
    x = values.ravel() if valid is None else values[valid]
    if x.dtype.kind == "f" and _share((x >= -TOLERANCE) & (x <= 1 + TOLERANCE)) > 1 - STRAY:
        return 1.0
    if x.dtype.kind == "f" or x.dtype.itemsize > 2:
        near = (x >= -TOLERANCE * 255) & (x <= 255 * (1 + TOLERANCE))
        if _share(near) > 1 - STRAY and _share(near & (np.abs(x - np.rint(x)) <= TOLERANCE * 255)) > 1 - STRAY:
            return 255.0
    return None


def _around_median(values: Array, median: float, contrast: float) -> Float:
    """The median becomes `UNIT_MEDIAN`, what lies one contrast above it `UNIT_CONTRAST` more."""
    if values.dtype == np.uint16:  # a table of all levels is faster
        return _around_median(np.arange(2**16), median, contrast)[values]
    with np.errstate(over="ignore"):  # of the most extreme floats, which are clipped anyway
        z = ((values.astype(np.float64) - median) / contrast).astype(np.float32)
        unit: Float = np.clip(UNIT_MEDIAN + UNIT_CONTRAST * z, 0, 1)
    return unit


def _share(chosen: Bool) -> float:
    return float(np.count_nonzero(chosen)) / chosen.size


def is_constant(values: Array, valid: Bool | None = None) -> bool:
    """Whether all values, or all valid ones, are equal."""
    x = values if valid is None else values[valid]
    return bool(x.min() == x.max())


def _finite_differences(values: Array) -> Array:
    """The values, scaled down where differences of them might overflow."""
    if values.dtype.kind != "f" or values.dtype.itemsize < 8:
        return values
    peak = float(np.abs(values).max())
    return values / 4 if peak > LARGEST else values


def evenly_spread(values: Array, valid: Bool | None = None) -> NDArray[np.float64]:
    """At most `MOST_PIXELS` of a frame's values, or of the valid ones, `(N,)`, evenly spread over it."""
    x = values.ravel() if valid is None else values[valid]
    stride = -(-x.size // MOST_PIXELS)
    # one that has no factor in common with the rows' length visits all columns alike, whatever pattern they have
    while stride > 1 and math.gcd(stride, values.shape[-1]) > 1:
        stride += 1
    return np.asarray(x[::stride], np.float64)


def _distinct(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ordered[np.concatenate([[True], np.diff(ordered) > 0])])
