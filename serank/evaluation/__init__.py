"""Measuring a detector, or any method's maps, on a data set."""

from serank.evaluation.by_boxes import BoxEvaluation, BoxFrameScore, evaluate_boxes
from serank.evaluation.evaluator import DEFAULT_THRESHOLDS, Evaluator
from serank.evaluation.predictions import PredictionFolder, score_predictions
from serank.evaluation.report.writer import write_report
from serank.evaluation.results import AREA_BINS, SCR_BINS, Curves, Evaluation, FrameScore, Group, TargetScore
from serank.evaluation.runner import evaluate
from serank.evaluation.threshold import ThresholdChoice, choose_threshold

__all__ = [
    "AREA_BINS",
    "DEFAULT_THRESHOLDS",
    "SCR_BINS",
    "BoxEvaluation",
    "BoxFrameScore",
    "Curves",
    "Evaluation",
    "Evaluator",
    "FrameScore",
    "Group",
    "PredictionFolder",
    "TargetScore",
    "ThresholdChoice",
    "choose_threshold",
    "evaluate",
    "evaluate_boxes",
    "score_predictions",
    "write_report",
]
