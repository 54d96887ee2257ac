"""A network's answers to a batch in two orientations, which should be one."""

from __future__ import annotations

from torch import Tensor

from serank.inference.tta import ORIENTATIONS, Orientation
from serank.utils.dtypes import at_least_float32

TURNS = ORIENTATIONS[8][1:]
"""Rotations and flips of a square besides leaving it as it is."""


def turn(x: Tensor, orientation: Orientation) -> Tensor:
    """Square maps `(..., S, S)` in an orientation, as `Orientation.apply` gives an array."""
    turned = x.transpose(-1, -2) if orientation.transpose else x
    axes = _axes(orientation)
    return turned.flip(axes) if axes else turned


def turn_back(x: Tensor, orientation: Orientation) -> Tensor:
    """What `turn` turned, turned back."""
    axes = _axes(orientation)
    back = x.flip(axes) if axes else x
    return back.transpose(-1, -2) if orientation.transpose else back


def _axes(orientation: Orientation) -> list[int]:
    return [axis for axis, reverse in ((-2, orientation.rows), (-1, orientation.columns)) if reverse]


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
    return (at_least_float32(logits).sigmoid() - at_least_float32(other).sigmoid()).square().mean()
