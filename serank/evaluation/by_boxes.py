"""Measuring a detector on frames with boxes, where there are no masks to measure by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from serank.datasets.box_folder import BoxSample
from serank.evaluation.results import plain_values
from serank.inference.detector import Detector
from serank.metrics.boxes import BoxCurve, BoxGroup, BoxMetrics
from serank.metrics.checks import CURVE_THRESHOLDS


@dataclass(frozen=True)
class BoxFrameScore:
    """Figures of one frame."""

    name: str
    boxes: int
    found: int
    false_components: int
    duplicates: int


@dataclass(frozen=True, eq=False)
class BoxEvaluation:
    """Result of `evaluate_boxes`; `str` gives its figures in a line, and Pd by size in a second one."""

    metrics: dict[str, float]
    """What `serank.metrics.BoxMetrics.compute` gives."""
    by_size: list[BoxGroup]
    """By the longer side, groups without a box left out."""
    curve: BoxCurve
    """From `threshold` on."""
    frames: list[BoxFrameScore]
    threshold: float
    tolerance: float
    """Px by which boxes were grown."""
    about: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for `json.dumps`; NaN and infinite bounds become `None`, groups gain their `pd`."""
        return {"match": "boxes", **plain_values(self)}

    def __str__(self) -> str:
        m = self.metrics
        text = (
            f"Pd {m['pd']:.4f}  false components {m['false_components']:.3f} a frame  by boxes grown by "
            f"{self.tolerance:g} px  ({m['frames']:.0f} frames, {m['boxes']:.0f} boxes, "
            f"{m['duplicates']:.0f} duplicates)"
        )
        sizes = "  ".join(f"{group.label} {group.pd:.4f} of {group.boxes}" for group in self.by_size)
        return f"{text}\nPd by longer side  {sizes}" if sizes else text


def evaluate_boxes(
    model: Detector,
    dataset: Sequence[BoxSample],
    *,
    threshold: float | None = None,
    tolerance: float = 0.0,
    progress: bool = False,
) -> BoxEvaluation:
    """Pd and false components of `model` on frames with boxes, counted as `serank.metrics.boxes` says.

    Args:
        model: run as it is, as by `serank.evaluation.evaluate`, and so are `threshold`, `progress` and the errors.
        dataset: such as `serank.datasets.BoxFolder`.
        threshold: probability in [0, 1].
        tolerance: px by which boxes are grown on each side, >= 0.
        progress: show a bar on standard error.
    """
    if len(dataset) == 0:
        raise ValueError("dataset is empty; expected at least one frame")
    chosen = model.check_options(threshold, 1)
    metrics = BoxMetrics(tolerance)
    scores = []
    for i in tqdm(range(len(dataset)), disable=not progress, unit="frame"):
        name, frame, boxes, hidden = dataset[i]
        detections = model.detect(frame, chosen, ignore=hidden)
        # not their scores: those may be calibrated, and the curve's levels are thresholds of the probability
        peaks = np.zeros(len(detections) + 1, np.float32)
        np.maximum.at(peaks, detections.labels.ravel(), detections.probability.ravel())
        match = metrics.update(detections.centroids, boxes, peaks[1:])
        found = int(np.count_nonzero(match.box >= 0))
        inside = int(np.count_nonzero(match.inside))
        scores.append(BoxFrameScore(name, len(boxes), found, len(match.box) - inside, inside - found))
    levels = [chosen, *(level for level in CURVE_THRESHOLDS if level > chosen)]
    groups = [group for group in metrics.by_size() if group.boxes]
    return BoxEvaluation(metrics.compute(), groups, metrics.curve(levels), scores, chosen, metrics.tolerance)
