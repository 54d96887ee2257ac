"""The three layers of SeRankDet, each usable in any network."""

from serank.layers.attention import SeRankAttention, rank_size
from serank.layers.ddc import DDC
from serank.layers.lsff import LSFF

__all__ = ["DDC", "LSFF", "SeRankAttention", "rank_size"]
