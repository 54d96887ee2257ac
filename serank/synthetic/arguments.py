"""Checks of what synthetic scenes are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from serank.synthetic.backgrounds import BACKGROUNDS
from serank.synthetic.sensor import Sensor

MIN_SIDE = 16
MOST = {"noise": 0.5, "blur": 10.0, "shot": 0.5, "stripes": 0.5, "shading": 0.5, "defects": 0.1}


def value_range(name: str, value: float | tuple[float, float], least: float) -> tuple[float, float]:
    """A number or a pair as a pair (low, high), checked."""
    low, high = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
    if not all(isinstance(v, (int, float, np.integer, np.floating)) for v in (low, high)):
        raise ValueError(f"{name} must be a number or a pair (low, high); got {value!r}")
    if not least <= low <= high < math.inf:
        raise ValueError(f"{name} must be finite, >= {least:g}, low <= high; got {value!r}")
    return low, high


def count_range(value: int | tuple[int, int]) -> tuple[int, int]:
    """The number of targets as a pair (low, high), checked."""
    low, high = value_range("targets", value, 0)
    if low != int(low) or high != int(high):
        raise ValueError(f"targets must be an int or a pair of ints; got {value!r}")
    return int(low), int(high)


def check_scene(height: int, width: int, backgrounds: Sequence[str], size: float, sizes: str, sensor: Sensor) -> None:
    """Refuses what a scene can't have; `size` is the largest."""
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, (int, np.integer)) or value < MIN_SIDE:
            raise ValueError(f"{name} must be an int >= {MIN_SIDE} px; got {value!r}")
    unknown = [b for b in backgrounds if b not in BACKGROUNDS]
    if unknown or not backgrounds:
        raise ValueError(f"background must be among {', '.join(BACKGROUNDS)}; got {unknown or backgrounds!r}")
    most_size = min(height, width) / 3
    if size > most_size:
        raise ValueError(
            f"size must be at most a third of the shorter side, {most_size:.1f} px; got {size:g}; "
            "make the frame larger or the targets smaller"
        )
    if sizes not in ("even", "log"):
        raise ValueError(f"sizes must be 'even' or 'log'; got {sizes!r}")
    for name, most in MOST.items():
        strength = getattr(sensor, name)
        if not 0 <= strength <= most:
            raise ValueError(f"{name} must be in [0, {most:g}]; got {strength!r}")
