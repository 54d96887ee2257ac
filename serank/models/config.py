"""Checks of what `SeRankDet` is built with, before any of it is built.

Configs come from files and from the Hub: a value of another type, or one that asks for a network larger than any
machine's memory, is refused by name here. What remains (one argument against another, names of parts) is checked where
it is used.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["check_arguments", "plain"]

INTEGERS: dict[str, tuple[int, int]] = {
    "in_channels": (1, 1024),
    "width": (1, 1024),
    "stem_channels": (1, 2**16),
    "rank_offset": (-16, 16),
    "merge_kernel": (1, 31),
    "table_size": (1, 2**20),
    "working_size": (1, 2**16),
    "tile": (1, 2**16),
    "overlap": (0, 2**16),
}
"""Least and largest value; the largest are far beyond use, but keep sizes within 64 bits."""
OPTIONAL = frozenset({"stem_channels", "table_size", "working_size"})
FLAGS = ("positional_encoding", "per_channel_fusion", "bias")
LARGEST = 1e6
"""Of every other number, in size."""


def plain(value: Any) -> Any:
    """`value` with tuples, arrays and NumPy's numbers, also within lists, as what JSON has."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuses values of a wrong type or out of all proportion.

    Args:
        arguments: all arguments of `SeRankDet` by name, as `plain` gives them.

    Raises:
        ValueError: names the argument, the value and what was expected.
    """
    for name, (low, high) in INTEGERS.items():
        _check_integer(name, arguments[name], low, high)
    for name in FLAGS:
        if not isinstance(arguments[name], bool):
            raise ValueError(f"{name} must be true or false; got {reprlib.repr(arguments[name])}")
    for name in ("theta", "threshold"):
        _check_number(name, arguments[name])
    channels = arguments["in_channels"]
    for name in ("mean", "std"):
        values = arguments[name]
        if isinstance(values, list) and len(values) != channels:
            raise ValueError(
                f"{name} must be one number or {channels}, one for each channel; got {reprlib.repr(values)}"
            )
        for value in values if isinstance(values, list) else [values]:
            _check_number(name, value)
    for name, kind in (("scale_range", "numbers (low, high)"), ("branches", "names")):
        if not isinstance(arguments[name], list):
            raise ValueError(f"{name} must be a list of {kind}; got {reprlib.repr(arguments[name])}")
    for value in arguments["scale_range"]:
        _check_number("scale_range", value)
    if not all(isinstance(name, str) for name in arguments["branches"]):
        raise ValueError(f"branches must be a list of names; got {reprlib.repr(arguments['branches'])}")


def _check_integer(name: str, value: Any, low: int, high: int) -> None:
    if value is None and name in OPTIONAL:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an int{' or None' if name in OPTIONAL else ''}; got {reprlib.repr(value)}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {f'>= {low}' if value < low else f'<= {high}'}; got {reprlib.repr(value)}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number; got {reprlib.repr(value)}")
    if not -LARGEST <= value <= LARGEST:  # NaN fails too
        raise ValueError(f"{name} must be finite, at most {LARGEST:g} in size; got {reprlib.repr(value)}")
