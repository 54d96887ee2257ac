"""Checks of numbers that are given as arguments; numpy's and Python's count alike, and bool is no number."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["check_int", "check_real"]


def check_int(name: str, value: Any, least: int) -> int:
    """`value`, an integer of Python or numpy, as an int.

    Raises:
        ValueError: no integer, a bool, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an int >= {least}; got {value!r}")
    return int(value)


def check_real(name: str, value: Any) -> float:
    """`value`, a real number of Python or numpy, as a float; NaN and infinities included.

    Raises:
        ValueError: no real number, or a bool.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return float(value)
