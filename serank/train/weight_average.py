"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Moves the weights of `average` towards those of `network`; both must keep their tensors, which are listed once.

    Args:
        average: of the same entries as `network`.
        network: what is trained.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        new = network.state_dict()
        pairs = [(old, new[name]) for name, old in average.state_dict().items()]
        self._floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averages = [old for old, _ in self._floating]
        self._weights = [value for _, value in self._floating]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """`average = decay * average + (1 - decay) * weight` for all floating entries, together."""
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        move(self._averages, self._weights, None)

    @torch.no_grad()
    def copy_counts(self) -> None:
        """Copies the integers, batch norm's counts, which nothing but a saved state reads."""
        for old, new in self._counts:
            old.copy_(new)
