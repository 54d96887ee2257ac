"""Checks of arguments that many functions take."""

from __future__ import annotations

__all__ = ["check_threshold"]


def check_threshold(threshold: float, name: str = "threshold") -> float:
    """`threshold` as a float.

    Raises:
        ValueError: outside [0, 1] or NaN.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {threshold}")
    return float(threshold)
