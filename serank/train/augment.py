"""Training crops with random scale, position, flips, blur, contrast and defects of sensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from serank.datasets.sample import Sample
from serank.frames.preparation import FrameSpec
from serank.frames.scaling import UNIT_CONTRAST, UNIT_MEDIAN, location_contrast, location_spread
from serank.train.paste import paste_target
from serank.train.sensor import EFFECTS, add_sensor_effects
from serank.utils.checks import check_count, check_number

Float = NDArray[np.float32]

SHARES = (
    "unscaled",
    "target_share",
    "blur",
    "paste",
    *EFFECTS,
    "counts",
)
"""Attributes of `Augmentation` that are shares of the crops."""
COUNTS = (0.35, 0.1)
"""Largest change of the gain's logarithm and of the offset, in grey, of `Augmentation.counts`."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training frame.

    Attributes:
        crop: side of the square crop, >= 16 px of the scaled frame.
        scale: range (low, high) of the random scale, log-uniform, on top of the scale used in detection.
        unscaled: share of crops at the scale of detection, in [0, 1]. Where that leaves a frame's size as it is, these
            alone hold targets and masks pixel by pixel as they were labelled.
        target_share: share of crops positioned to hold a target, where the frame has one, in [0, 1].
        blur: share of crops blurred by a Gaussian with a sigma of up to 1 px, in [0, 1].
        contrast: largest relative change of gain and, times 0.5, of offset, in [0, 1].
        paste: share of crops that get a target of another frame, see `serank.train.paste.paste_target`, in [0, 1].
        noise: share of crops with noise added to each pixel, in [0, 1]. This and the following are sensor effects, see
            `serank.train.sensor`, which has shares that suit any camera's frames (`SENSOR`).
        stripes: share of crops with fixed-pattern noise of columns, and half as many of rows.
        dead_pixels: share of crops with dead or hot pixels.
        dead_lines: share of crops with dead rows or columns.
        hot_region: share of crops with a disc far hotter than the scene, never over a target.
        saturation: share of crops whose brightest pixels saturate.
        counts: share of crops mapped as frames of an unknown range are, by the median and contrast of their frame, give
            or take a little (`serank.frames.scaling.to_unit`); it takes the place of `contrast`.

    numpy's numbers are stored as Python's.

    Raises:
        ValueError: a value out of its range or of another type; names the attribute.
    """

    crop: int = 256
    scale: tuple[float, float] = (0.5, 2.0)
    unscaled: float = 0.0
    target_share: float = 0.5
    blur: float = 0.3
    contrast: float = 0.2
    paste: float = 0.0
    noise: float = 0.0
    stripes: float = 0.0
    dead_pixels: float = 0.0
    dead_lines: float = 0.0
    hot_region: float = 0.0
    saturation: float = 0.0
    counts: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", check_count(self.crop, "crop", 16))
        for name in (*SHARES, "contrast"):
            object.__setattr__(self, name, check_number(getattr(self, name), name))
        if not isinstance(self.scale, (tuple, list)) or len(self.scale) != 2:
            raise ValueError(f"scale must be a range (low, high); got {self.scale!r}")
        low, high = (check_number(value, "scale") for value in self.scale)
        object.__setattr__(self, "scale", (low, high))
        if not 0 < low <= high < math.inf:
            raise ValueError(f"scale must be a range (low, high) with 0 < low <= high; got {self.scale}")
        for name in (*SHARES, "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; got {getattr(self, name)}")

    @property
    def has_sensor_effects(self) -> bool:
        """Whether some crops get an effect of `serank.train.sensor`."""
        return any(getattr(self, effect) for effect in EFFECTS)


class RandomCrops:
    """A random crop of each frame of a data set, determined by seed, epoch and index.

    Args:
        samples: the data set.
        augmentation: see `Augmentation`.
        spec: the network's preprocessing, which sets the scale.
        seed: of all random numbers, >= 0.
        soft: give the soft targets too; every sample must have one. The crops are the same with and without.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        augmentation: Augmentation,
        spec: FrameSpec,
        seed: int = 0,
        *,
        soft: bool = False,
    ) -> None:
        self.samples = samples
        self.spec = spec
        self.augmentation = augmentation
        self.seed = seed
        self.soft = soft
        self._around_targets = replace(augmentation, target_share=1.0)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        """The crop of (epoch, index): frame `(1, crop, crop)` float32 in [0, 1], mask alike, 0 or 1, and its name.

        With `soft` the mask is `(2, crop, crop)`: the mask, then the soft target in [0, 1].
        """
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.samples[index]
        frame, mask, soft = random_crop(sample, self.augmentation, self.spec, rng)
        if rng.random() < self.augmentation.paste:
            donor = self.samples[int(rng.integers(len(self.samples)))]
            donor_frame, donor_mask, donor_soft = random_crop(donor, self._around_targets, self.spec, rng)
            paste_target(
                frame,
                mask,
                donor_frame,
                donor_mask,
                rng,
                soft=soft,
                donor_soft=donor_soft,
            )
        targets = np.stack([mask, soft]) if self.soft and soft is not None else mask[None]
        return torch.from_numpy(frame)[None], torch.from_numpy(targets), sample.name


