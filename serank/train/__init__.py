"""Training: one function, its recipe and augmentation."""

from serank.train.augment import Augmentation
from serank.train.recipe import PRESETS, Preset, Recipe, preset
from serank.train.run import History
from serank.train.trainer import fit

__all__ = ["PRESETS", "Augmentation", "History", "Preset", "Recipe", "fit", "preset"]
