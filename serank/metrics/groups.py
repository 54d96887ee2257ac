"""Targets in groups of like size or contrast, each with its Pd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Bins: TypeAlias = Sequence[tuple[str, float, float]]
"""Label, lower bound and upper bound (exclusive) of each group."""


@dataclass(frozen=True)
class Group:
    """Targets that share a range of a measure, such as size in px or signal-to-clutter ratio."""

    label: str
    low: float
    high: float
    """Upper bound, exclusive."""
    targets: int
    """Components of masks or, by boxes, boxes."""
    detected: int

    @property
    def pd(self) -> float:
        """Detected over all, in [0, 1]; NaN without targets."""
        return self.detected / self.targets if self.targets else math.nan


def group_targets(bins: Bins, values: Sequence[float], detected: Sequence[bool]) -> list[Group]:
    """Groups N targets by a measure.

    Args:
        bins: the groups.
        values: `(N,)`, the measure of each target; NaN where it is not known.
        detected: `(N,)`, whether each target was detected.

    Returns:
        A group for each of `bins`, those without a target among them; none at all where no value is finite.
    """
    if not any(math.isfinite(value) for value in values):
        return []
    groups = []
    for label, low, high in bins:
        members = [found for value, found in zip(values, detected, strict=True) if low <= value < high]
        groups.append(Group(label, low, high, len(members), sum(members)))
    return groups
