"""One network out of several: the mean of their weights.

Networks that were fine-tuned from common weights often lie in one basin of the loss, and their mean then does better
than each of them: Wortsman et al., "Model soups", ICML 2022. Networks trained from different random weights do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from serank.network import SeRankDet

__all__ = ["average"]

FREE = ("mean", "std", "working_size", "scale_range", "tile", "overlap", "threshold")
"""Arguments in which the networks may differ: they prepare frames, and the first network's are taken."""


def average(models: Sequence[SeRankDet]) -> SeRankDet:
    """The network whose weights, and statistics of batch norm, are the mean of those given.

    Args:
        models: at least one, all of one graph; they are left as they are.

    Returns:
        A network in eval mode, on the first one's device, that prepares frames as the first one does.

    Raises:
        ValueError: no network, or two of different graphs; names what differs.
    """
    if not models:
        raise ValueError("models must hold at least one network")
    first = models[0]
    for number, other in enumerate(models[1:], start=2):
        differing = [k for k, v in first.config.items() if k not in FREE and other.config[k] != v]
        if differing:
            raise ValueError(f"models must be of one graph; network {number} differs from the first in {differing}")
    result = first.reconfigured().eval()
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for name, value in result.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.stack([s[name].to(value.device, torch.float64) for s in states]).mean(0))
    return result
