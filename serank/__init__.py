"""Infrared small target detection: SeRankDet, its layers, data and metrics."""

from serank.detect import Detections
from serank.layers import DDC, LSFF, SeRankAttention, rank_size
from serank.network import SeRankDet

__version__ = "0.1.0"

__all__ = ["DDC", "LSFF", "Detections", "SeRankAttention", "SeRankDet", "rank_size"]
