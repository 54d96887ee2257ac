"""Measuring a detector on frames with boxes, where there are no masks to measure by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serank.datasets.box_folder import BoxSample
from serank.datasets.sample import check_samples
from serank.evaluation.results import plain_values
from serank.frames.frame import Frame
from serank.inference.detections import Detections
from serank.inference.detector import Detector
from serank.metrics.boxes import BoxCurve, BoxMatch, BoxMetrics
from serank.metrics.checks import CURVE_THRESHOLDS
from serank.metrics.components import component_peaks
from serank.metrics.groups import Group


class BoxFrameView(NamedTuple):
    """A frame as it is measured."""

    frame: NDArray[np.float32]
    """`(H, W)`, in [0, 1]."""
    detections: Detections
    """What was found in it."""
    boxes: NDArray[np.float64]
    """`(M, 4)`, x0, y0, x1, y1 in px, x1 and y1 exclusive."""

    @property
    def peaks(self) -> NDArray[np.float32]:
        """`(N,)`: largest probability of each detection, whether or not its score is a calibrated one."""
        return component_peaks(self.detections.labels, len(self.detections), self.detections.probability)


@dataclass(frozen=True)
class BoxFrameScore:
    """Figures of one frame."""

    name: str
    height: int
    width: int
    boxes: int
    found: int
    false_components: int
    false_pixels: int
    """Pixels of the false components."""
    duplicates: int
    peak: float
    """Largest probability of the frame, in [0, 1]."""


@dataclass(frozen=True)
class BoxScore:
    """One box of one frame, not grown."""

    frame: str
    x0: float
    y0: float
    x1: float
    y1: float
    found: bool
    probability: float
    """Largest probability on the pixels that the box touches."""


@dataclass(frozen=True, eq=False)
class BoxEvaluation:
    """Result of `evaluate_boxes`; `str` gives its figures in a line, and Pd by size in a second one."""

    metrics: dict[str, float]
    """What `serank.metrics.BoxMetrics.compute` gives."""
    by_size: list[Group]
    """By the longer side, groups without a box left out."""
    curve: BoxCurve
    """From `threshold` on."""
    frames: list[BoxFrameScore]
    boxes: list[BoxScore]
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
        sizes = "  ".join(f"{group.label} {group.pd:.4f} of {group.targets}" for group in self.by_size)
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
    check_samples(dataset, "dataset", BoxSample, "BoxFolder")
    chosen, _ = model.check_options(threshold)
    metrics = BoxMetrics(tolerance)
    frames: list[BoxFrameScore] = []
    scores: list[BoxScore] = []
    for i in tqdm(range(len(dataset)), disable=not progress, unit="frame"):
        sample = dataset[i]
        view = view_boxes(model, sample, chosen)
        # not their scores: those may be calibrated, and the curve's levels are thresholds of the probability
        match = metrics.update(view.detections.centroids, view.boxes, view.peaks)
        frames.append(_frame_score(sample.name, view, match))
        scores += _box_scores(sample.name, view, match)
    levels = [chosen, *(level for level in CURVE_THRESHOLDS if level > chosen)]
    groups = [group for group in metrics.by_size() if group.targets]
    return BoxEvaluation(metrics.compute(), groups, metrics.curve(levels), frames, scores, chosen, metrics.tolerance)


def view_boxes(model: Detector, sample: BoxSample, threshold: float | None = None) -> BoxFrameView:
    """What `model` finds in a sample at `threshold`, `None` meaning the model's own, beside its boxes."""
    # prepared already, as the data set's options say: what is given as an array would be prepared again
    frame = Frame(sample.frame.astype(np.float32, copy=False), sample.hidden)
    return BoxFrameView(frame.grey, model.detect(frame, threshold), sample.boxes)


def box_window(box: NDArray[np.float64], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box `(4,)` touches in a frame of `shape`."""
    size = shape[::-1]
    low = np.floor(np.clip(box[:2], 0, size)).astype(int)
    high = np.ceil(np.clip(box[2:], 0, size)).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _frame_score(name: str, view: BoxFrameView, match: BoxMatch) -> BoxFrameScore:
    height, width = view.frame.shape
    found, inside = np.count_nonzero(match.box >= 0), np.count_nonzero(match.inside)
    return BoxFrameScore(
        name,
        height,
        width,
        boxes=len(view.boxes),
        found=int(found),
        false_components=len(match.box) - int(inside),
        false_pixels=int(view.detections.areas[~match.inside].sum()),
        duplicates=int(inside - found),
        peak=float(view.detections.probability.max()),
    )


def _box_scores(name: str, view: BoxFrameView, match: BoxMatch) -> list[BoxScore]:
    probability = view.detections.probability
    scores = []
    for i, box in enumerate(view.boxes):
        x0, y0, x1, y1 = box.tolist()
        peak = float(probability[box_window(box, view.frame.shape)].max(initial=0))
        scores.append(BoxScore(name, x0, y0, x1, y1, i in match.box, peak))
    return scores
