"""What real sensors add to a scene: noise, fixed-pattern stripes, dead pixels and lines, hot regions, saturation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

EFFECTS = ("noise", "stripes", "dead_pixels", "dead_lines", "hot_region", "saturation")
"""Names of the effects; their shares of crops are attributes of `Augmentation`."""
SENSOR: dict[str, Any] = dict.fromkeys(EFFECTS, 0.1) | {"noise": 0.15, "counts": 0.5}
"""Shares of crops with each effect, and mapped as raw counts are, for networks that take any camera's frames."""

NOISE = 0.3
"""Largest standard deviation of pixel noise, in spreads of the frame."""
STRIPES = 0.25
"""The same of columns, and in half as many crops of rows."""
DEAD_PIXELS = 0.003
"""Largest share of dead pixels, which lie 12 to 1800 spreads from the median."""
DEAD_LINES = 3
"""Most dead rows or columns, which lie 5 to 3000 spreads from the median."""
HOT_SIDE = 0.12
"""Largest radius of a hot region, as a share of the crop's side; the least is 4 px. 5 to 1000 spreads hot."""
COVERED = 0.02
"""Share of a region's heat that a target may get before it counts as covered."""
SATURATION = 0.97
"""Least share of pixels that stay below saturation."""


def add_sensor_effects(
    frame: Float, mask: Float, shares: Mapping[str, float], spread: float, rng: np.random.Generator
) -> Float:
    """A crop with some of the effects, each by its own share of crops; no random number is drawn for a share of 0.

    Args:
        frame: `(H, W)` float32, scaled values.
        mask: `(H, W)` float32, 0 or 1; a hot region that would touch a target is left out.
        shares: of crops in which each of `EFFECTS` occurs, in [0, 1]; 0 for one that isn't named.
        spread: size of the effects in the unit of the values, see `serank.frames.scaling.location_spread`.
        rng: source of the random numbers.

    Returns:
        `(H, W)` float32, not clipped.
    """
    height, width = frame.shape
    f = frame.astype(np.float64)

    def happens(effect: str, part: float = 1) -> bool:
        share = shares.get(effect, 0) * part
        return share > 0 and rng.random() < share

    if happens("noise"):
        f += rng.normal(0, rng.uniform(0, NOISE) * spread, f.shape)
    if happens("stripes"):
        f += rng.normal(0, rng.uniform(0, STRIPES) * spread, (1, width))
    if happens("stripes", 0.5):
        f += rng.normal(0, rng.uniform(0, STRIPES) * spread, (height, 1))
    if happens("dead_pixels"):
        _kill_pixels(f, spread, rng)
    if happens("dead_lines"):
        _kill_lines(f, spread, rng)
    if happens("hot_region"):
        heat = _hot_region(height, width, rng)
        size = spread * np.exp(rng.uniform(np.log(5), np.log(1000)))
        if not ((heat > COVERED) & (mask > 0)).any():
            f += heat * size
    if happens("saturation"):
        f = np.minimum(f, np.quantile(f, rng.uniform(SATURATION, 1)))
    return f.astype(np.float32)


def _kill_pixels(f: NDArray[np.float64], spread: float, rng: np.random.Generator) -> None:
    count = int(rng.integers(1, max(2, int(DEAD_PIXELS * f.size))))
    places = rng.integers(0, f.size, count)
    signs = np.where(rng.random(count) < rng.random(), 1, -1)
    f.reshape(-1)[places] = np.median(f) + signs * (60 * spread * rng.uniform(0.2, 30))


def _kill_lines(f: NDArray[np.float64], spread: float, rng: np.random.Generator) -> None:
    count, rows = int(rng.integers(1, DEAD_LINES + 1)), bool(rng.integers(2))
    value = np.median(f) + rng.choice([-1, 1]) * spread * np.exp(rng.uniform(np.log(5), np.log(3000)))
    for _ in range(count):
        if rows:
            f[rng.integers(f.shape[0])] = value
        else:
            f[:, rng.integers(f.shape[1])] = value


def _hot_region(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Heat `(height, width)` in [0, 1] of a disc with soft edges."""
    radius = rng.uniform(4, max(4.0, HOT_SIDE * height))
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows, columns = np.ogrid[:height, :width]
    edge = (np.hypot(rows - y, columns - x) - radius) / rng.uniform(0.3, 2)
    heat: NDArray[np.float64] = 1 / (1 + np.exp(edge.clip(-50, 50)))
    return heat
