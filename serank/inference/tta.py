"""Test-time augmentation: the rotations and flips of a frame, under which a target stays a target.

Probabilities are averaged over them, not logits: one orientation that is sure and wrong then counts no more than any
other.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.generic)


class Orientation(NamedTuple):
    """One of the eight rotations and flips of a frame: transposed or not, then reversed along either axis or not."""

    transpose: bool
    rows: bool
    """Whether rows are reversed."""
    columns: bool

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame `(height, width)` in this orientation."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, array: NDArray[Kind]) -> NDArray[Kind]:
        """`(H, W)` in this orientation, a view."""
        return (array.T if self.transpose else array)[self._steps()]

    def undo(self, array: NDArray[Kind]) -> NDArray[Kind]:
        """What `apply` turned, turned back, a view."""
        back = array[self._steps()]
        return back.T if self.transpose else back

    def _steps(self) -> tuple[slice, slice]:
        return slice(None, None, -1 if self.rows else 1), slice(None, None, -1 if self.columns else 1)


_ALL = tuple(
    Orientation(transpose, rows, columns)
    for transpose in (False, True)
    for rows in (False, True)
    for columns in (False, True)
)
ORIENTATIONS = {1: _ALL[:1], 4: _ALL[:4], 8: _ALL}
"""By the number of them: the frame as it is, its flips, and all eight; the frame as it is comes first."""


def check_tta(tta: Any) -> int:
    """`tta` as an int.

    Raises:
        ValueError: neither 1, 4 nor 8.
    """
    if isinstance(tta, (bool, np.bool_)) or not isinstance(tta, (int, np.integer)) or int(tta) not in ORIENTATIONS:
        raise ValueError(
            f"tta must be 1 (one pass), 4 (the flips) or 8 (all rotations and flips of a frame); got {tta!r:.200}"
        )
    return int(tta)
