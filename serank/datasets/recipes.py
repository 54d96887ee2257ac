"""Published recipes that make a data set of another: NoisySIRST and SIRST-AUG.

NoisySIRST is the noise-robustness test of SeRankDet's paper: SIRST with additive white Gaussian noise of standard
deviation 10, 20 or 30 on the 8-bit scale. The published frames are not needed: the noise is made here, from a seed.

SIRST-AUG comes from Zhang et al., "Attention-Guided Pyramid Context Networks for Detecting Infrared Small Target
Under Complex Background", IEEE TAES 2023: frames of 256 x 256 px, 8525 for training and 545 for tests, made of SIRST
by cropping each target five times, at the four corners and in the centre of the crop, and by rotating at random. The
code was not published. Where the description is silent, this is what is done here:

- number of rotations: `rotations` versions of each crop, the first of them unrotated. 8525 = 341 * 5 * 5, which
  suggests five for each training crop; 545 = 109 * 5, and SIRST's 86 test frames hold 109 targets, which suggests
  one, unrotated, for tests. A frame of several targets gives five crops for each, so that the 341 training frames
  with their 424 targets give 10600 here, not 8525;
- rotation: by any angle, drawn evenly, about the target's middle pixel. The crop is sampled from the whole frame,
  frames bilinearly and masks by nearest, so that no corner is empty;
- corners: the target's middle pixel lies so far inside both borders that the whole target is in the crop with 2 px to
  spare, rotated or not; in the middle of the crop if it is too large for that;
- beyond the frame's border, and for frames smaller than the crop: the frame and its mask are mirrored at the border,
  which repeats the pixels of the border, as often as needed. A mirrored target is a target in the mask;
- scale: pixels are never resized.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.datasets.sample import Sample, Samples
from serank.metrics.components import component_table, label_components
from serank.utils.checks import check_count

PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "centre")
SPARE = 2
"""Pixels between a target at a corner and the border of the crop."""


class NoisySIRST(Samples[Sample]):
    """A data set with Gaussian noise added to its frames; masks and names stay.

    The noise of sample i depends on `seed` and i alone, not on the order of access or on the process. Frames are
    clipped to [0, 1] and rounded to the 256 levels of 8 bits, as files are: reading what `write_folder` writes of it
    gives the same frames.

    Args:
        samples: any data set, such as `FolderDataset("sirst", "val")`.
        sigma: standard deviation of the noise in grey levels of 8 bits, > 0; 10, 20 and 30 in the paper.
        seed: an int >= 0. Two data sets of one seed have the same noise, of different `sigma` the same but scaled.

    Raises:
        ValueError: `sigma` or `seed` is out of its range.
    """

    def __init__(self, samples: Sequence[Sample], sigma: float, seed: int = 0) -> None:
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be > 0 and finite, in grey levels of 8 bits such as 10; got {sigma!r}")
        self.samples = samples
        self.sigma = float(sigma)
        self.seed = check_count(seed, "seed", 0)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The noisy sample at `index`; negative counts from the end."""
        index = self._position(index)
        sample = self.samples[index]
        frame = sample.frame
        noise = np.random.default_rng((self.seed, index)).standard_normal(frame.shape)
        levels = np.rint(np.clip(255 * frame.astype(np.float64) + self.sigma * noise, 0, 255))
        return sample._replace(frame=levels.astype(np.float32) / np.float32(255))


class _Crop(NamedTuple):
    frame: int
    target: int
    row: int
    """Of the target's middle pixel in the frame."""
    column: int
    margin: int
    """From the crop's border to that pixel, for the crops at the corners."""
    place: str
    rotation: int
    """0 is unrotated."""


