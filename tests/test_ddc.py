"""DDC and its difference convolution against the equations, and as a block in someone's network."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import conv2d, ddc, difference_conv2d, weights_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from serank.layers.ddc import BRANCHES, DDC, DifferenceConv2d

# (B, C, H, W), with odd sides, one channel, one row and 1x1 maps
SHAPES = [(2, 3, 5, 7), (1, 2, 6, 4), (2, 1, 4, 3), (3, 2, 1, 1), (1, 4, 1, 5)]
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(BRANCHES, size)]


def randomise(module: nn.Module) -> None:
    """Random batch norm weights and running statistics, which are all 0 or 1 in a new module."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, 0.0, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.2, 0.5)


def random_ddc(*args: Any, **options: Any) -> DDC:
    layer = DDC(*args, **options)
    randomise(layer)
    return layer.eval()


def check_values(layer: DDC, x: Tensor, branches: tuple[str, ...] = BRANCHES, theta: float = 0.7) -> None:
    expected = ddc(x.numpy(), weights_of(layer), branches=branches, theta=theta, training=layer.training)
    assert np.any(expected > 0), "every output is cut off by ReLU, so that nothing is compared"
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_follow_the_equations(shape: tuple[int, ...], training: bool) -> None:
    layer = random_ddc(shape[1], 4).double().train(training)
    check_values(layer, torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("branches", SUBSETS, ids="+".join)
def test_values_of_branch_subsets(branches: tuple[str, ...]) -> None:
    layer = random_ddc(2, 3, branches=branches).double()
    assert tuple(layer.branches) == branches
    check_values(layer, torch.randn(2, 2, 5, 6, dtype=torch.float64), branches)


@pytest.mark.parametrize(
    "options",
    [{"hidden_channels": 5}, {"merge_kernel": 3}, {"bias": True}, {"merge_kernel": 3, "bias": True}],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_values_with_options(options: dict[str, Any], training: bool) -> None:
    layer = random_ddc(2, 3, **options).double().train(training)
    check_values(layer, torch.randn(2, 2, 5, 4, dtype=torch.float64))


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.0])
def test_values_with_another_theta(theta: float) -> None:
    layer = random_ddc(2, 3, theta=theta).double()
    check_values(layer, torch.randn(1, 2, 4, 5, dtype=torch.float64), theta=theta)


def test_branches_are_concatenated_in_one_order() -> None:
    layer = random_ddc(2, 3, branches=("dilated", "vanilla")).double()
    check_values(layer, torch.randn(1, 2, 4, 5, dtype=torch.float64), ("vanilla", "dilated"))


