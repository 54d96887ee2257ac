"""Infrared small target detection: the layers of SeRankDet, data and metrics."""

from serank.layers import DDC, LSFF, SeRankAttention, rank_size

__version__ = "0.1.0"

__all__ = ["DDC", "LSFF", "SeRankAttention", "rank_size"]
