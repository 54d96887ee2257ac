"""Pixels without data, filled from their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill(values: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """A copy of `values` whose missing pixels hold the value of the nearest one that isn't.

    Args:
        values: `(H, W)`.
        missing: `(H, W)`, not all true.
    """
    from scipy import ndimage  # slow to import, and few frames need it

    rows, columns = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled: NDArray[Any] = values[rows, columns]
    return filled


def is_wide(missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which missing pixels `(H, W)` lie in a square of 3 x 3 of them; the others are single ones and thin lines.

    Across thin lines what is filled in from both sides is as good as the frame itself.
    """
    from scipy import ndimage

    padded = np.pad(missing, 1, mode="edge")  # a region goes on beyond the frame's edge
    wide: NDArray[np.bool_] = ndimage.binary_opening(padded, np.ones((3, 3)))[1:-1, 1:-1]
    return wide