def test_hidden_channels_are_the_input_channels_by_default() -> None:
    for hidden, expected in ((None, 2), (7, 7)):
        weights = weights_of(DDC(2, 5, hidden_channels=hidden))
        for branch in ("vanilla", "dilated"):
            shapes = [weights[f"branches.{branch}.{i}.0.weight"].shape[:2] for i in range(3)]
            assert shapes == [(expected, 2), (5, expected), (5, 5)]


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_every_convolution_has_a_bias_or_none_has(bias: bool) -> None:
    convolutions = [m for m in DDC(2, 3, bias=bias).modules() if isinstance(m, nn.Conv2d)]
    assert [m.bias is not None for m in convolutions] == [bias] * 8


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("theta", [0.0, 0.3, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_difference_conv_equals_its_two_convolutions(shape: tuple[int, ...], theta: float, bias: bool) -> None:
    layer = DifferenceConv2d(shape[1], 3, theta, bias).double()
    x = torch.randn(shape, dtype=torch.float64)
    weights = weights_of(layer)
    expected = difference_conv2d(x.numpy(), weights["weight"], weights.get("bias"), theta)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_difference_conv_without_theta_is_a_plain_one() -> None:
    layer = DifferenceConv2d(2, 3, theta=0.0, bias=True).double()
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    weights = weights_of(layer)
    expected = conv2d(x.numpy(), weights["weight"], weights["bias"])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_difference_conv_of_full_theta_ignores_a_constant() -> None:
    layer = DifferenceConv2d(2, 3, theta=1.0).double()
    inner = layer(torch.full((1, 2, 5, 6), 7.0, dtype=torch.float64))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-12)


def test_difference_conv_costs_one_convolution() -> None:
    x = torch.randn(1, 4, 8, 8)
    flops = []
    for layer in (DifferenceConv2d(4, 6), nn.Conv2d(4, 6, 3, padding=1)):
        with FlopCounterMode(display=False) as counter:
            layer(x)
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0


def test_difference_conv_gradcheck() -> None:
    layer = DifferenceConv2d(2, 3, bias=True).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_()
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = functional_call(layer, {"weight": weight, "bias": bias}, (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"merge_kernel": 3, "hidden_channels": 6}], ids=str)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_every_parameter_gets_a_gradient(options: dict[str, Any], training: bool) -> None:
    layer = random_ddc(3, 4, **options).train(training)
    x = torch.randn(2, 3, 9, 7, requires_grad=True)
    layer(x).square().sum().backward()
    for name, parameter in [("x", x), *layer.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_frame_does_not_depend_on_its_batch() -> None:
    layer = random_ddc(3, 8)
    x = torch.randn(8, 3, 17, 13)
    order = torch.randperm(8)
    with torch.no_grad():
        batch, shuffled = layer(x), layer(x[order])
        alone = torch.cat([layer(frame[None]) for frame in x])
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-5)
    torch.testing.assert_close(shuffled, batch[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("branches", SUBSETS, ids="+".join)
def test_memory_format_is_kept(branches: tuple[str, ...]) -> None:
    layer = random_ddc(3, 4, branches=branches)
    x = torch.randn(2, 3, 8, 7)
    plain, last = layer(x), layer(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", [DDC, DifferenceConv2d])
def test_weights_set_the_memory_format_of_one_channel(block: type[nn.Module]) -> None:
    """A map of one channel has both formats at once, so that the weights' format decides."""
    layer = block(1, 4).eval()
    x = torch.randn(2, 1, 8, 7)
    plain = layer(x)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_runs_in_any_floating_dtype(dtype: torch.dtype) -> None:
    result = DDC(3, 4).to(dtype)(torch.randn(2, 3, 6, 5, dtype=dtype))
    assert result.dtype == dtype
    assert result.isfinite().all()


def test_bfloat16_autocast_stays_close_to_float32() -> None:
    layer = random_ddc(4, 8)
    x = torch.randn(2, 4, 16, 15)
    with torch.no_grad():
        full = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    # bfloat16 rounds by up to 2^-8. The longest path is four convolutions with a batch norm each. Inputs,
    # weights and both results are rounded, 16 times in all; independent errors add up as the root of that.
    assert (half.float() - full).abs().max() < 4 * 2**-8 * full.abs().max()


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    out_channels=st.integers(1, 5),
    hidden_channels=st.none() | st.integers(1, 4),
    branches=st.sampled_from(SUBSETS),
    merge_kernel=st.sampled_from([1, 3]),
)
def test_any_size_and_channels(
    shape: tuple[int, int, int, int],
    out_channels: int,
    hidden_channels: int | None,
    branches: tuple[str, ...],
    merge_kernel: int,
) -> None:
    layer = DDC(
        shape[1],
        out_channels,
        hidden_channels=hidden_channels,
        branches=branches,
        merge_kernel=merge_kernel,
    ).eval()
    result = layer(torch.randn(shape))
    assert result.shape == (shape[0], out_channels, *shape[2:])
    assert result.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("branches", ()),
        ("branches", ("vanilla", "vanilla")),
        ("branches", ("vanilla", "deformable")),
        ("branches", "vanilla"),
        ("merge_kernel", 0),
        ("merge_kernel", 2),  # an even side would change H and W
    ],
)
def test_wrong_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        DDC(2, 3, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "hidden_channels", "merge_kernel"])
@pytest.mark.parametrize("value", [0, -1, 3.0, True])
def test_counts_are_whole_numbers(name: str, value: object) -> None:
    arguments: dict[str, Any] = {"in_channels": 2, "out_channels": 3} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        DDC(**arguments)


def test_a_single_name_is_no_sequence_of_branches() -> None:
    with pytest.raises(ValueError, match=r"branches must be a sequence of names; .*pass \['vanilla'\]"):
        DDC(2, 3, branches="vanilla")
