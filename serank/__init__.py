"""Infrared small target detection: SeRankDet with weights, its layers, training and metrics."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from serank.detect import Detections
from serank.layers import DDC, LSFF, SeRankAttention, rank_size
from serank.network import SeRankDet

__version__ = "0.1.0"

__all__ = ["DDC", "LSFF", "Detections", "SeRankAttention", "SeRankDet", "rank_size"]

if TYPE_CHECKING:
    from serank import datasets as datasets
    from serank import evaluate as evaluate
    from serank import losses as losses
    from serank import metrics as metrics
    from serank import synthetic as synthetic
    from serank import train as train
else:
    # what only some need is imported at first use, which keeps `import serank` quick
    def __getattr__(name: str) -> Any:
        if name in ("datasets", "evaluate", "losses", "metrics", "synthetic", "train"):
            return import_module(f"serank.{name}")
        raise AttributeError(f"module 'serank' has no attribute {name!r}")
