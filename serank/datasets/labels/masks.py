"""From what label files say to masks and boxes of whole pixels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.datasets.labels.objects import Box, LabelledObject, Outline, Point, Runs
from serank.datasets.labels.rule import FRACTION, PixelBox, box_mask, point_mask
from serank.frames.options import Polarity

Mask = NDArray[np.bool_]

ROUNDING = 0.05
"""Part of a pixel that a box may reach into it without taking it: rounded shares are a little off."""


class ObjectMask(NamedTuple):
    """A target in a frame."""

    box: PixelBox
    """As labelled; of what was labelled otherwise, around its mask."""
    where: PixelBox
    """Where `mask` lies in the frame."""
    mask: Mask
    stands_out: bool
    """False where in a box or at a point no target is seen, see `serank.datasets.labels.rule`."""


def object_mask(
    found: LabelledObject, grey: NDArray[Any], *, polarity: Polarity, fraction: float = FRACTION
) -> ObjectMask:
    """Mask of a labelled object of the frame `grey`; the rest, for boxes and points, as for `rule.box_mask`.

    Raises:
        ValueError: the object lies outside the frame, or is a mask of another size.
    """
    height, width = grey.shape
    shape = found.shape
    if isinstance(shape, Box):
        box = pixel_box(shape, height, width, found.where)
        of_box = box_mask(grey, box, polarity=polarity, fraction=fraction)
        return ObjectMask(box, *of_box)
    if isinstance(shape, Point):
        if not (0 <= shape.x <= width and 0 <= shape.y <= height):
            raise _outside(found.where, f"point ({shape.x - 0.5:g}, {shape.y - 0.5:g})", height, width)
        x, y = (min(math.floor(v), side - 1) for v, side in ((shape.x, width), (shape.y, height)))
        of_point = point_mask(grey, x, y, polarity=polarity, fraction=fraction)
        return ObjectMask(_around(of_point.mask, of_point.box), *of_point)
    if isinstance(shape, Outline):
        where, mask = _filled(shape, height, width, found.where)
    else:
        where, mask = (0, 0, width, height), _decoded(shape, height, width, found.where)
    return ObjectMask(_around(mask, where), where, mask, True)


def pixel_box(box: Box, height: int, width: int, where: str) -> PixelBox:
    """The pixels that a box touches, inside the frame; raises ValueError where it lies outside."""
    x0, y0 = (max(0, math.floor(v + ROUNDING)) for v in (box.x0, box.y0))
    x1, y1 = (min(side, math.ceil(v - ROUNDING)) for v, side in ((box.x1, width), (box.y1, height)))
    if box.x1 <= 0 or box.y1 <= 0 or x0 >= width or y0 >= height:
        raise _outside(where, f"box from ({box.x0:g}, {box.y0:g}) to ({box.x1:g}, {box.y1:g})", height, width)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _outside(where: str, what: str, height: int, width: int) -> ValueError:
    return ValueError(
        f"{where}: {what} lies outside the frame of {width} x {height} px; were frames resized after they were "
        "labelled? Correct or remove the entry"
    )


def _around(mask: Mask, where: PixelBox) -> PixelBox:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = where[:2]
    return int(columns[0]) + x, int(rows[0]) + y, int(columns[-1]) + x + 1, int(rows[-1]) + y + 1


def _filled(outline: Outline, height: int, width: int, where: str) -> tuple[PixelBox, Mask]:
    """Pixels whose centres lie in a polygon; of one too thin to hold any, the pixels of its corners."""
    points = np.array([p for polygon in outline.polygons for p in polygon])
    (left, top), (right, bottom) = points.min(0), points.max(0)
    box = pixel_box(Box(left, top, right, bottom), height, width, where)
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), np.bool_)
    x, y = np.arange(x0, x1) + 0.5, np.arange(y0, y1)[:, None] + 0.5
    for polygon in outline.polygons:
        inside = np.zeros_like(mask)
        for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            # even-odd rule: each edge flips the pixels to the left of where it crosses their row
            crosses = (ay > y) != (by > y)
            with np.errstate(divide="ignore", invalid="ignore"):
                inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
        mask |= inside
    if not mask.any():
        columns = np.clip(np.floor(points[:, 0]), x0, x1 - 1).astype(int) - x0
        rows = np.clip(np.floor(points[:, 1]), y0, y1 - 1).astype(int) - y0
        mask[rows, columns] = True
    return box, mask


def _decoded(runs: Runs, height: int, width: int, where: str) -> Mask:
    if (runs.height, runs.width) != (height, width):
        raise ValueError(
            f"{where}: mask of {runs.width} x {runs.height} px, its frame has {width} x {height} px; were frames "
            "resized after they were labelled? Label these frames"
        )
    values = np.arange(len(runs.lengths)) % 2 == 1
    mask: Mask = np.repeat(values, runs.lengths).reshape(width, height).T
    if not mask.any():
        raise ValueError(f"{where}: mask without a pixel; draw the target or remove the annotation")
    return mask
