"""What scores of detections are worth: how often those of a score are true, and how well true ones stand out by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serank.evaluation.results import DetectionScores, ScoreQuality

SCORE_BINS = 10
"""Bins of equal width in [0, 1], by which the reliability of scores is told."""


def score_quality(detections: DetectionScores, frames: int) -> ScoreQuality | None:
    """Reliability, expected calibration error and ROC of the scores.

    Args:
        detections: of a set.
        frames: in the set, >= 1.

    Returns:
        `None` without any detection.
    """
    if not len(detections):
        return None
    counts, means, shares = _reliability(detections.scores, detections.true)
    order = np.argsort(-detections.scores, kind="stable")
    scores, true = detections.scores[order], detections.true[order]
    last = np.append(scores[1:] != scores[:-1], True)  # of those with one score
    hits, alarms = np.cumsum(true)[last], np.cumsum(~true)[last]
    n_true, n_false = int(hits[-1]), int(alarms[-1])
    area = float("nan")
    if n_true and n_false:
        steps, heights = np.diff(alarms, prepend=0), (hits + np.append(0, hits[:-1])) / 2  # trapezoids
        area = float(steps @ heights) / (n_true * n_false)
    return ScoreQuality(
        ece=_error(counts, means, shares),
        counts=counts,
        mean_scores=means,
        true_shares=shares,
        cuts=scores[last].astype(np.float64),
        true_kept=hits / n_true if n_true else np.full(len(hits), np.nan),
        false_per_frame=alarms / frames,
        auc=area,
    )


def expected_calibration_error(scores: NDArray[np.floating], true: NDArray[np.bool_]) -> float:
    """Mean difference between the scores of a bin and its share of true ones, weighted by the bin's detections.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3, with `SCORE_BINS` bins.

    Args:
        scores: `(N,)` in [0, 1].
        true: `(N,)`.

    Returns:
        In [0, 1]; NaN without any detection.
    """
    return _error(*_reliability(scores, true)) if len(scores) else float("nan")


def _reliability(
    scores: NDArray[np.floating], true: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each bin: its detections, their mean score and their share of true ones, NaN where it is empty."""
    bins = np.minimum((np.asarray(scores, np.float64) * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    counts = np.bincount(bins, minlength=SCORE_BINS).astype(np.int64)
    with np.errstate(invalid="ignore"):
        means = np.bincount(bins, scores, SCORE_BINS) / counts
        shares = np.bincount(bins, true, SCORE_BINS) / counts
    return counts, means, shares


def _error(counts: NDArray[np.int64], means: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    return float(np.nansum(counts * np.abs(means - shares)) / counts.sum())
