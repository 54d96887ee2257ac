"""Infrared small target detection: SeRankDet with weights, its layers, training and metrics."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from serank._version import __version__ as __version__
from serank.inference.detections import Detections
from serank.layers import DDC, LSFF, SeRankAttention, rank_size
from serank.serankdet import SeRankDet

__all__ = ["DDC", "LSFF", "Detections", "SeRankAttention", "SeRankDet", "rank_size"]

if TYPE_CHECKING:
    from serank import checkpoints as checkpoints
    from serank import datasets as datasets
    from serank import evaluation as evaluation
    from serank import inference as inference
    from serank import losses as losses
    from serank import metrics as metrics
    from serank import synthetic as synthetic
    from serank import train as train
else:
    # what only some need is imported at first use, which keeps `import serank` quick
    def __getattr__(name: str) -> Any:
        lazy = ("checkpoints", "datasets", "evaluation", "inference", "losses", "metrics", "synthetic", "train")
        if name in lazy:
            return import_module(f"serank.{name}")
        raise AttributeError(f"module 'serank' has no attribute {name!r}")
