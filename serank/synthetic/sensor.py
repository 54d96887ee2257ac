"""What optics and sensor make of a scene: blur, noise, fixed patterns, defective pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from serank.synthetic.backgrounds import MAKERS, power_law_noise

Array = NDArray[np.float64]

DEFECT_SHARE = (0.3, 1.0)
"""How far a defective pixel is moved from its value to 0 or 1, drawn evenly."""


@dataclass(frozen=True)
class Sensor:
    """Strengths of what disturbs a frame, each 0 for none; see `make_scene`."""

    noise: float
    blur: float
    shot: float = 0.0
    stripes: float = 0.0
    shading: float = 0.0
    defects: float = 0.0


def clutter(rng: Generator, height: int, width: int, background: str, sensor: Sensor) -> Array:
    """What the sensor sees without targets, defects left out: `(H, W)` in [0, 1]."""
    scene = MAKERS[background](rng, height, width)
    scene = ndimage.gaussian_filter(scene, sensor.blur, mode="nearest")
    # real sensors saturate below full scale after their gain control, which leaves room for targets
    scene = np.clip(scene, 0.02, 0.85)
    seen = scene + sensor.noise * rng.standard_normal((height, width))
    # nothing is drawn for what is off, so that a seed gives the same scene with and without these
    if sensor.shot:
        seen += sensor.shot * np.sqrt(scene) * rng.standard_normal((height, width))
    if sensor.stripes:
        seen += sensor.stripes * rng.standard_normal((1, width))
        seen += 0.5 * sensor.stripes * rng.standard_normal((height, 1))
    if sensor.shading:
        seen += sensor.shading * power_law_noise(rng, height, width, 5.0)
    return np.asarray(np.clip(seen, 0, 1))


def add_defects(rng: Generator, frame: Array, mask: NDArray[np.bool_], share: float) -> None:
    """Moves single pixels of `frame` towards 0 (dead) or 1 (hot), in place; none is at a target or touches one."""
    near = np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3), np.bool_), iterations=2))
    chosen = (rng.random(frame.shape) < share) & ~near
    count = int(chosen.sum())
    strength = rng.uniform(*DEFECT_SHARE, count)
    ends = rng.integers(0, 2, count)
    frame[chosen] += strength * (ends - frame[chosen])
