"""The size at which frames and masks are measured."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from serank.frames.preparation import LARGEST_SIDE

Resolution: TypeAlias = "int | Literal['native']"


def check_resolution(resolution: int | str) -> Resolution:
    """`resolution` as an int or `"native"`; raises ValueError for a side outside 32 to 4096 px."""
    if resolution == "native":
        return "native"
    whole = isinstance(resolution, (int, np.integer)) and not isinstance(resolution, bool)
    if not whole or not 32 <= int(resolution) <= LARGEST_SIDE:
        raise ValueError(
            f'resolution must be "native" or a side of 32 to {LARGEST_SIDE} pixels, such as 512; got {resolution!r}'
        )
    return int(resolution)
