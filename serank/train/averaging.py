"""One network out of several: the mean of their weights, or parts of one in another.

Networks that were fine-tuned from common weights often lie in one basin of the loss, and their mean then does better
than each of them: Wortsman et al., "Model soups", ICML 2022. Networks trained from different random weights do not.
So, too, for parts: what fine-tuning taught the fine levels can be had without what it did to the coarse ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from serank.serankdet import SeRankDet

__all__ = ["average", "graft"]

FREE = ("working_size", "scale_range", "tile", "overlap", "threshold")
"""Arguments in which the networks may differ: they size frames and cut the output; the first network's are taken."""


def average(models: Sequence[SeRankDet]) -> SeRankDet:
    """The network whose weights, and statistics of batch norm, are the mean of those given.

    Args:
        models: at least one, all of one graph; they are left as they are.

    Returns:
        A network in eval mode, on the first one's device, that prepares frames as the first one does.

    Raises:
        ValueError: no network, or two of different graphs, `mean` or `std`; names what differs.
    """
    if not models:
        raise ValueError("models must hold at least one network")
    _check_graphs(models)
    result = models[0].reconfigured().eval()
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for name, value in result.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.stack([s[name].to(value.device, torch.float64) for s in states]).mean(0))
    return result


def graft(model: SeRankDet, donor: SeRankDet, parts: Sequence[str]) -> SeRankDet:
    """The network `model` with some of its modules, and their statistics of batch norm, from `donor`.

    Args:
        model: the one whose other weights stay; it is left as it is.
        donor: of the same graph, usually fine-tuned from `model` or from a common network.
        parts: names of modules, as in `model.named_modules()`, such as `"encoder.0"` or `"head"`.

    Returns:
        A network in eval mode, on the device of `model`, that prepares frames as `model` does.

    Raises:
        ValueError: no part, one that is no module, or networks of different graphs, `mean` or `std`.
    """
    _check_graphs((model, donor))
    known = {name for name, _ in model.named_modules() if name}
    if not parts or (unknown := sorted(set(parts) - known)):
        top = ", ".join(name for name, _ in model.named_children())
        wrong = f"unknown are {', '.join(unknown)}" if parts else "none is given"
        raise ValueError(f"parts must name modules, such as {top} or encoder.0; {wrong}")
    result = model.reconfigured().eval()
    given = donor.state_dict()
    with torch.no_grad():
        for name, value in result.state_dict().items():
            if name.startswith(tuple(f"{part}." for part in parts)):
                value.copy_(given[name])
    return result


def _check_graphs(models: Sequence[SeRankDet]) -> None:
    for number, other in enumerate(models[1:], start=2):
        differing = [k for k, v in models[0].config.items() if k not in FREE and other.config[k] != v]
        if differing:
            raise ValueError(f"models must be of one graph; network {number} differs from the first in {differing}")
