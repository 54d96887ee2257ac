"""Losses of the paper: soft IoU under deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["deep_supervision_loss", "soft_iou_loss"]


def soft_iou_loss(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft IoU loss (paper, section III): `1 - (sum(p t) + 1) / (sum(p) + sum(t) - sum(p t) + 1)`.

    The sums run over each image and the loss is their mean over the batch, so that a frame counts the same whatever
    the size of its targets and whatever it is batched with. For an image without target the loss falls with the sum
    of p.

    Args:
        logits: `(B, 1, H, W)`, any floating dtype; computed in float32 or better.
        target: `(B, 1, H, W)` in [0, 1].
        smooth: the 1 in both terms.

    Returns:
        Scalar in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    _check(logits, target)
    p = logits.float().sigmoid() if logits.dtype in (torch.float16, torch.bfloat16) else logits.sigmoid()
    t = target.to(p.dtype)
    both = (p * t).flatten(1).sum(1)
    union = p.flatten(1).sum(1) + t.flatten(1).sum(1) - both
    return (1 - (both + smooth) / (union + smooth)).mean()


def deep_supervision_loss(outputs: Sequence[Tensor], target: Tensor, *, pixel_weight: float = 0.0) -> Tensor:
    """Soft IoU summed over the maps of `SeRankDet.forward_deep`, all with weight 1 as in the paper.

    Args:
        outputs: logit maps, each `(B, 1, H, W)`.
        target: `(B, 1, H, W)` in [0, 1].
        pixel_weight: weight of an auxiliary binary cross-entropy over pixels, whose gradient does not vanish where
            the network is sure and wrong; 0, the paper, leaves it out.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: no map, or shapes that differ.
    """
    if not outputs:
        raise ValueError("outputs must hold at least one logit map")
    total = torch.stack([soft_iou_loss(o, target) for o in outputs]).sum()
    if pixel_weight:
        target = target.float()
        pixel = [F.binary_cross_entropy_with_logits(o.float(), target) for o in outputs]
        total = total + pixel_weight * torch.stack(pixel).sum()
    return total


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.shape != target.shape:
        raise ValueError(f"logits and target must have one shape; got {tuple(logits.shape)}, {tuple(target.shape)}")
