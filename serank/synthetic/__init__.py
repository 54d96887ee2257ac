"""Synthetic infrared scenes with exact masks: backgrounds of filtered noise, a sensor's faults, Gaussian targets.

numpy and scipy only; the same seed gives the same scene. `make_scene` makes one, `SyntheticScenes` a data set.
"""

from __future__ import annotations

from serank.synthetic.backgrounds import BACKGROUNDS
from serank.synthetic.scene import Scene, make_scene
from serank.synthetic.scenes import SyntheticScenes
from serank.synthetic.targets import MASK_FRACTION, Target

__all__ = [
    "BACKGROUNDS",
    "MASK_FRACTION",
    "Scene",
    "SyntheticScenes",
    "Target",
    "make_scene",
]
