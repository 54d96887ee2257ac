"""From frames to detections: the detector, fused networks, files and folders."""

from serank.inference.batch import BatchResult, detect_files
from serank.inference.detections import Detections, find_detections
from serank.inference.detector import Detector, predict
from serank.inference.fused_network import InferenceNetwork

__all__ = [
    "BatchResult",
    "Detections",
    "Detector",
    "InferenceNetwork",
    "detect_files",
    "find_detections",
    "predict",
]
