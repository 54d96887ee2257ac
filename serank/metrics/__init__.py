"""Metrics of infrared small target detection."""

from serank.metrics.checks import CURVE_THRESHOLDS, Protocol
from serank.metrics.components import ComponentTable, component_table, label_components
from serank.metrics.detection import DetectionMetrics
from serank.metrics.functional import PdFaCurve, RocCurve, iou, niou, pd_fa, pd_fa_curve, roc

__all__ = [
    "CURVE_THRESHOLDS",
    "ComponentTable",
    "DetectionMetrics",
    "PdFaCurve",
    "Protocol",
    "RocCurve",
    "component_table",
    "iou",
    "label_components",
    "niou",
    "pd_fa",
    "pd_fa_curve",
    "roc",
]
