"""Distillation: a trained network whose probabilities a training takes beside the masks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from serank.gaps import gaps
from serank.losses import bce_loss
from serank.serankdet import SeRankDet

__all__ = ["Teacher", "distillation_loss"]


class Teacher:
    """A copy of a network, in eval mode and without gradients.

    Args:
        model: of any width; left as it is.
        device: where its copy runs.

    Attributes:
        digest: of its configuration and weights, which tells two teachers apart.
    """

    def __init__(self, model: SeRankDet, device: torch.device) -> None:
        self.digest = _digest(model)
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Probabilities, `(B, 1, H, W)`, float32, for frames `(B, 1, H, W)` in [0, 1] on the same device."""
        frames = frames.to(self.model.head.weight.dtype)
        x = self.model.frame_spec.normalise(frames, self.model.in_channels).to(memory_format=torch.channels_last)
        logits: Tensor = self.model(x)
        return logits.float().sigmoid()


def distillation_loss(outputs: Sequence[Tensor], probabilities: Tensor, target: Tensor | None = None) -> Tensor:
    """Cross-entropy between a teacher's probabilities and each logit map, mean over pixels, summed over the maps.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, equation 2 at temperature 1.

    Args:
        outputs: logit maps, each `(B, 1, H, W)`, any floating dtype; computed in float32 or better.
        probabilities: the teacher's, of the same shape, in [0, 1].
        target: `(B, 1, H, W)`; where given, the gaps between its targets (`serank.gaps.gaps`) are left out, so that a
            teacher that takes neighbours for one does not teach that too. The divisor stays the number of pixels.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: no map, or shapes that differ.
    """
    if not outputs:
        raise ValueError("outputs must hold at least one logit map")
    weight = None if target is None else 1 - gaps(target)
    return torch.stack([bce_loss(o, probabilities, weight=weight) for o in outputs]).sum()


def _digest(model: SeRankDet) -> str:
    digest = hashlib.sha256(repr(sorted(model.config.items())).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # bfloat16 too
    return digest.hexdigest()[:16]
