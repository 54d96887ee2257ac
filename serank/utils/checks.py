"""Checks of arguments that many functions take."""

from __future__ import annotations

from operator import index
from typing import SupportsIndex

__all__ = ["check_count", "check_threshold"]


def check_threshold(threshold: float, name: str = "threshold") -> float:
    """`threshold` as a float.

    Args:
        threshold: Python's, NumPy's or a tensor's number in [0, 1].
        name: of the argument, for the message.

    Raises:
        ValueError: no number, NaN, or outside [0, 1].
    """
    if isinstance(threshold, bool) or not hasattr(threshold, "__float__"):
        raise ValueError(f"{name} must be a number in [0, 1]; got {threshold!r:.200} ({type(threshold).__name__})")
    if not 0 <= threshold <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {threshold}")
    return float(threshold)


def check_count(value: SupportsIndex, name: str, *, minimum: int = 1) -> int:
    """`value` as an int.

    Args:
        value: Python's or NumPy's integer, at least `minimum`.
        name: of the argument, for the message.
        minimum: smallest value that is allowed.

    Raises:
        ValueError: no whole number, or below `minimum`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{name} must be a whole number >= {minimum}; got {value!r:.200} ({type(value).__name__})")
    if index(value) < minimum:
        raise ValueError(f"{name} must be >= {minimum}; got {value}")
    return index(value)
