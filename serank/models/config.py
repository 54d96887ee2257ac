"""The settings of `SeRankDet`: each one's type, range and meaning, checked before any of the network is built.

Configs come from files and from the Hub: a value of another type, or one that asks for a network larger than any
machine's memory, is refused by name here. What remains (one argument against another, names of branches) is checked
where it is used.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from serank.layers.ddc import BRANCHES

LARGEST = 1e6
"""Largest absolute value of a setting that is no integer."""


def to_json(value: Any) -> Any:
    """`value` with tuples, arrays and NumPy scalars, also within lists, as JSON has them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def _setting(default: Any, check: Callable[[str, Any], None]) -> Any:
    return field(default=default, metadata={"check": check})


def _integer(default: int | None, low: int, high: int) -> Any:
    """An int in [low, high], or `None` where that is the default."""
    optional = default is None

    def check(name: str, value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} must be an int{' or None' if optional else ''}; got {reprlib.repr(value)}")
        if not low <= value <= high:
            raise ValueError(
                f"{name} must be {f'>= {low}' if value < low else f'<= {high}'}; got {reprlib.repr(value)}"
            )

    return _setting(default, check)


def _number(default: float) -> Any:
    """A finite number, at most `LARGEST` in size."""
    return _setting(default, _check_number)


def _flag(default: bool) -> Any:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false; got {reprlib.repr(value)}")

    return _setting(default, check)


def _choice(*names: str) -> Any:
    """One of some names, the first by default."""

    def check(name: str, value: Any) -> None:
        if value not in names:
            listed = ", ".join(f'"{n}"' for n in names[:-1]) + f' or "{names[-1]}"'
            raise ValueError(f"{name} must be {listed}; got {reprlib.repr(value)}")

    return _setting(names[0], check)


def _one_of(*numbers: int) -> Any:
    """One of some ints, the first by default."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value not in numbers:
            listed = ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}"
            raise ValueError(f"{name} must be {listed}; got {reprlib.repr(value)}")

    return _setting(numbers[0], check)


def _coefficients(count: int) -> Any:
    """So many numbers, or `None`, the default."""

    def check(name: str, value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"{name} must be a list of {count} numbers or None; got {reprlib.repr(value)}")
        for item in value:
            _check_number(name, item)

    return _setting(None, check)


def _list(default: Sequence[Any], of: str, check_item: Callable[[str, Any], None]) -> Any:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"{name} must be a list of {of}; got {reprlib.repr(value)}")
        for item in value:
            check_item(name, item)

    return _setting(tuple(default), check)


def _per_channel(default: float) -> Any:
    """A number, or one for each input channel."""

    def check(name: str, value: Any) -> None:
        for item in value if isinstance(value, list) else [value]:
            _check_number(name, item)

    return _setting(default, check)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number; got {reprlib.repr(value)}")
    if not -LARGEST <= value <= LARGEST:  # NaN fails too
        raise ValueError(f"{name} must be finite, at most {LARGEST:g} in size; got {reprlib.repr(value)}")


def _check_name(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a list of names; got one {type(value).__name__}, {reprlib.repr(value)}")


@dataclass(frozen=True, kw_only=True)
class SeRankConfig:
    """All settings of a `SeRankDet`; the largest integers are far beyond use, but keep sizes within 64 bits.

    Lists and arrays become tuples, NumPy scalars Python's. Ranges of the frames' preparation are those of
    `serank.frames.FrameSpec`, which models can't import.

    Raises:
        ValueError: a value of a wrong type or out of its range; names it and what was expected.
    """

    in_channels: int = _integer(1, 1, 64)
    """Channels of the input, 1 for grey frames, at most 64."""
    width: int = _integer(64, 1, 1024)
    """Channels of the finest level; level i has `width * 2 ** (i - 1)`. The paper uses 64."""
    stem_channels: int | None = _integer(None, 1, 2**16)
    """Hidden channels of the first DDC; `None` means `width`."""
    rank_offset: int = _integer(3, -16, 16)
    """o of equation 2, which sets K of each level's attention."""
    encoder: str = _choice("ddc", "plain")
    """`"ddc"`, or `"plain"` for two 3x3 convolutions (ablation)."""
    branches: Sequence[str] = _list(BRANCHES, "names", _check_name)
    """Branches of each DDC, see `serank.layers.ddc.BRANCHES` (ablation)."""
    merge_kernel: int = _integer(1, 1, 31)
    """Side of DDC's merging convolution, odd: 1 (paper) or 3 (released code)."""
    theta: float = _number(0.7)
    """Weight of the difference term in every difference convolution."""
    attention: str = _choice("serank", "after", "none")
    """`"serank"`, `"after"` (rank after the attention map, ablation) or `"none"` (ablation)."""
    positional_encoding: bool = _flag(True)
    """Add the sinusoidal encoding to the ranked points."""
    table_size: int | None = _integer(None, 1, 2**20)
    """Columns of the positional table at level 1, halved by level; `None` means the map's own width (paper), 512 is the
    released code's."""
    fusion: str = _choice("select", "gated", "concat")
    """Mode of `LSFF`: `"select"` (paper), `"gated"` (released code) or `"concat"` (ablation)."""
    per_channel_fusion: bool = _flag(False)
    """One gate for each channel in mode `"select"` instead of one for all."""
    bias: bool = _flag(False)
    """Give every convolution a bias, as the released code does."""
    mean: float | Sequence[float] = _per_channel(0.5)
    """Subtracted from grey in [0, 1] before the network; a number, or one for each input channel."""
    std: float | Sequence[float] = _per_channel(0.25)
    """Divides the result, > 0; like `mean`."""
    working_size: int | None = _integer(None, 1, 4096)
    """Longest side in pixels to which `detect` scales a frame, at most 4096; `None` leaves its size."""
    scale_range: Sequence[float] = _list((0.5, 2.5), "numbers (low, high)", _check_number)
    """Least and largest factor of that scaling, 0 < low <= 1 <= high; high <= 16 where `working_size` is above 1024."""
    tile: int = _integer(1024, 32, 4096)
    """Largest side of the tiles into which `detect` cuts larger frames, in scaled pixels, 32 to 4096."""
    overlap: int = _integer(128, 0, 2048)
    """Pixels that neighbouring tiles share, at most half of `tile`."""
    threshold: float = _number(0.5)
    """Probability in [0, 1] above which `detect` takes a pixel as target, unless it is told another."""
    tta: int = _one_of(1, 4, 8)
    """Rotations and flips of a frame over which `detect` averages, unless it is told another: 1, 4 or 8."""
    score_calibration: Sequence[float] | None = _coefficients(2)
    """What turns the peak of a detection into its score, see `serank.inference.scores.calibrated_scores`; `None`
    scores it by its peak probability."""
    repair: bool = _flag(True)
    """Replace dead pixels and lines of a frame first, see `serank.frames.FrameSpec`."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = to_json(getattr(self, setting.name))
            setting.metadata["check"](setting.name, value)
            object.__setattr__(self, setting.name, tuple(value) if isinstance(value, list) else value)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != self.in_channels:
                raise ValueError(
                    f"{name} must be one number or {self.in_channels}, one for each channel; got "
                    f"{reprlib.repr(list(values))}"
                )

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, JSON-able: keyword arguments that build the same network."""
        return {setting.name: to_json(getattr(self, setting.name)) for setting in fields(self)}
