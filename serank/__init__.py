"""Infrared small target detection: SeRankDet with weights, its layers, training and metrics."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from serank._version import __version__ as __version__

__all__ = ["DDC", "LSFF", "Detections", "SeRankAttention", "SeRankDet", "rank_size"]

if TYPE_CHECKING:
    from serank import checkpoints as checkpoints
    from serank import datasets as datasets
    from serank import errors as errors
    from serank import evaluation as evaluation
    from serank import frames as frames
    from serank import inference as inference
    from serank import layers as layers
    from serank import losses as losses
    from serank import metrics as metrics
    from serank import synthetic as synthetic
    from serank import train as train
    from serank.inference import Detections
    from serank.layers import DDC, LSFF, SeRankAttention, rank_size
    from serank.serankdet import SeRankDet
else:
    # Names are imported at first use (PEP 562): PyTorch takes seconds, which `serank --help` should not.
    _MODULES = {
        *("checkpoints", "datasets", "errors", "evaluation", "frames", "inference"),
        *("layers", "losses", "metrics", "synthetic", "train"),
    }
    _NAMES = {
        "DDC": "serank.layers",
        "LSFF": "serank.layers",
        "Detections": "serank.inference",
        "SeRankAttention": "serank.layers",
        "SeRankDet": "serank.serankdet",
        "rank_size": "serank.layers",
    }

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"serank.{name}")
        if name in _NAMES:
            value = globals()[name] = getattr(import_module(_NAMES[name]), name)
            return value
        raise AttributeError(f"module 'serank' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES, *_NAMES})
