"""From frames to detections: the detector, fused networks, files and folders."""

from serank.inference.batch import BatchResult, write_detections
from serank.inference.detections import Detection, Detections, FrameSource, find_detections
from serank.inference.detector import Detector, predict
from serank.inference.fused_network import InferenceNetwork
from serank.inference.streaming import detect_files
from serank.inference.tracking import CentroidTracker

__all__ = [
    "BatchResult",
    "CentroidTracker",
    "Detection",
    "Detections",
    "Detector",
    "FrameSource",
    "InferenceNetwork",
    "detect_files",
    "find_detections",
    "predict",
    "write_detections",
]
