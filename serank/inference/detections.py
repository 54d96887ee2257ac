"""What was found in a frame, and how probabilities become detections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from serank.frames.filling import is_wide
from serank.inference.scores import Calibration, calibrated_scores
from serank.metrics.components import component_peaks, component_table, label_components
from serank.utils.checks import check_count, check_threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from PIL import Image

Float = NDArray[np.float32]
Picks: TypeAlias = slice | Sequence[bool] | Sequence[int] | NDArray[Any]
"""What picks several detections: a slice, a bool for each of them, or their numbers."""


@dataclass(frozen=True)
class FrameSource:
    """Where a frame came from.

    Attributes:
        path: of the file.
        page: number of the page of a TIFF file or stack that has several, from 0.
        frame: number of the frame of a video, from 0.
    """

    path: Path
    page: int | None = None
    frame: int | None = None

    @property
    def index(self) -> int | None:
        """The page or the frame number, whichever there is."""
        return self.page if self.frame is None else self.frame

    def __str__(self) -> str:
        page = "" if self.page is None else f", page {self.page}"
        return f"{self.path}{page}" + ("" if self.frame is None else f", frame {self.frame}")


class Detection(NamedTuple):
    """One detection, in plain numbers; the fields are those of `Detections`."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""
    centroid: tuple[float, float]
    """x and y in pixels."""
    score: float
    area: int
    track: int | None = None


