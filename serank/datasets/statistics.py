"""Grey level statistics of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serank.datasets.sample import Sample

__all__ = ["grey_statistics"]


def grey_statistics(samples: Sequence[Sample]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, three digits, as `SeRankDet` takes them.

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("samples is empty; expected at least one frame")
    count, total, squares = 0, 0.0, 0.0
    for i in range(len(samples)):
        frame = samples[i].frame.astype(np.float64)
        count, total, squares = count + frame.size, total + frame.sum(), squares + (frame**2).sum()
    mean = total / count
    return round(mean, 3), max(round(float(np.sqrt(max(squares / count - mean**2, 0.0))), 3), 1e-3)
