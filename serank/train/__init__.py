"""Training: one function, its recipe and augmentation."""

from serank.train.augment import Augmentation, RandomCrops
from serank.train.history import History
from serank.train.recipe import PRESETS, Preset, Recipe, preset
from serank.train.trainer import fit

__all__ = ["PRESETS", "Augmentation", "History", "Preset", "RandomCrops", "Recipe", "fit", "preset"]
