"""Batch norm against PyTorch's own: values, gradients, running statistics, formats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from serank.layers import norm
from serank.layers.norm import BatchNorm2d

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def _every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps take the way of large ones too."""
    monkeypatch.setattr(norm, "LARGE", 1)


def pair(channels: int, dtype: torch.dtype) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    ours, torchs = BatchNorm2d(channels), nn.BatchNorm2d(channels)
    for layer in (ours, torchs):
        nn.init.uniform_(layer.weight, 0.5, 2.0, torch.Generator().manual_seed(1))
        nn.init.uniform_(layer.bias, -1.0, 2.0, torch.Generator().manual_seed(2))
        if dtype == torch.float64:
            layer.double()
    return ours, torchs


def close(found: Tensor | None, expected: Tensor | None, dtype: torch.dtype) -> None:
    assert found is not None
    assert expected is not None
    assert found.stride() == expected.stride()
    scale = float(expected.abs().max()) + 1
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype] * scale, rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("shape", [(4, 8, 24, 20), (3, 6, 7, 5), (2, 1, 8, 8), (2, 3, 1, 1), (1, 15, 16, 64)])
def test_equals_torch(dtype: torch.dtype, last: bool, shape: tuple[int, int, int, int]) -> None:
    ours, torchs = pair(shape[1], dtype)
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 5).to(dtype)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if last:
        x = x.to(memory_format=torch.channels_last)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    for _ in range(2):  # running statistics move twice
        found, expected = ours(mine), torchs(theirs)
    close(found.detach(), expected.detach(), dtype)
    found.relu_().backward(weights)  # in place, as after every convolution here
    expected.relu_().backward(weights)
    close(mine.grad, theirs.grad, dtype)
    close(ours.weight.grad, torchs.weight.grad, dtype)
    close(ours.bias.grad, torchs.bias.grad, dtype)
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-5, rtol=1e-5)
    for layer in (ours, torchs):
        layer.eval()
    torch.testing.assert_close(ours(x), torchs(x), atol=10 * TOLERANCE[dtype], rtol=0)


def test_gradient_keeps_its_precision_where_the_mean_is_large() -> None:
    """In bfloat16, with a gradient that goes along with the input."""
    x = (torch.randn(4, 8, 24, 20, generator=torch.Generator().manual_seed(0)) + 10).bfloat16()
    gradient = (x.float() - 10 + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).bfloat16()
    errors = []
    exact = x.double().requires_grad_()
    pair(8, torch.float64)[1](exact).backward(gradient.double())
    assert exact.grad is not None
    for layer in pair(8, torch.bfloat16):
        mine = x.to(memory_format=torch.channels_last).clone().requires_grad_()
        layer(mine).backward(gradient)
        assert mine.grad is not None
        errors.append(float((mine.grad.double() - exact.grad).abs().max()))
    assert errors[0] < 2 * errors[1]


def test_the_fast_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(nn.BatchNorm2d, "forward", refuse)
    x = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)
    assert BatchNorm2d(8)(x).shape == x.shape
    with pytest.raises(AssertionError):
        BatchNorm2d(8)(x.contiguous())


def test_second_derivatives_are_refused() -> None:
    x = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(BatchNorm2d(8)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


def test_one_value_a_channel_is_refused_in_training() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(3)(torch.randn(1, 3, 1, 1))
