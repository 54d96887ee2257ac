"""From frames to detections: the detector, drawing, fused networks and export."""

from serank.inference.batch import BatchResult, detect_files
from serank.inference.detector import Detections, Detector, find_detections, predict

__all__ = ["BatchResult", "Detections", "Detector", "detect_files", "find_detections", "predict"]
