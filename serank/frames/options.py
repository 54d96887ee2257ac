"""What is known of a camera's frames beyond their pixels: range, polarity, colours, pixels to leave out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.palettes import check_palette
from serank.frames.reading import decode
from serank.utils.checks import check_number

Polarity = Literal["white-hot", "black-hot"]
Ignore: TypeAlias = "str | os.PathLike[str] | NDArray[Any] | Sequence[Sequence[float]]"
"""Path of a mask file, mask `(H, W)` bool, or boxes `(N, 4)`."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class FrameOptions:
    """What detection is told of the frames.

    Attributes:
        value_range: values (low, high) of black and white; `None` takes what the values tell.
        no_data: value or values that stand for no data, such as -9999; NaN stands for infinities too. These pixels are
            filled from their neighbours, and nothing is found there.
        polarity: `"black-hot"` frames, whose targets are dark, are inverted.
        palette: name of the palette that turned grey into colours, as matplotlib calls it (`"inferno"`, `"jet"`), or
            `"auto"` to look for it among the known ones, see `serank.frames.palettes`. `None` takes the luminance.
        ignore: where nothing is to be found, such as burned-in text: a mask `(H, W)` bool or the path of a mask file
            (ignored where it isn't black), of the frames' size; or boxes `(N, 4)`, x0, y0, x1, y1 in pixels, x1 and y1
            exclusive. These pixels don't count for the scaling, and are filled from their neighbours.
        repair: whether dead pixels and lines are replaced from their neighbours first, see
            `serank.frames.defects.repair_defects`; `None` takes what the network says, and for data sets true.

    Raises:
        ValueError: a value out of its range or of another type, or an unknown palette; names the attribute.
        ImportError: a palette, and matplotlib isn't installed.
        FileNotFoundError: no such mask file.
        FrameError: a mask file that can't be read.
    """

    value_range: Sequence[float] | None = None
    no_data: float | Sequence[float] | None = None
    polarity: Polarity = "white-hot"
    palette: str | None = None
    ignore: Ignore | None = None
    repair: bool | None = None

    def __post_init__(self) -> None:
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _range(self.value_range))
        check_polarity(self.polarity)
        if self.palette is not None and not isinstance(self.palette, str):
            raise ValueError(f'palette must be a name, "auto" or None; got {self.palette!r}')
        if self.palette is not None:
            check_palette(self.palette)
        if self.repair is not None and not isinstance(self.repair, bool):
            raise ValueError(f"repair must be true, false or None; got {self.repair!r}")
        object.__setattr__(self, "no_data", _numbers(self.no_data))
        if self.ignore is not None:
            object.__setattr__(self, "ignore", _region(self.ignore))

    def repaired(self, repair: bool) -> FrameOptions:
        """The same options with `repair` as given where they leave it open, as the network says it."""
        return replace(self, repair=repair) if self.repair is None else self

    @property
    def given(self) -> list[str]:
        """Names of the attributes that aren't left at their defaults."""
        default = {"no_data": (), "polarity": "white-hot"}
        return [k for k, v in vars(self).items() if v is not None and (k == "ignore" or v != default.get(k))]

    @property
    def missing_values(self) -> tuple[float, ...]:
        """The values of `no_data`."""
        assert isinstance(self.no_data, tuple)
        return self.no_data

    def ignored(self, height: int, width: int, name: str) -> NDArray[np.bool_] | None:
        """The pixels of `ignore` in a frame of this size, `(height, width)` bool; `None` where there are none.

        Raises:
            FrameError: the mask has another size, or nothing is left of the frame.
        """
        if self.ignore is None:
            return None
        region = np.asarray(self.ignore)
        if region.dtype == np.bool_:
            if region.shape != (height, width):
                raise FrameError(
                    f"{name}: ignore is a mask of {region.shape[0]} x {region.shape[1]} pixels, the frame has "
                    f"{height} x {width}"
                )
            mask = region
        else:
            mask = np.zeros((height, width), np.bool_)
            for x0, y0, x1, y1 in np.maximum(region, 0):
                mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
        if mask.all():
            raise FrameError(f"{name}: ignore covers the whole frame")
        return mask if mask.any() else None


def check_polarity(polarity: str) -> None:
    """Raises ValueError unless `polarity` is `"white-hot"` or `"black-hot"`."""
    if polarity not in get_args(Polarity):
        raise ValueError(f'polarity must be "white-hot" (targets are bright) or "black-hot"; got {polarity!r}')


def _range(value: Any) -> tuple[float, float]:
    try:
        low, high = (check_number(v, "value_range") for v in value)
    except (TypeError, ValueError):
        raise ValueError(f"value_range must be (low, high), two numbers; got {value!r:.200}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range (--range) must be (low, high), finite, low < high; got {value!r}")
    return low, high


def _numbers(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    value = value.tolist() if isinstance(value, np.ndarray) else value
    many = value if isinstance(value, (list, tuple)) else [value]
    return tuple(check_number(v, "no_data") for v in many)


def _region(value: Any) -> NDArray[Any]:
    """A mask `(H, W)` bool, or boxes `(N, 4)` float64."""
    if isinstance(value, (str, os.PathLike)):
        pixels = decode(value)
        return (pixels if pixels.ndim == 2 else pixels.max(2)) > 0
    try:
        region = np.asarray(value)
    except ValueError:
        raise ValueError(f"ignore has boxes of unequal length; expected x0, y0, x1, y1; got {value!r:.200}") from None
    if not region.size:  # no boxes
        region = np.zeros((0, 4))
    if region.dtype == np.bool_ and region.ndim == 2:
        return region
    if region.dtype.kind in "iuf" and region.ndim == 2 and region.shape[1] == 4:
        boxes = region.astype(np.float64)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
            raise ValueError(f"ignore has a box without pixels; expected x0 < x1 and y0 < y1; got {boxes.tolist()}")
        return boxes
    raise ValueError(
        f"ignore must be a mask (H, W) of bool (such as mask > 0), the path of one, or boxes (N, 4); got "
        f"{region.dtype} of shape {region.shape}"
    )
