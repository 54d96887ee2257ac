"""Counting detections against boxes, for data sets that have boxes and no masks.

A detection lies in a box when its centroid does, the box being grown by `tolerance` on each side, its edges included.
Detections are taken by falling score, equal ones in the order given; each finds, of the boxes that it lies in and that
no earlier one has found, the one whose centre is nearest. So a box is found at most once and a detection finds at most
one box. A detection in no box is a false component. One that lies only in boxes found already is neither: boxes do not
say where in them the target ends, so a second component there may well be a part of it; these are counted apart, as
duplicates. Since the order is that of the scores, the figures at a higher threshold are those of the same matches.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serank.metrics.checks import check_thresholds
from serank.metrics.groups import Bins, Group, group_targets
from serank.utils.checks import check_number

Float = NDArray[np.float64]

BOX_BINS = (
    ("1-4 px", 0.0, 5.0),
    ("5-8 px", 5.0, 9.0),
    ("9-16 px", 9.0, 17.0),
    ("17-32 px", 17.0, 33.0),
    (">32 px", 33.0, math.inf),
)
"""Groups of boxes by their longer side: label, lower bound, upper bound (exclusive)."""


class BoxMatch(NamedTuple):
    """N detections of a frame against its M boxes."""

    box: NDArray[np.int64]
    """`(N,)`, number of the box that each detection finds, -1 for none."""
    inside: NDArray[np.bool_]
    """`(N,)`, whether each lies in any grown box; one that doesn't is a false component."""


class BoxCurve(NamedTuple):
    """Figures over thresholds of the score, each `(T,)` float64."""

    thresholds: Float
    pd: Float
    """In [0, 1]; NaN without boxes."""
    false_components: Float
    """Per frame; NaN without frames."""


def check_tolerance(tolerance: float) -> float:
    """`tolerance` as a float; raises ValueError unless it is a number >= 0 and finite."""
    found = check_number(tolerance, "tolerance", "a number of px >= 0")
    if not 0 <= found < math.inf:
        raise ValueError(f"tolerance must be >= 0 px and finite; got {tolerance}")
    return found


def match_boxes(centroids: ArrayLike, boxes: ArrayLike, scores: ArrayLike, *, tolerance: float = 0.0) -> BoxMatch:
    """Which detection of a frame finds which box, see the module.

    Args:
        centroids: `(N, 2)`, x and y in px; (0, 0) is the first pixel's centre, as in `Detections.centroids`.
        boxes: `(M, 4)`, x0, y0, x1, y1 in px, x1 and y1 exclusive, as in `Detections.boxes`.
        scores: `(N,)`.
        tolerance: px by which boxes are grown on each side, >= 0.

    Raises:
        ValueError: shapes that don't fit, values that are not finite, an empty box, or a `tolerance` below 0.
    """
    tolerance = check_tolerance(tolerance)
    points = _rows(centroids, 2, "centroids")
    sides = _rows(boxes, 4, "boxes")
    values = np.asarray(scores, np.float64).reshape(-1)
    if len(values) != len(points):
        raise ValueError(f"scores must be {len(points)} numbers, one for each centroid; got {len(values)}")
    if not (finite := np.isfinite(values)).all():
        raise ValueError(f"scores must be finite; got {values[~finite][0]}")
    if (empty := np.flatnonzero((sides[:, 2:] <= sides[:, :2]).any(1))).size:
        raise ValueError(f"boxes must have x1 > x0 and y1 > y0; got {sides[empty[0]].tolist()}")
    # box sides count from the first pixel's corner, which lies half a pixel before its centre
    low, high = sides[:, :2] - 0.5 - tolerance, sides[:, 2:] - 0.5 + tolerance
    near = (points[:, None] >= low) & (points[:, None] <= high)
    within = np.logical_and(near[..., 0], near[..., 1])
    distance = np.square(points[:, None] - (low + high) / 2).sum(2)
    found = np.full(len(points), -1, np.int64)
    free = np.ones(len(sides), np.bool_)
    for i in np.argsort(-values, kind="stable"):
        candidates = np.flatnonzero(within[i] & free)
        if candidates.size:
            found[i] = candidates[distance[i, candidates].argmin()]
            free[found[i]] = False
    return BoxMatch(found, np.asarray(within.any(axis=1)))


def _rows(values: ArrayLike, width: int, name: str) -> Float:
    array = np.asarray(values, np.float64)
    if array.size == 0:
        return np.zeros((0, width))
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name} must be finite numbers of shape (N, {width}); got shape {array.shape}")
    if not (finite := np.isfinite(array).all(1)).all():
        raise ValueError(f"{name} must be finite; got {array[~finite][0].tolist()}")
    return array


class BoxMetrics:
    """Pd and false components of a data set with boxes.

    `update` with each frame, then `compute`, `by_size` and `curve`. Only detections that were given count: the curve
    begins at the threshold at which they were made. `tolerance` is that of `match_boxes`.
    """

    def __init__(self, tolerance: float = 0.0) -> None:
        self.tolerance = check_tolerance(tolerance)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self._frames = 0
        self._duplicates = 0
        self._sides: list[float] = []
        self._scores: list[float] = []  # of the detection that finds each box, -inf for a missed one
        self._false: list[float] = []

    def update(self, centroids: ArrayLike, boxes: ArrayLike, scores: ArrayLike) -> BoxMatch:
        """Counts a frame; arguments and errors as `match_boxes`, whose result it returns."""
        match = match_boxes(centroids, boxes, scores, tolerance=self.tolerance)
        values = np.asarray(scores, np.float64).reshape(-1)
        sides = _rows(boxes, 4, "boxes")
        by_box = np.full(len(sides), -math.inf)
        found = match.box >= 0
        by_box[match.box[found]] = values[found]
        self._frames += 1
        self._sides += (sides[:, 2:] - sides[:, :2]).max(1).tolist() if len(sides) else []
        self._scores += by_box.tolist()
        self._false += values[~match.inside].tolist()
        self._duplicates += int(np.count_nonzero(match.inside & ~found))
        return match

    def compute(self) -> dict[str, float]:
        """Figures of the frames so far.

        Returns:
            `pd`, found boxes over all, in [0, 1], NaN without boxes; `false_components` per frame, NaN without frames;
            and the numbers `frames`, `boxes`, `found`, `duplicates` (detections in boxes found by another).
        """
        found = sum(score > -math.inf for score in self._scores)
        return {
            "pd": found / len(self._scores) if self._scores else math.nan,
            "false_components": len(self._false) / self._frames if self._frames else math.nan,
            "frames": float(self._frames),
            "boxes": float(len(self._scores)),
            "found": float(found),
            "duplicates": float(self._duplicates),
        }

    def by_size(self, bins: Bins = BOX_BINS) -> list[Group]:
        """Boxes by the length of their longer side; groups without a box are among them, and none without any box."""
        return group_targets(bins, self._sides, [score > -math.inf for score in self._scores])

    def curve(self, thresholds: ArrayLike | None = None) -> BoxCurve:
        """The same of the detections whose score lies above each of `thresholds`; `None` means `CURVE_THRESHOLDS`."""
        levels = np.array(check_thresholds(thresholds))
        scores, false = np.array(self._scores), np.array(self._false)
        found = np.count_nonzero(scores > levels[:, None], axis=1)
        alarms = np.count_nonzero(false > levels[:, None], axis=1)
        nothing = np.full(len(levels), math.nan)
        return BoxCurve(
            levels,
            found / len(scores) if len(scores) else nothing,
            alarms / self._frames if self._frames else nothing,
        )
