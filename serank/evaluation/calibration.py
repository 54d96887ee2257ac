"""Scores that say how often a detection is true: fitted on a validation set, stored with the checkpoint."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serank.datasets.sample import Sample
from serank.evaluation.results import Evaluation
from serank.evaluation.runner import EvaluateOptions, evaluate
from serank.evaluation.score_quality import expected_calibration_error
from serank.evaluation.threshold import Per, budget_unit
from serank.inference.detector import Detector
from serank.inference.scores import Calibration, calibrated_scores, log_odds

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class ScoreCalibration:
    """A calibration of scores, and what it gives on the set that it was fitted on.

    Attributes:
        calibration: intercept and weight of the peak's log-odds, see `serank.inference.scores.calibrated_scores`.
        detections: number of detections it was fitted on.
        false: how many of them match no target.
        ece_before: expected calibration error of the peak probabilities.
        ece_after: the same of calibrated scores, each frame's by a fit on the other half of the frames.
    """

    calibration: Calibration
    detections: int
    false: int
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class ScoreChoice:
    """A least score, and what it gives on the set on which it was chosen, at the threshold of the evaluation.

    Attributes:
        min_score: detections of this score and more are kept, as by `detect(min_score=...)`.
        pd: detected targets over all, NaN without targets.
        fa: pixels of unmatched components per pixel.
        false_components: unmatched components per frame.
    """

    min_score: float
    pd: float
    fa: float
    false_components: float


def fit_calibration(peaks: NDArray[np.floating], true: NDArray[np.bool_]) -> Calibration:
    """Fits scores to how often detections are true: logistic regression on the peak's log-odds.

    Targets are Platt's, `(n + 1) / (n + 2)` for the n true ones and `1 / (m + 2)` for the m false ones, so that the fit
    stays finite where a peak tells both apart, or where none is false.

    Args:
        peaks: `(N,)`, largest probability of each detection, in [0, 1].
        true: `(N,)`, whether it matches a target.

    Returns:
        Intercept and weight, the weight >= 0.

    Raises:
        ValueError: no detection, or shapes that differ.
    """
    # imported here, since it takes longer to import than all the rest of serank
    from scipy.optimize import minimize

    if peaks.shape != true.shape or peaks.ndim != 1:
        raise ValueError(f"peaks and true must be (N,) of one length; got {peaks.shape} and {true.shape}")
    if not len(peaks):
        raise ValueError("no detection to calibrate by; lower the threshold, or take a set with targets")
    x = log_odds(peaks)
    n, m = np.count_nonzero(true), np.count_nonzero(~true)
    wanted = np.where(true, (n + 1) / (n + 2), 1 / (m + 2))

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = w[0] + w[1] * x
        error = 1 / (1 + np.exp(-z)) - wanted
        value = (np.logaddexp(0, z) - wanted * z).mean()
        return float(value), np.array([error.mean(), (error * x).mean()])

    found = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(-100, 100), (0, 100)])
    return float(found.x[0]), float(found.x[1])


def calibrate_scores(
    model: Detector, dataset: Sequence[Sample], **options: Unpack[EvaluateOptions]
) -> ScoreCalibration:
    """Fits a calibration of the scores to a validation set: of detections with score s a share s is true there.

    The model's own threshold makes the detections; the model is left as it is, and
    `model.score_calibration = found.calibration` gives it the result. What it says of other frames is true as far as
    these are alike: a detection in another sensor's frames is false more often. Runs in several processes as
    `evaluate` does.

    Args:
        model: run in eval mode.
        dataset: validation samples, which the model wasn't trained on, with a few false detections at least.
        options: `max_distance`, `protocol`, `resolution`, `tta` and `progress` of `evaluate`.

    Returns:
        The calibration and its error, cross-fitted over two halves: every other frame.

    Raises:
        ValueError: no detection, or an argument out of its range.
    """
    found = evaluate(model, dataset, threshold=None, curves=False, **options).detections
    calibration = fit_calibration(found.peaks, found.true)
    scores = np.zeros(len(found), np.float32)
    odd = found.frames % 2 == 1
    for half in (odd, ~odd):
        if half.any():
            fitted = calibration if half.all() else fit_calibration(found.peaks[~half], found.true[~half])
            scores[half] = calibrated_scores(found.peaks[half], fitted)
    return ScoreCalibration(
        calibration=calibration,
        detections=len(found),
        false=int(np.count_nonzero(~found.true)),
        ece_before=expected_calibration_error(found.peaks, found.true),
        ece_after=expected_calibration_error(scores, found.true),
    )


def pick_score(evaluation: Evaluation, *, false_alarms: float, per: Per = "pixel") -> ScoreChoice:
    """Picks the lowest score that keeps false alarms within a budget, at the threshold of the evaluation.

    A higher threshold shrinks every detection until it is gone; a least score leaves the mask of those that are kept
    as it is. Which of them are true is taken from the evaluation: where a detection below the score was matched, none
    of those that are left takes its place.

    Args:
        evaluation: of a validation set, by the standard protocol.
        false_alarms: the budget, >= 0.
        per: `"pixel"` counts pixels of false components per pixel, `"frame"` false components per frame.

    Raises:
        ValueError: no score meets the budget, or an argument is out of its range.
    """
    unit = budget_unit(false_alarms, per)
    if evaluation.protocol != "standard":
        raise ValueError(
            f"evaluation must be of the standard protocol; got {evaluation.protocol!r}, by which whether a detection "
            "is false depends on the others"
        )
    found = evaluation.detections
    pixels = sum(frame.height * frame.width for frame in evaluation.frames)
    cuts = np.unique(found.scores)  # ascending

    def at(cut: float) -> ScoreChoice:
        kept = found.scores >= cut
        false = kept & ~found.true
        targets = len(evaluation.targets)
        return ScoreChoice(
            min_score=float(cut),
            pd=int(np.count_nonzero(kept & found.true)) / targets if targets else float("nan"),
            fa=int(found.areas[false].sum()) / pixels,
            false_components=int(np.count_nonzero(false)) / len(evaluation.frames),
        )

    def meets(choice: ScoreChoice) -> bool:
        return (choice.fa if per == "pixel" else choice.false_components) <= false_alarms

    if meets(everything := at(0.0)):
        return everything
    # false alarms fall as the score rises: the first that meets the budget
    first = bisect_left(cuts, True, key=lambda cut: meets(at(cut)))
    if first == len(cuts):
        raise ValueError(
            f"no score keeps false alarms within {false_alarms:g} {unit}: false detections have the highest one, "
            f"{cuts[-1]:.7g}; allow more, or choose a threshold instead"
        )
    return at(cuts[first])