class SIRSTAug(Samples[Sample]):
    """The crops that `sirst_aug` makes of a data set, each made when it is asked for.

    Crop i depends on `seed`, i and the data set, not on the order of access. Names are
    `FRAME_tTARGET_PLACE_rROTATION`, such as `Misc_1_t0_top-left_r0`.

    Attributes:
        samples: the data set.
        size: side of the crops in px.
    """

    def __init__(self, samples: Sequence[Sample], size: int, rotations: int, seed: int) -> None:
        self.samples = samples
        self.size = size
        self.seed = seed
        self._crops = [
            _Crop(i, target, row, column, margin, place, rotation)
            for i in range(len(samples))
            for target, (row, column, margin) in enumerate(_targets(samples[i].mask, size))
            for place in PLACES
            for rotation in range(rotations)
        ]
        if not self._crops:
            raise ValueError("samples hold no target, and every crop is made around one; expected masks with targets")

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The crop at `index`, frame and mask `(size, size)`; negative counts from the end."""
        index = self._position(index)
        crop = self._crops[index]
        angle = np.random.default_rng((self.seed, index)).uniform(0, 2 * math.pi) if crop.rotation else 0.0
        name, frame, mask, *_ = self.samples[crop.frame]
        points = _points(crop, self.size, angle)
        return Sample(
            f"{name}_t{crop.target}_{crop.place}_r{crop.rotation}",
            _sample(frame, points, order=1).astype(np.float32),
            _sample(mask.astype(np.uint8), points, order=0).astype(np.bool_),
        )


def _targets(mask: NDArray[np.bool_], size: int) -> Iterator[tuple[int, int, int]]:
    """Row and column of each target's middle pixel, and how far inside a crop's corner it goes."""
    labels, count = label_components(mask)
    table = component_table(labels, count)
    for i in range(count):
        x0, y0, x1, y1 = table.boxes[i]
        rows, columns = np.nonzero(labels[y0:y1, x0:x1] == i + 1)
        rows, columns = rows + y0, columns + x0
        x, y = table.centroids[i]
        # the pixel of the target nearest to its centroid: that of a ring or an arc is no part of it
        middle = int(np.argmin(np.hypot(rows - y, columns - x)))
        row, column = int(rows[middle]), int(columns[middle])
        radius = float(np.hypot(rows - row, columns - column).max())
        yield row, column, min(math.ceil(radius) + SPARE, size // 2)


def _points(crop: _Crop, size: int, angle: float) -> NDArray[np.float64]:
    """Row and column in the frame of every pixel of a crop, `(2, size, size)`."""
    near, far = crop.margin, size - 1 - crop.margin
    row, column = {
        "top-left": (near, near),
        "top-right": (near, far),
        "bottom-left": (far, near),
        "bottom-right": (far, far),
        "centre": (size // 2, size // 2),
    }[crop.place]
    y, x = np.mgrid[:size, :size].astype(np.float64)
    y, x = y - row, x - column
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([crop.row + cos * y + sin * x, crop.column + cos * x - sin * y])


def _sample(array: NDArray[np.generic], points: NDArray[np.float64], order: int) -> NDArray[np.generic]:
    """`array` at `points`, by nearest (0) or bilinear (1), mirrored beyond its borders."""
    # imported here, since it takes longer to import than all the rest of serank
    from scipy import ndimage

    sampled: NDArray[np.generic] = ndimage.map_coordinates(array, points, order=order, mode="reflect")
    return sampled


def sirst_aug(samples: Sequence[Sample], *, size: int = 256, rotations: int = 5, seed: int = 0) -> SIRSTAug:
    """Five crops for each target of a data set, at its corners and in its centre, by the recipe of SIRST-AUG.

    The crops are views on `samples`, read again for each: give `FolderDataset` a `cache`, or write the crops with
    `write_folder`. Every crop holds its target; frames without a target give none. The module's documentation says what
    the recipe leaves open and how it is done here.

    Args:
        samples: any data set. Its masks are read once, to find the targets.
        size: side of the crops in px, >= 16; 256 in SIRST-AUG.
        rotations: versions of each crop, >= 1. The first is unrotated, each other rotated by an angle of its own.
        seed: an int >= 0, of the angles.

    Raises:
        ValueError: an argument is out of its range, or no sample has a target.
    """
    size, rotations = check_count(size, "size", 16), check_count(rotations, "rotations")
    return SIRSTAug(samples, size, rotations, check_count(seed, "seed", 0))
