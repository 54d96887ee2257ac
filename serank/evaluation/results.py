"""Results of an evaluation: metrics of a set, of each frame and each target, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.metrics.checks import Protocol
from serank.metrics.groups import Group

AREA_BINS = (
    ("1-4 px", 1.0, 5.0),
    ("5-9 px", 5.0, 10.0),
    ("10-20 px", 10.0, 21.0),
    ("21-40 px", 21.0, 41.0),
    ("41-80 px", 41.0, 81.0),
    (">80 px", 81.0, math.inf),
)
"""Groups of targets by area: label, lower bound, upper bound (exclusive)."""
SCR_BINS = (
    ("<2", -math.inf, 2.0),
    ("2-4", 2.0, 4.0),
    ("4-8", 4.0, 8.0),
    ("8-16", 8.0, 16.0),
    (">=16", 16.0, math.inf),
)
"""Groups of targets by signal-to-clutter ratio, like `AREA_BINS`."""


class FrameView(NamedTuple):
    """The arrays of a frame, all `(H, W)`, at the size at which it is measured."""

    frame: NDArray[np.float32] | None
    """In [0, 1]; `None` where predictions are scored without the frames."""
    probability: NDArray[np.float32]
    """In [0, 1]."""
    mask: NDArray[np.bool_]

    @property
    def background(self) -> NDArray[np.float32]:
        """What outlines are drawn over: the frame or, without one, the probability."""
        return self.probability if self.frame is None else self.frame


@dataclass(frozen=True)
class FrameScore:
    """Metrics of one frame, at the size at which it was measured."""

    name: str
    height: int
    width: int
    iou: float
    """In [0, 1]; 1 (standard) or 0 (released) where both masks are empty."""
    targets: int
    detected: int
    false_components: int
    false_pixels: int
    """Pixels of unmatched components, as the protocol counts them."""
    predicted_pixels: int
    target_pixels: int
    true_pixels: int
    """Pixels both predicted and target."""
    peak: float
    """Largest probability of the frame, in [0, 1]."""


@dataclass(frozen=True)
class TargetScore:
    """One target of one frame."""

    frame: str
    x: float
    """Column of the centroid, px; 0 is the first pixel's centre."""
    y: float
    area: int
    """Pixels of the mask's component."""
    scr: float
    """Signal-to-clutter ratio against the local background, see `serank.metrics.signal_to_clutter`; NaN where the frame
    isn't known or no background is left around the target."""
    detected: bool
    distance: float
    """To the centroid of the matched component in px, NaN if missed."""
    probability: float
    """Largest probability on the target's pixels."""


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """All detections of a set, arrays `(N,)` in the order of the frames and, within one, of `label_components`."""

    frames: NDArray[np.int64]
    """Number of the frame, from 0, in `Evaluation.frames`."""
    x: NDArray[np.float64]
    """Column of the centroid, px; 0 is the first pixel's centre."""
    y: NDArray[np.float64]
    areas: NDArray[np.int64]
    """Pixels of the component."""
    peaks: NDArray[np.float32]
    """Largest probability of the component."""
    scores: NDArray[np.float32]
    """What `detect` gives: the peak, or the calibrated score of a checkpoint that has one."""
    true: NDArray[np.bool_]
    """Whether it matches a target."""

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class ScoreQuality:
    """What the scores of detections are worth on a set."""

    ece: float
    """Expected calibration error in [0, 1], see `serank.evaluation.score_quality.expected_calibration_error`."""
    counts: NDArray[np.int64]
    """`(10,)`: detections in each of ten bins of the score, of equal width."""
    mean_scores: NDArray[np.float64]
    """`(10,)`: their mean score, NaN for an empty bin."""
    true_shares: NDArray[np.float64]
    """`(10,)`: their share of true ones; equal to the mean score where scores are calibrated."""
    cuts: NDArray[np.float64]
    """`(T,)`: all scores, highest first, each the least score kept at a point of the ROC."""
    true_kept: NDArray[np.float64]
    """`(T,)`: share of the true detections kept, NaN without any."""
    false_per_frame: NDArray[np.float64]
    """`(T,)`: false detections kept, per frame."""
    auc: float
    """Chance that a true detection scores above a false one, ties counting one half; NaN without either kind."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves over the whole set, each array `(T,)` float64 in the order of `thresholds`."""

    thresholds: NDArray[np.float64]
    tpr: NDArray[np.float64]
    """Share of target pixels above the threshold; as `serank.metrics.roc` gives it for the protocol."""
    fpr: NDArray[np.float64]
    """Share of background pixels above the threshold."""
    auc: float
    """Area under the pixel ROC over all scores, in [0, 1]; NaN without target or background pixels."""
    pd: NDArray[np.float64]
    fa: NDArray[np.float64]
    """False pixels per pixel."""
    auc_error: float
    """`auc` is off by this at most, see `serank.metrics.roc_auc.ScoreHistogram.auc`."""
    false_components: NDArray[np.float64]
    """Unmatched predicted components per frame."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of `serank.evaluation.evaluate` and of scoring a folder of predictions.

    Attributes:
        metrics: what `serank.metrics.DetectionMetrics.compute` gives, and for frames without a target
            `empty_frames`, their number, and `empty_false_components`, false components per such frame (NaN if there
            is none).
        frames: one entry for each frame, in the data set's order.
        targets: one entry for each target.
        by_area: targets grouped by area, see `AREA_BINS`; empty without targets.
        by_scr: targets grouped by signal-to-clutter ratio, see `SCR_BINS`; empty where no target's ratio is known.
        detections: all detections at the threshold.
        score_quality: of their scores; `None` without any detection.
        curves: `None` if they were not asked for.
        threshold: probability above which a pixel was taken as target.
        max_distance: in px.
        protocol: `"standard"` or `"released"`.
        resolution: `"native"` or the size, such as `"512"`, to which frames and masks were resized.
        about: what was measured (checkpoint, data set, split, machine), free words by free keys.
        problems: files that are missing, extra or of a wrong size, one sentence each.
    """

    metrics: dict[str, float]
    frames: list[FrameScore]
    targets: list[TargetScore]
    by_area: list[Group]
    by_scr: list[Group]
    detections: DetectionScores
    score_quality: ScoreQuality | None
    curves: Curves | None
    threshold: float
    max_distance: float
    protocol: Protocol
    resolution: str = "native"
    about: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for `json.dumps`; NaN and infinite bounds become `None`, groups gain their `pd`."""
        return dict(plain_values(self))


def plain_values(value: Any) -> Any:
    """`value` for `json.dumps`: data classes and named tuples as dicts, what is not finite as `None`."""
    if is_dataclass(value):
        entries = {f.name: plain_values(getattr(value, f.name)) for f in fields(value)}
        return entries | ({"pd": plain_values(value.pd)} if hasattr(value, "pd") else {})
    if hasattr(value, "_asdict"):
        return plain_values(value._asdict())
    if isinstance(value, np.ndarray):
        return plain_values(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain_values(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
