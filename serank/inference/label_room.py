"""Room for labels in a picture: where each goes so that none covers another or a box."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the picture, x1 and y1 inclusive."""

GAP = 4
"""Pixels between a box and the label above it; the font leaves some of its own below."""
RINGS = 3
"""How many label heights a label may go away from its box."""


class LabelPlace(NamedTuple):
    """Top-left pixel of a label, and a line to its box where it is not beside it."""

    x: int
    y: int
    line: Rectangle | None


class LabelRoom:
    """The pixels of a picture that boxes and labels take.

    Args:
        width: of the picture in pixels.
        height: likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._taken = np.zeros((height, width), np.bool_)

    def take(self, rectangle: Rectangle) -> None:
        """Marks a rectangle, which may reach over the picture's edges, as taken."""
        x0, y0, x1, y1 = rectangle
        self._taken[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] = True

    def place(self, box: Rectangle, width: int, height: int) -> LabelPlace | None:
        """Takes the first free place for a label of this size: above the box, below, beside it, then further off."""
        if not self._has_room_near(box, width, height):
            return None
        for ring, x, y in self._candidates(box, width, height):
            if self._taken[y : y + height, x : x + width].any():
                continue
            self.take((x, y, x + width - 1, y + height - 1))
            return LabelPlace(x, y, _line(box, (x, y, x + width - 1, y + height - 1)) if ring else None)
        return None

    def _has_room_near(self, box: Rectangle, width: int, height: int) -> bool:
        """Whether any pixel of all places is free; in a picture full of boxes that spares most looks at each place."""
        left, top, right, bottom = box
        over, under = GAP + (RINGS + 1) * height, GAP + RINGS * height
        rows = slice(max(top - over, 0), max(bottom + over, 0) + 1)
        columns = slice(max(left - width - under, 0), max(right + width + under, 0) + 1)
        return not self._taken[rows, columns].all()

    def _candidates(self, box: Rectangle, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """Number of label heights away from the box, x and y, of places inside the picture."""
        left, top, right, bottom = box
        most_x, most_y = self.width - width, self.height - height
        if most_x < 0 or most_y < 0:
            return
        for ring in range(RINGS + 1):
            away = ring * height
            above, below = top - height - GAP - away, bottom + 2 + away
            before, after = left - width - GAP - away, right + GAP + away
            # at the picture's edge a label above or below its box moves inside
            inside = min(max(left, 0), most_x), min(max(right - width, 0), most_x)
            beside = min(max(top, 0), most_y)
            for x, y in (
                *((x, y) for x in inside for y in (above, below)),
                (after, beside),
                (before, beside),
                *((x, y) for x in (after, before) for y in (above, below)),
            ):
                if 0 <= x <= most_x and 0 <= y <= most_y:
                    yield ring, x, y


def _line(box: Rectangle, label: Rectangle) -> Rectangle:
    """From the point of the box that is nearest to the label's centre to that of the label nearest to the former."""
    start = _nearest(box, (label[0] + label[2]) // 2, (label[1] + label[3]) // 2)
    return (*start, *_nearest(label, *start))


def _nearest(rectangle: Rectangle, x: int, y: int) -> tuple[int, int]:
    x0, y0, x1, y1 = rectangle
    return min(max(x, x0), x1), min(max(y, y0), y1)
