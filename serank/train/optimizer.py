"""AdamW as each device runs it best, and its state in one form for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serank.train.recipe import Recipe


def make_optimizer(
    parameters: Sequence[nn.Parameter], recipe: Recipe, device: torch.device, *, recordable: bool
) -> torch.optim.AdamW:
    """Recordable: fused, and its learning rate a tensor on the device, so that a graph can hold the step."""
    if not recordable:
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    lr = torch.tensor(recipe.lr, dtype=torch.float32, device=device)  # what the fused kernel reads
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=recipe.weight_decay, fused=True, capturable=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate, on the device where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state, its learning rate a number on every device."""
    state = optimizer.state_dict()
    groups = [group | {"lr": float(group["lr"])} for group in state["param_groups"]]
    return state | {"param_groups": groups}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes the moments; how the step runs stays as this device has it, whatever device the state is from."""
    own = [
        {name: group.get(name) for name in ("lr", "fused", "foreach", "capturable")} for group in optimizer.param_groups
    ]
    groups = [saved | mine for saved, mine in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict(state | {"param_groups": groups})
    for group, mine in zip(optimizer.param_groups, own, strict=True):
        group["lr"] = mine["lr"]


@torch.no_grad()
def allocate_moments(optimizer: torch.optim.Optimizer) -> None:
    """Makes AdamW's moments, all zero, which it would allocate in its first step; leaves a state that it has."""
    if optimizer.state:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [p.clone() for p in parameters]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.copy_(weight)
    for values in optimizer.state.values():
        for value in values.values():
            value.zero_()
    optimizer.zero_grad(set_to_none=True)
