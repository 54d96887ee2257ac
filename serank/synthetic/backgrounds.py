"""Backgrounds of synthetic scenes: filtered noise shaped into sky, cloud, sea and ground.

Natural scenes have power-law spectra (Field, "Relations between the statistics of natural images and the
response properties of cortical cells", JOSA A 1987), so every background starts from noise of spectrum
`1 / f^beta`. Brightness and contrast were set by eye to those of the frames of SIRST.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Each maker is (rng, height, width) -> (H, W) float64, roughly in [0, 1].


def power_law_noise(
    rng: Generator,
    height: int,
    width: int,
    beta: float,
    *,
    outer: float = math.inf,
    stretch: float = 1.0,
) -> Array:
    """Noise of power spectrum `1 / (f^2 + outer^-2)^(beta / 2)`, mean 0 and deviation 1.

    Args:
        rng: source of the noise.
        height: H.
        width: W.
        beta: slope of the spectrum; 2 is rough, 4 smooth.
        outer: longest structure, in px.
        stretch: how many times longer structures are along x than along y.
    """
    # the transform is periodic: a larger field is made and cut, so that opposite borders differ
    rows, columns = (32 * math.ceil(side * 1.25 / 32) for side in (height, width))
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns)))
    squared = np.fft.fftfreq(rows)[:, None] ** 2 + (stretch * np.fft.rfftfreq(columns)) ** 2 + outer**-2.0
    squared[0, 0] = math.inf
    field = np.fft.irfft2(spectrum * squared ** (-beta / 4), s=(rows, columns))[:height, :width]
    return np.asarray((field - field.mean()) / field.std())


def _step(values: Array, softness: float) -> Array:
    """Soft threshold at 0, from 0 to 1 over about four times `softness`."""
    return np.asarray(0.5 + 0.5 * np.tanh(values / (2 * softness)))


def _plane(rng: Generator, height: int, width: int) -> Array:
    """Linear gradient from -0.5 to 0.5 in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    plane = math.sin(angle) * y + math.cos(angle) * x
    return np.asarray(plane / np.ptp(plane))


def _sky(rng: Generator, height: int, width: int) -> Array:
    level, slope = rng.uniform(0.25, 0.5), rng.uniform(0.02, 0.2)
    haze = rng.uniform(0.004, 0.02) * power_law_noise(rng, height, width, 3.2, stretch=1.5)
    plane = _plane(rng, height, width)
    return np.asarray(level + slope * (plane + plane**2) + haze)


def _cloud(rng: Generator, height: int, width: int) -> Array:
    field = power_law_noise(rng, height, width, rng.uniform(3.1, 4.0), stretch=rng.uniform(1.0, 1.8))
    folds = power_law_noise(rng, height, width, 3.2, outer=0.3 * max(height, width))
    cover = _step(field - rng.uniform(-0.3, 0.9), rng.uniform(0.12, 0.6))
    body = cover * (1 + rng.uniform(0.06, 0.18) * folds)
    level, contrast = rng.uniform(0.15, 0.4), rng.uniform(0.12, 0.5)
    gradient = rng.uniform(0.03, 0.15) * _plane(rng, height, width)
    return np.asarray(level + contrast * body + gradient)


def _sea(rng: Generator, height: int, width: int) -> Array:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    # from 0 at the horizon to 1 at the lower border; negative is sky
    depth = (y - rng.uniform(-0.2, 0.35) - rng.uniform(-0.06, 0.06) * x) / 0.85
    below = np.clip(depth, 0, 1)
    far = power_law_noise(rng, height, width, 2.0, outer=16, stretch=5)
    near = power_law_noise(rng, height, width, 2.6, outer=0.12 * height, stretch=4)
    swell = power_law_noise(rng, height, width, 3.4, stretch=4)
    waves = (1 - below) * far + (0.4 + below) * near
    glitter = np.exp(-(((x - rng.uniform(0, 1)) / rng.uniform(0.15, 0.4)) ** 2))
    glints = np.clip(far + 0.5 * near - 2.0, 0, 1.5) * glitter
    level, slope = rng.uniform(0.28, 0.5), rng.uniform(-0.12, 0.12)
    sea = level + slope * below + rng.uniform(0.008, 0.025) * waves + 0.015 * swell + 0.06 * glints
    sea += rng.uniform(0.0, 0.1) * glitter
    sky = level + rng.uniform(-0.15, 0.15) + rng.uniform(-0.2, 0.2) * depth
    sky += 0.015 * power_law_noise(rng, height, width, 3.4, stretch=3)
    # the horizon is sharp: about one pixel
    return np.asarray(sky + _step(depth, 0.3 / height) * (sea - sky))


def _ground(rng: Generator, height: int, width: int) -> Array:
    side = min(height, width)
    stretch = rng.uniform(1.5, 4.0)
    regions = power_law_noise(rng, height, width, 3.2, stretch=stretch)
    levels = rng.uniform(-1, 1, 7)
    # a few brightness steps with sharp borders between them, as between fields
    scene = levels[np.clip(np.floor(1.3 * regions) + 3, 0, 6).astype(int)]
    scene = 0.9 * scene + 0.5 * power_law_noise(rng, height, width, 2.5, stretch=stretch)
    scrub = np.clip(power_law_noise(rng, height, width, 2.0, outer=12, stretch=1.5) - 1.2, 0, 1.5)
    scene += rng.uniform(-1.2, 1.2) * scrub * _step(regions, 0.2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = rng.uniform(-0.3, 0.3)
    for _ in range(rng.integers(1, 3)):  # roads
        offset = (y - rng.uniform(0.3, 1) * height) * math.cos(angle) - (x - width / 2) * math.sin(angle)
        bend = 0.04 * side * np.sin(2 * math.pi * (x / width * rng.uniform(0.3, 1) + rng.uniform()))
        road = np.abs(offset + bend) < max(1.0, side * rng.uniform(0.006, 0.02))
        scene = np.where(road, rng.uniform(-1.5, 1.5) + 0.15 * scene, scene)
    for _ in range(rng.integers(1, 6)):  # roofs, larger than targets
        u, v = x - rng.uniform(0, width), y - rng.uniform(0.3, 1) * height
        u, v = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
        half_width, half_height = side * rng.uniform(0.04, 0.12), side * rng.uniform(0.02, 0.05)
        roof = (np.abs(u) < half_width) & (np.abs(v) < half_height)
        slope = np.where(v < 0, 0.2, -0.2)
        scene = np.where(roof, rng.uniform(-1.2, 1.8) + slope + 0.2 * scene, scene)
    for _ in range(rng.integers(1, 4)):  # warm patches
        u, v = (x - rng.uniform(0, width)) / (2 * side), (y - rng.uniform(0, height)) / side
        scene += rng.uniform(0.5, 1.5) * np.exp(-(u**2 + v**2) / (2 * rng.uniform(0.04, 0.12) ** 2))
    scene = rng.uniform(0.3, 0.5) + rng.uniform(0.04, 0.1) * scene
    if rng.uniform() < 0.5:  # a ridge with sky above it
        ridge = rng.uniform(0.1, 0.3) + 0.03 * power_law_noise(rng, 1, width, 2.6)
        sky = rng.uniform(0.2, 0.45) + 0.1 * y / height
        scene = sky + _step(y / height - ridge, 0.5 / height) * (scene - sky)
    return np.asarray(scene)


MAKERS: dict[str, Callable[[Generator, int, int], Array]] = {
    "cloud": _cloud,
    "sea": _sea,
    "ground": _ground,
    "sky": _sky,
}

BACKGROUNDS = tuple(MAKERS)
"""Names of the backgrounds."""
