"""Metrics of infrared small target detection."""

from serank.metrics.boxes import BOX_BINS, BoxCurve, BoxMatch, BoxMetrics, match_boxes
from serank.metrics.checks import CURVE_THRESHOLDS, Protocol
from serank.metrics.components import ComponentTable, component_table, label_components
from serank.metrics.counting import PdFaCurve, RocCurve
from serank.metrics.detection import DetectionMetrics
from serank.metrics.functional import iou, niou, pd_fa, pd_fa_curve, roc
from serank.metrics.groups import Group

__all__ = [
    "BOX_BINS",
    "CURVE_THRESHOLDS",
    "BoxCurve",
    "BoxMatch",
    "BoxMetrics",
    "ComponentTable",
    "DetectionMetrics",
    "Group",
    "PdFaCurve",
    "Protocol",
    "RocCurve",
    "component_table",
    "iou",
    "label_components",
    "match_boxes",
    "niou",
    "pd_fa",
    "pd_fa_curve",
    "roc",
]
