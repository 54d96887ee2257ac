"""What every data set of serank is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sample"]


class Sample(NamedTuple):
    """A frame with its mask."""

    name: str
    frame: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1]."""
    mask: NDArray[np.bool_]
    """`(H, W)` bool, true on targets."""