def random_crop(
    sample: Sample, augmentation: Augmentation, spec: FrameSpec, rng: np.random.Generator
) -> tuple[Float, Float, Float | None]:
    """One augmented crop of a scaled frame, its mask and its soft target, if any, each `(crop, crop)` float32."""
    a = augmentation
    unscaled = a.unscaled and rng.random() < a.unscaled
    scale = 1.0 if unscaled else float(np.exp(rng.uniform(np.log(a.scale[0]), np.log(a.scale[1]))))
    window = a.crop / (scale * spec.scale(*sample.frame.shape))
    at = _corner(sample.mask, window, rng, a.target_share)
    frame = _cut(sample.frame, at, window, a.crop)
    targets = [_binary(_cut(sample.mask.astype(np.float32), at, window, a.crop))]
    if sample.soft is not None:
        targets.append(np.clip(_cut(sample.soft.astype(np.float32) / np.float32(255), at, window, a.crop), 0, 1))
    if rng.random() < a.blur:
        frame = ndimage.gaussian_filter(frame, rng.uniform(0, 1))
    if a.has_sensor_effects:
        shares = {effect: getattr(a, effect) for effect in EFFECTS}
        frame = add_sensor_effects(frame, targets[0], shares, location_spread(sample.frame)[1], rng)
    frame = _change_contrast(frame, a, sample.frame, rng)
    for axis in (0, 1):
        if rng.random() < 0.5:
            frame, targets = np.flip(frame, axis), [np.flip(target, axis) for target in targets]
    if rng.random() < 0.5:
        frame, targets = frame.T, [target.T for target in targets]
    mask, *soft = (np.ascontiguousarray(target, np.float32) for target in targets)
    return np.ascontiguousarray(frame, np.float32), mask, soft[0] if soft else None


def _change_contrast(frame: Float, a: Augmentation, whole: Float, rng: np.random.Generator) -> Float:
    """Another gain and offset, clipped to [0, 1]; `whole` is the frame that the crop is of."""
    if a.counts and rng.random() < a.counts:
        log_gain, offset = (rng.uniform(-largest, largest) for largest in COUNTS)
        median, contrast = location_contrast(whole)
        changed = UNIT_MEDIAN + offset + (frame - median) * (math.exp(log_gain) * UNIT_CONTRAST / contrast)
    else:
        gain = 1 + rng.uniform(-a.contrast, a.contrast)
        changed = frame * gain + 0.5 * rng.uniform(-a.contrast, a.contrast)
    return np.asarray(np.clip(changed, 0, 1))


def _corner(
    mask: NDArray[np.bool_], window: float, rng: np.random.Generator, target_share: float
) -> tuple[float, float]:
    """Top-left corner (row, column) of a square window, in source pixels; inside the frame where it fits.

    It lies on whole pixels where the frame has room or is smaller than the window, so that a crop at the frame's own
    scale is no resampled one: half a pixel's shift would blur targets of a few pixels, and move their masks' edges.
    """
    low = [min(0.0, float(math.floor((side - window) / 2))) for side in mask.shape]
    high = [max(side - window, start) for side, start in zip(mask.shape, low, strict=True)]
    if rng.random() < target_share:
        points = np.argwhere(mask)
        if len(points):
            point = points[rng.integers(len(points))]
            low = [float(np.clip(p + 1 - window, a, b)) for p, a, b in zip(point, low, high, strict=True)]
            high = [float(np.clip(p, a, b)) for p, a, b in zip(point, low, high, strict=True)]
    return _start(rng, low[0], high[0]), _start(rng, low[1], high[1])


def _start(rng: np.random.Generator, low: float, high: float) -> float:
    """A random whole number from low to high, or where there is none any number."""
    start = rng.uniform(low, high)
    first, last = math.ceil(low), math.floor(high)
    return float(min(max(round(start), first), last)) if first <= last else start


def _binary(coverage: Float) -> Float:
    """A resized mask as 0 and 1, cut at one half; a target that this would erase keeps its most covered pixel."""
    mask = coverage > 0.5
    labels, count = ndimage.label(coverage > 0.02, structure=np.ones((3, 3)))
    kept = np.unique(labels[mask])
    for label in np.setdiff1d(np.arange(1, count + 1), kept):
        mask[np.unravel_index(np.argmax(np.where(labels == label, coverage, 0)), mask.shape)] = True
    return mask.astype(np.float32)


def _cut(array: Float, at: tuple[float, float], window: float, size: int) -> Float:
    """The square window at `at` resized to `size`; what lies outside the frame mirrors it."""
    before = [max(0, int(np.ceil(-start))) for start in at]
    after = [max(0, int(np.ceil(start + window - side))) for start, side in zip(at, array.shape, strict=True)]
    if any(before) or any(after):
        array = np.pad(array, list(zip(before, after, strict=True)), mode="symmetric")
    top, left = (start + pad for start, pad in zip(at, before, strict=True))
    box = (left, top, min(left + window, array.shape[1]), min(top + window, array.shape[0]))
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR, box=box))
