"""Metrics of infrared small target detection."""

from serank.metrics.boxes import BOX_BINS, BoxCurve, BoxGroup, BoxMatch, BoxMetrics, match_boxes
from serank.metrics.functional import (
    CURVE_THRESHOLDS,
    DetectionMetrics,
    PdFaCurve,
    Protocol,
    RocCurve,
    iou,
    niou,
    pd_fa,
    pd_fa_curve,
    roc,
)

__all__ = [
    "BOX_BINS",
    "CURVE_THRESHOLDS",
    "BoxCurve",
    "BoxGroup",
    "BoxMatch",
    "BoxMetrics",
    "DetectionMetrics",
    "PdFaCurve",
    "Protocol",
    "RocCurve",
    "iou",
    "match_boxes",
    "niou",
    "pd_fa",
    "pd_fa_curve",
    "roc",
]
