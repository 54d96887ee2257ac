"""Knowledge distillation: the probabilities of a trained network as a second target."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from serank.losses import deep_supervision_loss
from serank.serankdet import SeRankDet
from serank.utils.digest import content_digest


class Teacher:
    """A copy of a network in eval mode, without gradients.

    Args:
        model: of any width; it isn't changed.
        device: of the copy.

    Attributes:
        digest: SHA-256 of configuration and weights, 16 hexadecimal digits.
    """

    def __init__(self, model: SeRankDet, device: torch.device) -> None:
        self.digest = content_digest({"config": model.config, "weights": model.state_dict()})[:16]
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Probabilities, `(B, 1, H, W)`, float32, for frames `(B, 1, H, W)` in [0, 1] on the same device."""
        frames = frames.to(self.model.head.weight.dtype)
        x = self.model.frame_spec.normalise(frames, self.model.in_channels).to(memory_format=torch.channels_last)
        logits: Tensor = self.model(x)
        return logits.float().sigmoid()


def distillation_loss(outputs: Sequence[Tensor], probabilities: Tensor) -> Tensor:
    """Cross-entropy between a teacher's probabilities and each logit map, mean over pixels, summed over the maps.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, equation 2 at temperature 1.

    Args:
        outputs: logit maps, each `(B, 1, H, W)`, any floating dtype; computed in float32 or better.
        probabilities: the teacher's, of the same shape, in [0, 1].

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: no map, or shapes that differ.
    """
    return deep_supervision_loss(outputs, probabilities, loss="bce")
