"""First and second derivatives of every layer against finite differences, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from serank.layers import DDC, LSFF, SeRankAttention
from serank.layers.ddc import BRANCHES


def check(layer: nn.Module, *maps: Tensor) -> None:
    """Derivatives by the maps and by all parameters."""
    names = [name for name, _ in layer.named_parameters()]
    buffers = {name: value.clone() for name, value in layer.named_buffers()}

    def run(*inputs: Tensor) -> Tensor:
        parameters = dict(zip(names, inputs[len(maps) :], strict=True))
        state = parameters | {name: value.clone() for name, value in buffers.items()}
        output: Tensor = functional_call(layer, state, inputs[: len(maps)])
        return output

    inputs = [value.detach().clone().requires_grad_() for value in (*maps, *layer.parameters())]
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


def maps(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Values that all differ by more than a finite difference, so that no maximum and no rank changes."""
    generator = torch.Generator().manual_seed(0)
    count = sum(torch.Size(shape).numel() for shape in shapes)
    values = iter(torch.linspace(-1, 1, count, dtype=torch.float64)[torch.randperm(count, generator=generator)])
    return [torch.stack([next(values) for _ in range(torch.Size(s).numel())]).view(s) for s in shapes]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("branches", [*((name,) for name in BRANCHES), BRANCHES], ids="+".join)
def test_ddc(branches: tuple[str, ...], training: bool) -> None:
    torch.manual_seed(0)
    layer = DDC(1, 2, branches=branches).double().train(training)
    for norm in layer.modules():
        if isinstance(norm, nn.BatchNorm2d):  # zeros before a ReLU, where it has no derivative, are moved away
            nn.init.uniform_(norm.bias, 0.1, 0.5)
    check(layer, *maps((2, 1, 3, 3)))


@pytest.mark.parametrize(
    "options", [{}, {"positional_encoding": False}, {"table_width": 8}, {"select": "after"}], ids=str
)
def test_attention(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check(SeRankAttention(2, **options).double(), *maps((2, 3, 2, 3)))


@pytest.mark.parametrize(("mode", "gates"), [("select", 1), ("select", 2), ("gated", 1), ("concat", 1)])
def test_lsff(mode: str, gates: int) -> None:
    torch.manual_seed(0)
    layer = LSFF(2, mode=mode, maps=gates).double()
    if mode == "gated":
        nn.init.constant_(layer.gamma, 0.8)
    check(layer, *maps((1, 2, 3, 2), (1, 2, 3, 2)))
