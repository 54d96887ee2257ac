"""The loss of a micro-batch: masks, and what a recipe adds of a teacher, soft targets and consistency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from serank.losses import deep_supervision_loss
from serank.serankdet import SeRankDet
from serank.train.consistency import TURNS, consistency_loss, turn, turn_back
from serank.train.distillation import Teacher, distillation_loss
from serank.train.recipe import Recipe


class TrainedOutputs(nn.Module):
    """The network whose `forward` gives the logit maps of the loss, for DistributedDataParallel and `torch.compile`."""

    def __init__(self, model: SeRankDet, deep: bool) -> None:
        super().__init__()
        self.model = model
        self.deep = deep

    def forward(self, x: Tensor) -> list[Tensor]:
        """Of normalised frames `(B, C, H, W)`: the six maps of `forward_deep`, or the final one alone."""
        return self.model.forward_deep(x) if self.deep else [self.model(x)]


class TrainingLoss:
    """The loss of a micro-batch.

    Args:
        model: the network in training, on its device.
        outputs: `TrainedOutputs` of it, as it is run.
        recipe: see `Recipe`.
        device: of the network.
        teacher: on the same device.
    """

    def __init__(
        self,
        model: SeRankDet,
        outputs: Callable[[Tensor], Sequence[Tensor]],
        recipe: Recipe,
        device: torch.device,
        teacher: Teacher | None,
    ) -> None:
        self.model = model
        self.outputs = outputs
        self.recipe = recipe
        self.device = device
        self.teacher = teacher
        # sent to the device once
        self._statistics = model.frame_spec.statistics(model.head.weight, model.in_channels)

    def __call__(self, frames: Tensor, targets: Tensor, *, number: int) -> Tensor:
        """A scalar, with gradients.

        Args:
            frames: `(B, 1, H, W)`, scaled as the network's `frame_spec` says.
            targets: masks of the same shape, 0 or 1, or `(B, 2, H, W)`, masks and soft targets.
            number: of the micro-batch, from the start of the training, by which its other orientation is chosen.
        """
        frames = frames.to(self.device, self.model.head.weight.dtype, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        masks = targets[:, :1]
        x = self.model.frame_spec.normalise(frames, self.model.in_channels, self._statistics)
        x = x.to(memory_format=torch.channels_last)
        orientation = TURNS[number % len(TURNS)]
        kind = torch.float16 if self.recipe.precision == "float16" else torch.bfloat16
        mixed = self.recipe.precision != "float32"
        # each weight is cast once a step anyway, and a graph can't hold casts from before it
        with torch.autocast(self.device.type, kind, enabled=mixed, cache_enabled=self.device.type != "cuda"):
            outputs = self.outputs(x)
            soft_targets = None if self.teacher is None else self.teacher(frames)
            turned = self.outputs(turn(x, orientation))[-1] if self.recipe.consistency_weight else None
        loss = deep_supervision_loss(outputs, masks, loss=self.recipe.loss, pixel_weight=self.recipe.pixel_weight)
        if soft_targets is not None:
            loss = loss + self.recipe.distil_weight * distillation_loss(outputs, soft_targets)
        if self.recipe.soft_weight:
            loss = loss + self.recipe.soft_weight * distillation_loss(outputs, targets[:, 1:])
        if turned is not None:
            both = consistency_loss(outputs[-1], turn_back(turned, orientation))
            loss = loss + self.recipe.consistency_weight * both
        return loss
