"""Pixels without data, filled from their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill"]


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
