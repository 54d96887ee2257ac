"""A network's answers to a batch in two orientations, which should be one."""

from __future__ import annotations

import torch
from torch import Tensor

TURNS = 7
"""Rotations and flips of a square besides leaving it as it is, numbered from 0."""


def turn(x: Tensor, number: int) -> Tensor:
    """Maps `(..., S, S)` in one of the seven orientations.

    Args:
        x: square maps.
        number: 0 to 6.
    """
    code = number + 1
    turned = x.transpose(-1, -2) if code & 4 else x
    axes = _axes(code)
    return turned.flip(axes) if axes else turned


def turn_back(x: Tensor, number: int) -> Tensor:
    """What `turn` turned, turned back."""
    code = number + 1
    axes = _axes(code)
    back = x.flip(axes) if axes else x
    return back.transpose(-1, -2) if code & 4 else back


def _axes(code: int) -> list[int]:
    return [axis for axis, bit in ((-2, 2), (-1, 1)) if code & bit]


def consistency_loss(logits: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of the probabilities of two logit maps, which both learn from.

    Args:
        logits: `(B, 1, H, W)`, any floating dtype; computed in float32 or better.
        other: the same of the turned batch, turned back.

    Returns:
        Scalar in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape != other.shape:
        raise ValueError(f"logits and other must have one shape; got {tuple(logits.shape)}, {tuple(other.shape)}")
    wide = torch.promote_types(logits.dtype, torch.float32)
    return (logits.to(wide).sigmoid() - other.to(wide).sigmoid()).square().mean()
