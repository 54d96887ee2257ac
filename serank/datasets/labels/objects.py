"""What a label file says, whatever its format.

Coordinates are continuous, in px from the frame's top left corner: the first pixel reaches from 0 to 1 and its centre
is 0.5. The readers bring each format to this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Box:
    """A rectangle: least and largest x and y."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Point:
    """A place on a target."""

    x: float
    y: float


@dataclass(frozen=True)
class Outline:
    """One or more polygons, each three or more x and y; an object is their union."""

    polygons: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Runs:
    """A mask as COCO's run lengths: zeros and ones in turn, column by column, zeros first."""

    lengths: tuple[int, ...]
    height: int
    width: int


Shape: TypeAlias = Box | Point | Outline | Runs


@dataclass(frozen=True)
class LabelledObject:
    """One target of one frame."""

    shape: Shape
    label: str | None
    """Class, `None` in formats without."""
    where: str
    """File and entry, for errors."""


@dataclass
class LabelledFrame:
    """A frame file with its targets; no targets means that it is known to hold none."""

    file: Path
    where: str
    """Where the labels name it, for errors."""
    split: str | None = None
    """`"train"`, `"val"`, `"test"`, another name, or `None` where the source has no splits."""
    size: tuple[int, int] | None = None
    """Width and height that the labels state for it."""
    objects: list[LabelledObject] = field(default_factory=list)
