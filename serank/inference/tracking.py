"""Track numbers for point targets, and the rule that a detection counts when it was seen in M of N frames.

Trackers for large objects associate boxes by their overlap. Targets of a few pixels that move by more than their size
have none, so that here centroids are associated by distance: nearest pairs overall, found as a linear assignment
(Kuhn, "The Hungarian method for the assignment problem", 1955).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.inference.detections import Detections
from serank.utils.checks import check_count, check_number

MAX_GAP = 3
"""Frames in which a target may be unseen without losing its number, unless `confirm` looks back further."""
VELOCITY_GAIN = 0.5
"""Share of the newest displacement in a track's velocity; the rest is what it was."""


@dataclass
class _Track:
    number: int
    position: NDArray[np.float64]
    seen: deque[int]
    """Frames of the latest sightings, the last one last."""
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Pixels a frame; zero until the second sighting."""
    sightings: int = 1

    def expected(self, frame: int) -> NDArray[np.float64]:
        return self.position + self.velocity * (frame - self.seen[-1])

    def move(self, position: NDArray[np.float64], frame: int) -> None:
        step = (position - self.position) / (frame - self.seen[-1])
        self.velocity = step if self.sightings == 1 else (1 - VELOCITY_GAIN) * self.velocity + VELOCITY_GAIN * step
        self.position = position
        self.seen.append(frame)
        self.sightings += 1


class CentroidTracker:
    """Numbers the detections of a sequence of frames, given one after the other.

    A track expects its target where its last position and velocity lead; the pairs of tracks and detections with the
    least total distance, none above `max_distance`, belong together. A detection without a track starts one.

    Args:
        max_distance: farthest that a detection may lie from where its track expects it, in pixels, for each frame
            since the last sighting. A track of one sighting expects its target at the same place, so that this is
            also the fastest target that is followed, in pixels a frame.
        confirm: `(M, N)`: keep a detection only if its track was seen in M of the last N frames, this one included;
            its first M - 1 sightings are therefore left out. `None` keeps all.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, max_distance: float = 10.0, confirm: tuple[int, int] | None = None) -> None:
        self.max_distance, self.confirm = check_tracking(max_distance, confirm)
        self._next = 1
        self._frame = -1
        self._tracks: list[_Track] = []

    def reset(self) -> None:
        """Forgets all tracks, for another sequence; numbers go on."""
        self._frame = -1
        self._tracks = []

    def skip(self) -> None:
        """Passes over the next frame, which can't be read: as `update` without detections."""
        self._frame += 1

    def update(self, found: Detections) -> Detections:
        """The detections of the next frame with their track numbers, without those that are not confirmed.

        Raises:
            TypeError: no `Detections`; nothing is counted.
        """
        if not isinstance(found, Detections):
            raise TypeError(f"found must be Detections; got {type(found).__name__}; skip() passes over a frame")
        self._frame += 1
        window = self.confirm[1] if self.confirm else 1
        gap = max(MAX_GAP, window - 1)
        self._tracks = [track for track in self._tracks if self._frame - track.seen[-1] <= gap + 1]
        centroids = found.centroids.astype(np.float64)
        owner: dict[int, _Track] = {}
        for number, place in self._pairs(centroids):
            self._tracks[number].move(centroids[place], self._frame)
            owner[place] = self._tracks[number]
        for place in range(len(found)):
            if place not in owner:
                owner[place] = _Track(self._next, centroids[place], deque([self._frame], maxlen=window))
                self._tracks.append(owner[place])
                self._next += 1
        tracks = [owner[place] for place in range(len(found))]
        numbered = replace(found, tracks=np.array([track.number for track in tracks], np.int64))
        if self.confirm is None:
            return numbered
        least, window = self.confirm
        recent = [sum(self._frame - frame < window for frame in track.seen) for track in tracks]
        return numbered[np.array(recent, int) >= least]

    def _pairs(self, centroids: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Numbers of the tracks and detections that belong together."""
        from scipy.optimize import linear_sum_assignment

        if not self._tracks or not len(centroids):
            return []
        expected = np.stack([track.expected(self._frame) for track in self._tracks])
        reach = self.max_distance * np.array([self._frame - track.seen[-1] for track in self._tracks])
        distance = np.hypot(*(expected[:, None] - centroids).transpose(2, 0, 1))
        allowed = distance <= reach[:, None]
        # a pair that is not allowed costs more than all allowed ones together, so that as many of these as can be are
        forbidden = (reach.max() + 1) * (min(distance.shape) + 1)
        rows, columns = linear_sum_assignment(np.where(allowed, distance, forbidden))
        return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]


def check_tracking(max_distance: Any, confirm: Any) -> tuple[float, tuple[int, int] | None]:
    """Both arguments of `CentroidTracker` as it takes them; raises ValueError for what it doesn't take."""
    distance = check_number(max_distance, "max_distance", "a number of pixels > 0, such as 10.0")
    if not 0 < distance < float("inf"):
        raise ValueError(f"max_distance must be > 0 px and finite; got {max_distance}; give for example 10.0")
    if confirm is None:
        return distance, None
    try:
        least, window = confirm
    except (TypeError, ValueError):  # not iterable, or of another length
        raise ValueError(
            "confirm must be (M, N): seen in M of the last N frames; "
            f"got {confirm!r:.200} ({type(confirm).__name__}); give two whole numbers such as (3, 5)"
        ) from None
    least, window = check_count(least, "confirm's M"), check_count(window, "confirm's N")
    if least > window:
        raise ValueError(
            f"confirm must be (M, N) with M <= N: seen in M of the last N frames; got {confirm!r}; "
            f"did you mean ({window}, {least})?"
        )
    return distance, (least, window)
