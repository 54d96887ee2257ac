"""Measuring a detector, or any method's maps, on a data set."""

from serank.evaluation.by_boxes import (
    BoxEvaluation,
    BoxFrameScore,
    BoxFrameView,
    BoxScore,
    evaluate_boxes,
    view_boxes,
)
from serank.evaluation.calibration import (
    ScoreCalibration,
    ScoreChoice,
    calibrate_scores,
    fit_calibration,
    pick_score,
)
from serank.evaluation.evaluator import DEFAULT_THRESHOLDS, Evaluator
from serank.evaluation.predictions import PredictionFolder
from serank.evaluation.report.box_writer import write_box_report
from serank.evaluation.report.writer import write_report
from serank.evaluation.resolution import Resolution
from serank.evaluation.results import (
    AREA_BINS,
    SCR_BINS,
    Curves,
    DetectionScores,
    Evaluation,
    FrameScore,
    FrameView,
    ScoreQuality,
    TargetScore,
)
from serank.evaluation.runner import evaluate, predict_sample
from serank.evaluation.score_quality import expected_calibration_error, score_quality
from serank.evaluation.threshold import ThresholdChoice, choose_threshold, pick_threshold

__all__ = [
    "AREA_BINS",
    "DEFAULT_THRESHOLDS",
    "SCR_BINS",
    "BoxEvaluation",
    "BoxFrameScore",
    "BoxFrameView",
    "BoxScore",
    "Curves",
    "DetectionScores",
    "Evaluation",
    "Evaluator",
    "FrameScore",
    "FrameView",
    "PredictionFolder",
    "Resolution",
    "ScoreCalibration",
    "ScoreChoice",
    "ScoreQuality",
    "TargetScore",
    "ThresholdChoice",
    "calibrate_scores",
    "choose_threshold",
    "evaluate",
    "evaluate_boxes",
    "expected_calibration_error",
    "fit_calibration",
    "pick_score",
    "pick_threshold",
    "predict_sample",
    "score_quality",
    "view_boxes",
    "write_box_report",
    "write_report",
]
