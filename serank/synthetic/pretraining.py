"""Synthetic scenes to pre-train on: every parameter of `make_scene` drawn anew for each scene.

| parameter | drawn |
|---|---|
| background | evenly from `BACKGROUNDS` |
| targets | none in 30% of scenes; else 1 (55%), 2 (25%), 3 (12%), 4 (5%), 5 (3%) |
| size | per target 1.5 to 11 px wide, 1 to 100 px of area, evenly in the logarithm |
| scr | per target from a range `(s, 2 s)`, s log-evenly from 2 to 30, lowered where noise leaves no room for it |
| noise | 0.001 to 0.03, log-evenly |
| blur | 0.3 to 2 px |
| shot | in half of the scenes, 0.002 to 0.03, log-evenly |
| stripes | in 40%, 0.001 to 0.02, log-evenly |
| shading | in 40%, 0.005 to 0.05, log-evenly |
| defects | in 40%, 1e-5 to 1e-3 of the pixels, log-evenly |

Sizes start at 1.5 px because of the defects: every real target is spread by the optics, and what lights a single pixel
and nothing beside it is a hot pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
from numpy.random import Generator

from serank.datasets.sample import Sample
from serank.synthetic.arguments import check_seed
from serank.synthetic.backgrounds import BACKGROUNDS
from serank.synthetic.scene import Scene, SizeLaw, make_scene

__all__ = ["PretrainingScenes", "pretraining_scenes"]

MIN_SIZE = 64
COUNTS = {0: 0.3, 1: 0.385, 2: 0.175, 3: 0.084, 4: 0.035, 5: 0.021}
"""Probability of each number of targets."""
REACH = 0.4
"""What a target may rise above its surroundings, in units of the full range; beyond it frames would be dimmed."""


class _Parameters(TypedDict):
    background: str
    targets: int
    size: tuple[float, float]
    scr: tuple[float, float]
    noise: float
    blur: float
    sizes: SizeLaw
    shot: float
    stripes: float
    shading: float
    defects: float


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return low * math.pow(high / low, rng.uniform())


def _sometimes(rng: Generator, share: float, low: float, high: float) -> float:
    strength = _log_uniform(rng, low, high)
    return strength if rng.uniform() < share else 0.0


def _draw(rng: Generator) -> _Parameters:
    noise = _log_uniform(rng, 0.001, 0.03)
    shot = _sometimes(rng, 0.5, 0.002, 0.03)
    stripes = _sometimes(rng, 0.4, 0.001, 0.02)
    spread = math.sqrt(noise**2 + shot**2 / 2 + stripes**2)
    ratio = max(2.0, min(_log_uniform(rng, 2, 30), REACH / (2 * max(spread, 0.005))))
    return {
        "background": str(rng.choice(BACKGROUNDS)),
        "targets": int(rng.choice(list(COUNTS), p=list(COUNTS.values()))),
        "size": (1.5, 11.0),
        "scr": (ratio, 2 * ratio),
        "noise": noise,
        "blur": float(rng.uniform(0.3, 2.0)),
        "sizes": "log",
        "shot": shot,
        "stripes": stripes,
        "shading": _sometimes(rng, 0.4, 0.005, 0.05),
        "defects": _sometimes(rng, 0.4, 1e-5, 1e-3),
    }


class PretrainingScenes(Sequence[Sample]):
    """The data set that `pretraining_scenes` gives; samples are named `BACKGROUND_INDEX`."""

    def __init__(self, length: int, size: int, seed: int) -> None:
        self.length = length
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The sample at `index`, frame and mask `(size, size)`; negative counts from the end."""
        index = range(self.length)[index]
        scene, parameters = self._make(index)
        return Sample(f"{parameters['background']}_{index:06d}", scene.frame, scene.mask)

    def scene(self, index: int) -> Scene:
        """The scene at `index` with its targets."""
        return self._make(range(self.length)[index])[0]

    def _make(self, index: int) -> tuple[Scene, _Parameters]:
        rng = np.random.default_rng((self.seed, index))
        parameters = _draw(rng)
        return make_scene(self.size, self.size, seed=rng, **parameters), parameters


def pretraining_scenes(length: int, size: int = 256, seed: int = 0) -> PretrainingScenes:
    """A data set of synthetic scenes of every kind, each made when it is asked for.

    Every parameter of a scene is drawn from a wide range; the table of the module states them. Sample i depends on
    `size`, `seed` and i alone, so data loader workers agree.

    Args:
        length: how many samples, >= 1.
        size: height and width in px, >= 64.
        seed: an int >= 0; another one gives other samples.

    Raises:
        ValueError: an argument is out of its range.
    """
    for name, value, least in (("length", length, 1), ("size", size, MIN_SIZE)):
        if not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an int >= {least}; got {value!r}")
    check_seed(seed)
    return PretrainingScenes(int(length), int(size), int(seed))
