"""Losses: the paper's soft IoU under deep supervision, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from serank.utils.checks import values_at_hand
from serank.utils.dtypes import at_least_float32

__all__ = [
    "LOSSES",
    "Loss",
    "area_soft_iou_loss",
    "bce_loss",
    "deep_supervision_loss",
    "dice_loss",
    "focal_loss",
    "soft_iou_loss",
]


ROUNDING = 1e-3
"""By how much targets may leave [0, 1], as resized ones in half precision do."""


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
        ValueError: the shapes differ, are those of an empty batch, or the tensors are sparse.
    """
    loss, _ = _soft_iou(logits, target, smooth)
    return loss.mean()


def area_soft_iou_loss(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft IoU loss of each image times `sqrt((sum(t) + 100) / 200)`, its mean over the batch.

    IoU is counted over all pixels of a set, where a few large targets weigh most, while `soft_iou_loss` gives a frame
    with one of them no more than any other. The weight lies between; it is ours, not the paper's.

    Arguments and errors as for `soft_iou_loss`; a scalar >= 0.
    """
    loss, area = _soft_iou(logits, target, smooth)
    return (((area + 100) / 200).sqrt() * loss).mean()


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss, `1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)` for each image, its mean over the batch.

    Milletari et al., "V-Net", 3DV 2016, with plain sums in the denominator.
    Arguments, result and errors as for `soft_iou_loss`.
    """
    both, predicted, wanted = _sums(logits, target)
    return (1 - (2 * both + smooth) / (predicted + wanted + smooth)).mean()


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over pixels; arguments and errors as for `soft_iou_loss`."""
    _check(logits, target)
    x = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(x, target.to(x.dtype))


def focal_loss(logits: Tensor, target: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss, the sum over an image's pixels by its target pixels (1 at least), its mean over the batch.

    `-alpha_t (1 - p_t)^gamma log(p_t)`: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.

    Other arguments and errors as for `soft_iou_loss`.

    Args:
        logits: `(B, 1, H, W)`.
        target: `(B, 1, H, W)`, 0 or 1.
        alpha: weight of target pixels, in [0, 1]; background has the rest.
        gamma: how much sure pixels are left out; 0 is a weighted cross-entropy.
    """
    _check(logits, target)
    x = at_least_float32(logits)
    t = target.to(x.dtype)
    entropy = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    # above 0, where a power below 1 has no derivative
    wrong = (1 - torch.exp(-entropy)).clamp(min=torch.finfo(x.dtype).tiny)
    weight = (alpha * t + (1 - alpha) * (1 - t)) * wrong**gamma
    return ((weight * entropy).flatten(1).sum(1) / t.flatten(1).sum(1).clamp(min=1)).mean()


Loss = Callable[[Tensor, Tensor], Tensor]
"""Of one logit map and its target, both `(B, 1, H, W)`: a scalar."""

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "soft_iou": soft_iou_loss,
        "soft_iou_area": area_soft_iou_loss,
        "dice": dice_loss,
        "bce": bce_loss,
        "focal": focal_loss,
    }
)
"""Losses of one logit map by name; `"soft_iou"` is the paper's. Each is a mean over images, so that parts of a batch
average to the whole."""


def deep_supervision_loss(
    outputs: Sequence[Tensor], target: Tensor, *, loss: str | Loss = "soft_iou", pixel_weight: float = 0.0
) -> Tensor:
    """A loss summed over the maps of `SeRankDet.forward_deep`, all with weight 1 as in the paper.

    Args:
        outputs: logit maps, each `(B, 1, H, W)`.
        target: `(B, 1, H, W)` in [0, 1].
        loss: one of `LOSSES`, or a function like theirs, which gets each map and the target in float32 or better.
        pixel_weight: weight of an auxiliary `bce_loss`, whose gradient does not vanish where the network is sure and
            wrong; 0, the paper, leaves it out.

    Raises:
        TypeError: a tensor instead of a sequence of them, or a loss that gives no tensor.
        ValueError: no map, an unknown loss, one whose result is no scalar or has no gradient, or maps that
            `soft_iou_loss` doesn't take.
    """
    if isinstance(outputs, Tensor):
        raise TypeError("outputs must be a sequence of logit maps; got one tensor; pass [logits]")
    if not outputs:
        raise ValueError("outputs must hold at least one logit map")
    check_loss(loss)
    function = LOSSES[loss] if isinstance(loss, str) else partial(_own, loss)
    total = torch.stack([function(o, target) for o in outputs]).sum()
    if pixel_weight:
        total = total + pixel_weight * torch.stack([bce_loss(o, target) for o in outputs]).sum()
    return total


def check_loss(loss: object) -> None:
    """Raises ValueError unless `loss` is one of `LOSSES` or a function."""
    if isinstance(loss, type):
        raise ValueError(
            f"loss must be a function or an object to call; got the class {loss.__name__}; pass {loss.__name__}()"
        )
    if not callable(loss) and (not isinstance(loss, str) or loss not in LOSSES):
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}; give one of your own as a function")


def loss_name(loss: str | Loss) -> str:
    """A name by which to tell losses apart: one of `LOSSES`, or module and name of a function or its class."""
    if isinstance(loss, str):
        return loss
    if isinstance(loss, partial):
        given = [*map(_shown, loss.args), *(f"{key}={_shown(value)}" for key, value in sorted(loss.keywords.items()))]
        return f"{loss_name(loss.func)}({', '.join(given)})"
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{named.__module__}.{named.__qualname__}"


def _shown(value: object) -> str:
    return loss_name(value) if callable(value) else repr(value)  # without an address in memory


def _own(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """A loss that isn't ours, with the checks of ours."""
    _check(logits, target)
    x = at_least_float32(logits)
    result: object = loss(x, target.to(x.dtype, copy=True))  # which it may write to
    if not isinstance(result, Tensor):
        raise TypeError(f"loss {loss_name(loss)} must give a tensor; got {result!r:.80} ({type(result).__name__})")
    if result.shape != ():
        raise ValueError(f"loss {loss_name(loss)} must give a scalar; got shape {tuple(result.shape)}; take its mean")
    if x.requires_grad and not result.requires_grad:
        raise ValueError(
            f"loss {loss_name(loss)} gives no gradient; compute it from the logits by PyTorch's operations alone"
        )
    return result


def _soft_iou(logits: Tensor, target: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
    """Of each image, `(B,)`: its loss and its target's sum."""
    both, predicted, wanted = _sums(logits, target)
    return 1 - (both + smooth) / (predicted + wanted - both + smooth), wanted


def _sums(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image, `(B,)`: the sums of `p t`, p and t."""
    _check(logits, target)
    p = at_least_float32(logits).sigmoid()
    t = target.to(p.dtype)
    return (p * t).flatten(1).sum(1), p.flatten(1).sum(1), t.flatten(1).sum(1)


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.layout != torch.strided or target.layout != torch.strided:
        raise ValueError("logits and target must be dense tensors; convert them with .to_dense()")
    if logits.shape != target.shape:
        raise ValueError(f"logits and target must have one shape; got {tuple(logits.shape)}, {tuple(target.shape)}")
    if logits.numel() == 0:  # whose mean would be NaN
        raise ValueError(f"logits and target hold no pixel; got shape {tuple(logits.shape)}. Leave empty batches out")
    if target.dtype != torch.bool and values_at_hand(target):
        try:
            low, high = (float(end) for end in target.detach().aminmax())
        except RuntimeError:  # within vmap, or without values
            return
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise ValueError(
                f"target must lie in [0, 1]; got values from {low:g} to {high:g}; divide a mask of 0 and 255"
            )
