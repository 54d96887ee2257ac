"""NoisySIRST: a data set with Gaussian noise on its frames.

The noise-robustness test of SeRankDet's paper: SIRST with additive white Gaussian noise of standard deviation 10,
20 or 30 on the 8-bit scale. The published frames are not needed: the noise is made here, from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from serank.datasets.sample import Sample

__all__ = ["NoisySIRST"]


class NoisySIRST(Sequence[Sample]):
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
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed must be an int >= 0; got {seed!r}")
        self.samples = samples
        self.sigma = float(sigma)
        self.seed = int(seed)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The noisy sample at `index`; negative counts from the end."""
        index = range(len(self))[index]
        name, frame, mask = self.samples[index]
        noise = np.random.default_rng((self.seed, index)).standard_normal(frame.shape)
        levels = np.rint(np.clip(255 * frame.astype(np.float64) + self.sigma * noise, 0, 255))
        return Sample(name, levels.astype(np.float32) / np.float32(255), mask)
