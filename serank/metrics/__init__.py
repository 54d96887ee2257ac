"""Metrics of infrared small target detection."""

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
    "CURVE_THRESHOLDS",
    "DetectionMetrics",
    "PdFaCurve",
    "Protocol",
    "RocCurve",
    "iou",
    "niou",
    "pd_fa",
    "pd_fa_curve",
    "roc",
]