@dataclass(frozen=True, eq=False, repr=False)  # arrays have no single truth value and print at length
class Detections(Sequence[Detection]):
    """What was found in one frame; the N detections are sorted by score, highest first, until picked otherwise.

    A sequence: `found[0]` is one `Detection`; a slice, a bool mask or a list of numbers, such as
    `found[found.scores > 0.9]`, gives `Detections` of the same frame, whose `mask` and `labels` hold only these.

    Attributes:
        probability: `(H, W)` float32, target probability of each pixel at the frame's own size.
        mask: `(H, W)` bool, pixels of the detections: above the threshold, components below the minimum area or score
            left out.
        labels: `(H, W)` int32, i + 1 on the pixels of detection i and 0 elsewhere.
        boxes: `(N, 4)` float32, x0, y0, x1, y1 in pixels; x1 and y1 are exclusive, so a single pixel has sides of 1.
        centroids: `(N, 2)` float32, mean x and y of a component's pixels; (0, 0) is the first pixel's centre.
        scores: `(N,)` float32 in [0, 1]: peak probability of each component, or, with calibrated scores, the share of
            detections like it that are true.
        areas: `(N,)` int64, pixels of each component.
        threshold: probability above which a pixel counts as target.
        frame: `(H, W)` float32 in [0, 1], the frame as read, for drawing.
        source: the file, page and frame number, `None` for frames that were given as arrays.
        tracks: `(N,)` int64, track numbers from 1, or `None` where nothing was tracked.
        calibrated: whether `scores` are calibrated ones rather than peak probabilities.
    """

    probability: Float
    mask: NDArray[np.bool_]
    labels: NDArray[np.int32]
    boxes: Float
    centroids: Float
    scores: Float
    areas: NDArray[np.int64]
    threshold: float
    frame: Float
    source: FrameSource | None = None
    tracks: NDArray[np.int64] | None = None
    calibrated: bool = False

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, key: Picks) -> Detections: ...

    def __getitem__(self, key: Any) -> Detection | Detections:
        if hasattr(key, "__index__") and not isinstance(key, (bool, np.bool_)) and getattr(key, "ndim", 0) == 0:
            return self._single(index(key))
        return self._picked(np.arange(len(self))[key] if isinstance(key, slice) else self._numbers(key))

    def _single(self, number: int) -> Detection:
        if not -len(self) <= number < len(self):
            raise IndexError(f"detection {number} of {len(self)}; they are numbered from 0")
        x0, y0, x1, y1 = self.boxes[number].tolist()
        x, y = self.centroids[number].tolist()
        track = None if self.tracks is None else int(self.tracks[number])
        return Detection((x0, y0, x1, y1), (x, y), float(self.scores[number]), int(self.areas[number]), track)

    def _numbers(self, key: Any) -> NDArray[np.int64]:
        """The numbers that a mask or a list picks."""
        picks = np.asarray(key)
        if picks.size == 0 and picks.ndim == 1 and picks.dtype.kind == "f":  # []
            picks = picks.astype(np.int64)
        if picks.ndim != 1 or picks.dtype.kind not in "bui":
            raise TypeError(f"detections are picked by int, slice, bool mask or list of ints; got {key!r:.100}")
        if picks.dtype.kind == "b":
            if len(picks) != len(self):
                raise IndexError(f"a mask of {len(picks)} for {len(self)} detections; it needs a bool for each")
            return np.flatnonzero(picks)
        if len(picks) and not -len(self) <= picks.min() <= picks.max() < len(self):
            raise IndexError(f"detections {picks.tolist()!r:.100} of {len(self)}; they are numbered from 0")
        numbers: NDArray[np.int64] = picks.astype(np.int64) % max(len(self), 1)
        if len(np.unique(numbers)) < len(numbers):
            raise IndexError(f"detections {picks.tolist()!r:.100} name one twice; pick each once")
        return numbers

    def _picked(self, numbers: NDArray[np.int64]) -> Detections:
        renumbered = np.zeros(len(self) + 1, np.int32)
        renumbered[numbers + 1] = np.arange(1, len(numbers) + 1)
        labels = renumbered[self.labels]
        return replace(
            self,
            mask=labels > 0,
            labels=labels,
            boxes=self.boxes[numbers],
            centroids=self.centroids[numbers],
            scores=self.scores[numbers],
            areas=self.areas[numbers],
            tracks=None if self.tracks is None else self.tracks[numbers],
        )

    def sorted(self, by: str = "score", *, descending: bool = True) -> Detections:
        """The same detections in another order; equal ones keep theirs.

        Args:
            by: `"score"`, `"area"`, `"x"` or `"y"` (of the centroid), or `"track"`.
            descending: largest first.

        Raises:
            ValueError: another `by`, or `"track"` of detections that were not tracked.
        """
        keys = {"score": self.scores, "area": self.areas, "x": self.centroids[:, 0], "y": self.centroids[:, 1]}
        if self.tracks is not None:
            keys["track"] = self.tracks
        if by not in keys:
            raise ValueError(f"by must be one of {', '.join(keys)}; got {by!r}")
        values = np.asarray(keys[by])
        return self._picked(np.argsort(-values if descending else values, kind="stable"))

    def __repr__(self) -> str:
        height, width = self.mask.shape
        where = "a frame" if self.source is None else str(self.source)
        return f"Detections({len(self)} in {where} of {height}x{width}, threshold={self.threshold})"

    def _repr_png_(self) -> bytes:
        from serank.inference.display import png_bytes

        return png_bytes(self)

    def _repr_html_(self) -> str:
        from serank.inference.display import html

        return html(self)

    def image(self) -> Image.Image:
        """The picture that `save` writes, RGB: boxes and scores, as `p=0.93`, over the frame."""
        from serank.inference.drawing import overlay

        return overlay(self.frame, self.boxes, self.scores, self.tracks).convert("RGB")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draws the boxes and scores over the frame into an image file, whole or not at all.

        Args:
            path: its suffix sets the format, such as `.png`.

        Raises:
            ValueError: a suffix that is no image format.
            OSError: the file can't be written.
        """
        from serank.inference.drawing import save_overlay  # Pillow's fonts are needed for this alone

        save_overlay(path, self.frame, self.boxes, self.scores, self.tracks)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the picture of `image` with Matplotlib, axes in pixels of the frame.

        Args:
            ax: to draw on; a new figure's where it is `None`.

        Returns:
            The axes.

        Raises:
            ImportError: Matplotlib isn't installed.
        """
        from serank.inference.display import plot

        return plot(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """Size, threshold and the detections as Python's numbers, rounded, ready for `json.dumps`."""
        height, width = self.mask.shape
        return {
            "height": height,
            "width": width,
            "threshold": self.threshold,
            "detections": [
                {
                    "box": [int(v) for v in found.box],
                    "centroid": [round(v, 2) for v in found.centroid],
                    "score": round(found.score, 4),
                    "area": found.area,
                }
                | ({} if found.track is None else {"track": found.track})
                for found in self
            ],
        }

    def to_records(self) -> list[dict[str, Any]]:
        """A flat dict for each detection, in Python's numbers.

        Keys: `frame` (path of the file, `None` without one), `index` (of the page or the video's frame, or `None`),
        `x`, `y`, `score`, `area`, `x0`, `y0`, `x1`, `y1` and `track` (or `None`).
        """
        from serank.inference.conversions import records

        return records(self)

    def to_pandas(self) -> DataFrame:
        """A table of one row for each detection, with the columns of `to_records`.

        Raises:
            ImportError: pandas isn't installed.
        """
        from serank.inference.conversions import pandas_frame

        return pandas_frame(self)

    def to_supervision(self, *, masks: bool = True) -> Any:
        """`supervision.Detections` of class 0, `"target"`, with track numbers, areas and centroids.

        Args:
            masks: give each detection its mask, N times `(H, W)` bool.

        Raises:
            ImportError: supervision isn't installed.
        """
        from serank.inference.conversions import supervision_detections

        return supervision_detections(self, masks=masks)

    def to_coco(self, *, image_id: int = 1) -> dict[str, Any]:
        """A COCO data set of this one frame: `images`, `annotations` with `score` and masks as runs, `categories`.

        Args:
            image_id: of the frame; annotations are numbered from 1.
        """
        from serank.inference.conversions import coco

        return coco(self, image_id)

    def to_yolo(self, *, scores: bool = False) -> str:
        """Lines of a YOLO label file, `0 x y width height` in shares of the frame's sides.

        Args:
            scores: add the score as a sixth column, as predictions of YOLO have it.
        """
        from serank.inference.conversions import yolo_lines

        return yolo_lines(self.to_dict(), scores=scores)

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON collection of the boxes as polygons, in pixels: x to the right, y down.

        (0, 0) is the frame's top-left corner, as for `boxes`; `centroids`, which start at the first pixel's centre,
        are among the properties.
        """
        from serank.inference.conversions import geojson

        return geojson(self)


def find_detections(
    probability: Float,
    frame: Float,
    *,
    hidden: NDArray[np.bool_] | None = None,
    threshold: float = 0.5,
    min_area: int = 1,
    min_score: float = 0.0,
    calibration: Calibration | None = None,
    source: FrameSource | None = None,
) -> Detections:
    """Connected components of `probability > threshold` as detections.

    Hidden pixels belong to no detection, but one or two rows or columns of them don't cut one in two: parts of a
    component that hang together across them, where the probability of what was filled in is above the threshold too,
    are one detection.

    Args:
        probability: `(H, W)` float32 in [0, 1]; the result has 0 on hidden pixels.
        frame: `(H, W)` float32 in [0, 1], kept for drawing.
        hidden: `(H, W)`, pixels without data and ignored ones; `None` for none.
        threshold: in [0, 1].
        min_area: smallest component kept, in pixels.
        min_score: least score kept, in [0, 1].
        calibration: of the scores, see `serank.inference.scores.calibrated_scores`.
        source: where the frame came from.

    Raises:
        ValueError: `threshold` or `min_score` outside [0, 1], or `min_area` below 1.
    """
    check_threshold(threshold)
    check_threshold(min_score, "min_score")
    check_count(min_area, "min_area")
    if hidden is None:
        labels, count = label_components(probability > threshold)
    else:
        labels, count = _visible_components(probability > threshold, hidden)
        probability = np.where(hidden, np.float32(0), probability)
    table = component_table(labels, count)
    scores = calibrated_scores(component_peaks(labels, count, probability), calibration)
    order = np.argsort(-scores, kind="stable")
    chosen = order[(table.areas[order] >= min_area) & (scores[order] >= min_score)]
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[chosen + 1] = np.arange(1, len(chosen) + 1)
    labels = renumbered[labels]
    return Detections(
        probability=probability,
        mask=labels > 0,
        labels=labels,
        boxes=table.boxes[chosen].astype(np.float32),
        centroids=table.centroids[chosen].astype(np.float32),
        scores=scores[chosen],
        areas=table.areas[chosen].astype(np.int64),
        threshold=threshold,
        frame=frame,
        source=source,
        calibrated=calibration is not None,
    )


def _visible_components(mask: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """As `label_components`, of what isn't hidden, joined across thin hidden lines."""
    labels, count = label_components(mask & ~is_wide(hidden))
    labels[hidden] = 0
    seen = np.unique(labels)
    numbers = np.zeros(count + 1, np.int32)
    numbers[seen[seen > 0]] = np.arange(1, np.count_nonzero(seen) + 1)
    return numbers[labels], int(np.count_nonzero(seen))
