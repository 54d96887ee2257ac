"""Data sets of which some samples are taken more often than others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from serank.datasets import Sample


class Chosen(Sequence[Sample]):
    """Some samples of a set, each as often as its index is named."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return Chosen(self.samples, self.indices[index])
        return self.samples[self.indices[index]]
