"""Scores of detections: the peak probability, or a calibrated one that says how often such detections are true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Calibration: TypeAlias = tuple[float, float]
"""Intercept, and weight of the peak's log-odds, >= 0; see `calibrated_scores`."""

CLIP = 2.0**-24
"""Probabilities are kept this far from 0 and 1, as far as float32 can tell them from 1: log-odds of up to 16.6."""


def check_calibration(calibration: Sequence[float] | None) -> Calibration | None:
    """`calibration` as Python's floats.

    Raises:
        ValueError: not two finite numbers, or a negative weight.
    """
    if calibration is None:
        return None
    values = [float(value) for value in calibration]
    if len(values) != 2 or not all(map(math.isfinite, values)) or values[1] < 0:
        raise ValueError(
            "score_calibration must be None or two finite numbers, intercept and weight, the weight >= 0 since a "
            f"higher peak makes no detection less sure; got {values}"
        )
    return values[0], values[1]


def log_odds(probability: NDArray[Any]) -> NDArray[np.float64]:
    """`log(p / (1 - p))` of probabilities in [0, 1], finite; float32's 1 counts as `1 - 2 ** -24`."""
    p = np.clip(np.asarray(probability, np.float64), CLIP, 1 - CLIP)
    odds: NDArray[np.float64] = np.log(p / (1 - p))
    return odds


def calibrated_scores(peaks: NDArray[Any], calibration: Calibration | None) -> NDArray[np.float32]:
    """Scores of N detections.

    Without calibration the peak probability: nearly always 0.99 or more, since networks trained with an IoU loss are
    sure of what they see, right or wrong. With `(a, b)` it is `sigmoid(a + b * log_odds(peak))`, the scaling of Platt
    ("Probabilistic outputs for support vector machines", 1999), fitted by `serank.evaluation.calibrate_scores` so that
    of detections with score s a share s is true. Either way a higher peak has a higher score.

    Args:
        peaks: `(N,)`, largest probability of each component, in [0, 1].
        calibration: `(a, b)`, or `None`.

    Returns:
        `(N,)` float32 in [0, 1].
    """
    if calibration is None:
        return np.asarray(peaks, np.float32)
    intercept, weight = calibration
    x = np.clip(intercept + weight * log_odds(peaks), -500, 500)
    scores: NDArray[np.float32] = (1 / (1 + np.exp(-x))).astype(np.float32)
    return scores
