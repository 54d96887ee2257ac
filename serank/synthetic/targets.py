"""Synthetic targets: what they are, how bright, and where they go."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from serank.metrics.signal_to_clutter import STD_FLOOR, WINDOW

Array = NDArray[np.float64]

MASK_FRACTION = math.exp(-1)
"""A pixel belongs to a target's mask when the target adds at least this share of its amplitude there. At
1/e the mean over the mask is 0.63 of the peak, the median of SIRST's hand-drawn masks; at one half it would
be 0.72."""

GAP = 4
"""Free pixels between two targets, on top of their sizes."""
CANDIDATES = 32
"""Positions tried for a target before the best of them is taken."""


@dataclass(frozen=True)
class Target:
    """A planted target, the elliptical Gaussian `exp(-(u / a)^2 - (v / b)^2)` sampled at pixel centres.

    It is scaled to `amplitude` at its brightest pixel. `(u, v)` run along its axes, with
    `a = size / 2 * sqrt(aspect)` and `b = size / 2 / sqrt(aspect)`, so that its mask (see `MASK_FRACTION`) is
    an ellipse with the area of a circle of diameter `size`. The standard deviations are `a / sqrt(2)` and
    `b / sqrt(2)`.
    """

    x: float
    """Column of the centre in px; (0, 0) is the centre of the top left pixel."""
    y: float
    """Row of the centre in px."""
    size: float
    """Full width of the mask in px, geometric mean over its two axes."""
    aspect: float
    """Long axis over short axis, >= 1."""
    angle: float
    """From the x axis to the long axis, in radians, in [0, pi), towards positive y."""
    amplitude: float
    """What the target adds at its brightest pixel, in units of the frame."""
    scr: float
    """Signal-to-clutter ratio as reached, see `make_scene`."""


def footprint(target: Target, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Array]:
    """A target's contribution over its amplitude, 1 at its brightest pixel, in the box where it matters."""
    reach = 2 * math.ceil(target.size)
    box = _box(target, reach, shape)
    y, x = np.mgrid[box].astype(np.float64)
    cos, sin = math.cos(target.angle), math.sin(target.angle)
    u = (x - target.x) * cos + (y - target.y) * sin
    v = (y - target.y) * cos - (x - target.x) * sin
    exponent = (u**2 / target.aspect + v**2 * target.aspect) / (target.size / 2) ** 2
    # a centre between pixels must not cost a one-pixel target its amplitude
    return box, np.exp(exponent.min() - exponent)


def _box(target: Target, reach: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    row, column = round(target.y), round(target.x)
    return (
        slice(max(0, row - reach), min(shape[0], row + reach + 1)),
        slice(max(0, column - reach), min(shape[1], column + reach + 1)),
    )


def _raise_to(target: Target, clutter: Array) -> tuple[Target, float]:
    """The target with the amplitude that gives it `target.scr` at its place, and its peak."""
    window = clutter[_box(target, math.ceil(target.size) + WINDOW, _shape(clutter))]
    mean, std = float(window.mean()), max(float(window.std()), STD_FLOOR)
    box, profile = footprint(target, _shape(clutter))
    inside = profile >= MASK_FRACTION
    behind, profile = clutter[box][inside], profile[inside]
    # the brightest pixel of clutter and target together is then at mean + scr * std
    amplitude = float(np.min((mean + target.scr * std - behind) / profile))
    # never less than half of what it would add to a flat background, or clutter alone would make the peak
    amplitude = max(amplitude, 0.5 * target.scr * std)
    peak = float(np.max(behind + amplitude * profile))
    return replace(target, amplitude=amplitude, scr=(peak - mean) / std), peak


def _place(rng: Generator, wish: Target, clutter: Array, free: NDArray[np.bool_]) -> Target | None:
    """`wish` at a free place where it reaches its ratio below full scale, or the nearest to that."""
    places = np.flatnonzero(free)
    if not len(places):
        return None
    best, least = wish, math.inf
    for place in rng.choice(places, CANDIDATES):
        row, column = divmod(int(place), clutter.shape[1])
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        target, peak = _raise_to(replace(wish, x=float(column + dx), y=float(row + dy)), clutter)
        miss = max(0.0, peak - 1) + max(0.0, target.scr - wish.scr - 1e-6)
        if miss < least:
            best, least = target, miss
        if miss == 0:
            break
    return best


def plant(
    rng: Generator,
    clutter: Array,
    count: int,
    size: tuple[float, float],
    scr: tuple[float, float],
    *,
    log_sizes: bool,
) -> list[Target]:
    """`count` targets, each with its amplitude, apart from each other and from the border.

    Args:
        rng: of every choice.
        clutter: `(H, W)`, the frame without targets.
        count: how many.
        size: least and largest size in px.
        scr: least and largest signal-to-clutter ratio.
        log_sizes: draw sizes evenly in their logarithm, so that small ones dominate.

    Raises:
        ValueError: they don't fit.
    """
    height, width = clutter.shape
    targets: list[Target] = []
    for _ in range(count):
        width_px = _log_uniform(rng, *size) if log_sizes else float(rng.uniform(*size))
        # below 3 px the optics make every target round
        aspect = float(rng.uniform(1.0, 1.6)) if width_px >= 3 else 1.0
        wish = Target(0, 0, width_px, aspect, float(rng.uniform(0, math.pi)), 0, float(rng.uniform(*scr)))
        margin = _margin(width_px)
        free = np.zeros(clutter.shape, dtype=bool)
        free[margin : height - margin, margin : width - margin] = True
        for other in targets:
            y, x = np.ogrid[:height, :width]
            free &= np.hypot(y - other.y, x - other.x) > width_px + other.size + GAP
        target = _place(rng, wish, clutter, free)
        if target is None:
            raise ValueError(
                f"targets: only {len(targets)} of {count} fit into {height} x {width} px at sizes up to "
                f"{size[1]:g} px; ask for fewer or smaller targets or a larger frame"
            )
        targets.append(target)
    return targets


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return low * math.pow(high / low, rng.uniform())


def _margin(size: float) -> int:
    return math.ceil(0.75 * size) + 1


def _shape(array: Array) -> tuple[int, int]:
    height, width = array.shape
    return height, width
