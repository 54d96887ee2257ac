"""Measuring a detector, or any method's maps, on a data set."""

from serank.evaluation.by_boxes import BoxEvaluation, BoxFrameScore, evaluate_boxes
from serank.evaluation.evaluator import DEFAULT_THRESHOLDS, Evaluator
from serank.evaluation.predictions import PredictionFolder
from serank.evaluation.report.writer import check_report_folder, write_report
from serank.evaluation.resolution import Resolution, check_resolution
from serank.evaluation.results import AREA_BINS, SCR_BINS, Curves, Evaluation, FrameScore, FrameView, Group, TargetScore
from serank.evaluation.runner import evaluate, predict_sample
from serank.evaluation.threshold import ThresholdChoice, choose_threshold, pick_threshold, set_threshold

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
    "FrameView",
    "Group",
    "PredictionFolder",
    "Resolution",
    "TargetScore",
    "ThresholdChoice",
    "check_report_folder",
    "check_resolution",
    "choose_threshold",
    "evaluate",
    "evaluate_boxes",
    "pick_threshold",
    "predict_sample",
    "set_threshold",
    "write_report",
]
