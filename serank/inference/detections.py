"""What was found in a frame, and how probabilities become detections."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.inference.scores import Calibration, calibrated_scores
from serank.metrics.components import component_table, label_components
from serank.utils.checks import check_threshold

__all__ = ["Detections", "check_min_area", "find_detections"]

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)  # arrays have no single truth value and print at length
class Detections:
    """What was found in one frame; the N detections are sorted by score, highest first.

    Attributes:
        probability: `(H, W)` float32, target probability of each pixel at the frame's own size.
        mask: `(H, W)` bool, pixels above the threshold, components below the minimum area or score left out.
        boxes: `(N, 4)` float32, x0, y0, x1, y1 in pixels; x1 and y1 are exclusive, so a single pixel has sides of 1.
        centroids: `(N, 2)` float32, mean x and y of a component's pixels; (0, 0) is the first pixel's centre.
        scores: `(N,)` float32 in [0, 1]: peak probability of each component, or, with calibrated scores, the share of
            detections like it that are true.
        areas: `(N,)` int64, pixels of each component.
        threshold: probability above which a pixel counts as target.
        frame: `(H, W)` float32 in [0, 1], the frame as read, for drawing.
    """

    probability: Float
    mask: NDArray[np.bool_]
    boxes: Float
    centroids: Float
    scores: Float
    areas: NDArray[np.int64]
    threshold: float
    frame: Float

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Detections({len(self)} in a frame of {height}x{width}, threshold={self.threshold})"

    def to_dict(self) -> dict[str, Any]:
        """Size, threshold and the detections as Python's numbers, ready for `json.dumps`."""
        height, width = self.mask.shape
        rows = zip(self.boxes, self.centroids, self.scores, self.areas, strict=True)
        return {
            "height": height,
            "width": width,
            "threshold": self.threshold,
            "detections": [
                {
                    "box": [int(v) for v in box],
                    "centroid": [round(float(v), 2) for v in centroid],
                    "score": round(float(score), 4),
                    "area": int(area),
                }
                for box, centroid, score, area in rows
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draws the boxes and scores over the frame into an image file, whole or not at all.

        Args:
            path: its suffix sets the format, such as `.png`.

        Raises:
            ValueError: a suffix that is no image format.
            OSError: the file can't be written.
        """
        from serank.inference.drawing import save_overlay  # Pillow's fonts are needed for this alone

        save_overlay(path, self.frame, self.boxes, self.scores)


def find_detections(
    probability: Float,
    frame: Float,
    *,
    threshold: float = 0.5,
    min_area: int = 1,
    min_score: float = 0.0,
    calibration: Calibration | None = None,
) -> Detections:
    """Connected components of `probability > threshold` as detections.

    Args:
        probability: `(H, W)` float32 in [0, 1].
        frame: `(H, W)` float32 in [0, 1], kept for drawing.
        threshold: in [0, 1].
        min_area: smallest component kept, in pixels.
        min_score: least score kept, in [0, 1].
        calibration: of the scores, see `serank.inference.scores.calibrated_scores`.

    Raises:
        ValueError: `threshold` or `min_score` outside [0, 1], or `min_area` below 1.
    """
    check_threshold(threshold)
    check_threshold(min_score, "min_score")
    check_min_area(min_area)
    labels, count = label_components(probability > threshold)
    table = component_table(labels, count)
    peaks = np.zeros(count + 1, np.float32)
    np.maximum.at(peaks, labels.ravel(), probability.ravel())
    scores = calibrated_scores(peaks[1:], calibration)
    order = np.argsort(-scores, kind="stable")
    chosen = order[(table.areas[order] >= min_area) & (scores[order] >= min_score)]
    return Detections(
        probability=probability,
        mask=np.isin(labels, chosen + 1),
        boxes=table.boxes[chosen].astype(np.float32),
        centroids=table.centroids[chosen].astype(np.float32),
        scores=scores[chosen],
        areas=table.areas[chosen].astype(np.int64),
        threshold=threshold,
        frame=frame,
    )


def check_min_area(min_area: int) -> None:
    """Raises ValueError for a smallest area below one pixel."""
    if min_area < 1:
        raise ValueError(f"min_area must be >= 1; got {min_area}")
