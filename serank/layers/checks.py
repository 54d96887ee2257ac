"""Checks of the maps that layers and the network take."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_map"]


def check_map(x: Tensor, name: str = "x") -> None:
    """Raises ValueError, which names the argument, unless `x` is a dense floating map `(B, C, H, W)`; B may be 0."""
    if x.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor; got {x.layout}; convert it with {name}.to_dense()")
    if x.ndim != 4:
        raise ValueError(
            f"{name} must be (B, C, H, W); got shape {tuple(x.shape)}; one map without a batch is {name}[None]"
        )
    if not x.is_floating_point():
        raise ValueError(f"{name} must be of a floating dtype; got {x.dtype}; convert it with {name}.float()")
