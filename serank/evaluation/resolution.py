"""The size at which frames and masks are measured."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Resolution: TypeAlias = "int | Literal['native']"


def check_resolution(resolution: int | str) -> Resolution:
    """`resolution` as an int or `"native"`; raises ValueError below 32 px, which hold no targets worth measuring."""
    if resolution == "native":
        return "native"
    if isinstance(resolution, bool) or not isinstance(resolution, (int, np.integer)) or resolution < 32:
        raise ValueError(f'resolution must be "native" or a side in pixels >= 32, such as 512; got {resolution!r}')
    return int(resolution)
