"""Several sets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from serank.datasets.sample import Sample

__all__ = ["JoinedSamples"]


class JoinedSamples(Sequence[Sample]):
    """The samples of several sets, one set after the other.

    Args:
        sets: at least one.

    Raises:
        ValueError: no set.
    """

    def __init__(self, sets: Sequence[Sequence[Sample]]) -> None:
        if not sets:
            raise ValueError("sets is empty; expected at least one set of samples")
        self.sets = list(sets)
        self._ends = list(accumulate(len(s) for s in self.sets))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The sample at `index`; negative counts from the end."""
        index = range(len(self))[index]
        which = bisect_right(self._ends, index)
        return self.sets[which][index - (self._ends[which - 1] if which else 0)]
