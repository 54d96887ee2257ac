"""Area under the pixel ROC curve of any number of frames, in fixed memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHIFT = 16
BINS = (int(np.float32(1).view(np.uint32)) >> SHIFT) + 1


class ScoreHistogram:
    """Counts of target and background pixels by probability.

    The bins are the high 16 bits of the float32 pattern, which rise with the value in [0, 1]: 16257 bins, each 1/128
    of a power of two wide, so that they are as fine near 0 (where backgrounds lie) as anywhere in proportion. Counts
    are integers: neither order nor split of the frames changes them.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS), np.int64)

    def add(self, probability: NDArray[np.floating], target: NDArray[np.bool_]) -> None:
        """Counts the pixels of a frame, `probability` `(H, W)` in [0, 1]."""
        # abs() because -0.0 has its sign in the pattern
        bins = np.abs(probability).astype(np.float32, copy=False).view(np.uint32) >> SHIFT
        for row, chosen in enumerate((~target, target)):
            self._counts[row] += np.bincount(bins[chosen], minlength=BINS)

    def merge(self, other: ScoreHistogram) -> None:
        """Adds what `other` has counted."""
        self._counts += other._counts

    def auc(self) -> tuple[float, float]:
        """Area under the ROC curve, and by how much it may be off.

        The area is the chance that a target pixel scores above a background pixel, ties counting one half. Two pixels
        of one bin count as a tie, which moves the area by half of the share of such pairs at most: that is the bound.

        Returns:
            Area and bound, both in [0, 1]; NaN and 0 where there is no target or no background pixel.
        """
        background, target = self._counts.astype(np.float64)
        pairs = background.sum() * target.sum()
        if pairs == 0:
            return float("nan"), 0.0
        ties = float(target @ background) / 2
        below = np.cumsum(background) - background
        return float((target @ below + ties) / pairs), float(ties / pairs)
