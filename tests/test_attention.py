"""SeRankAttention and equation 2 against the equations, and as a block in someone's network."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from serank.layers import SeRankAttention, rank_size

# (B, C, H, W) and K: odd sides, K of 1, K equal to and above H * W, one channel, one row or column, 1x1 maps
CASES = [
    ((2, 4, 6, 8), 5),
    ((1, 3, 5, 7), 6),
    ((2, 3, 4, 4), 1),
    ((2, 3, 3, 5), 15),
    ((2, 5, 2, 3), 9),
    ((2, 1, 4, 5), 3),
    ((2, 4, 1, 9), 4),
    ((2, 4, 9, 1), 4),
    ((3, 4, 1, 1), 1),
    ((2, 4, 1, 1), 3),
    ((1, 1, 1, 1), 2),
]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"positional_encoding": False},
    {"table_width": 16},
    {"select": "after"},
]


def distinct(*shape: int) -> Tensor:
    """Float64 values in [-2, 2), no two of them closer than 4 / their number, in random order."""
    count = int(np.prod(shape))
    return (torch.randperm(count).double() / count * 4 - 2).reshape(shape)


def expected_values(layer: SeRankAttention, x: Tensor) -> reference.Array:
    if layer.select == "after":
        return reference.attention_after(x.numpy(), layer.k)
    weights = reference.weights_of(layer)
    return reference.serank_attention(
        x.numpy(),
        weights["query.weight"].T,  # nn.Linear keeps its matrix transposed
        weights["key.weight"].T,
        layer.k,
        positional_encoding=layer.positional_encoding,
        table_width=layer.table_width,
    )


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("shape", "k"), CASES)
def test_values_follow_the_equations(shape: tuple[int, ...], k: int, options: dict[str, Any]) -> None:
    layer = SeRankAttention(k, **options).double()
    x = torch.randn(shape, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected_values(layer, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_scores_the_first_are_kept(dtype: torch.dtype) -> None:
    """Channels that are zero everywhere, as after ReLU, have scores of 0 with all others."""
    layer = SeRankAttention(2, select="after")
    x = torch.randn(2, 6, 5, 7, dtype=dtype)
    x[:, 1:5] = 0
    kept = layer.attention(x) > 0
    assert (kept.sum(2) == 2).all()
    assert kept[:, 2, :2].all()
    np.testing.assert_allclose(layer(x).numpy(), expected_values(layer, x.double()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("table_width", [5, 9, 11, 12, 32])
def test_values_with_a_fixed_table(table_width: int) -> None:
    layer = SeRankAttention(6, table_width=table_width).double()
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected_values(layer, x), rtol=0, atol=1e-10)


def test_variants_differ() -> None:
    """Each ablation and a fixed table change the result: none of them is silently ignored."""
    x = torch.randn(1, 4, 6, 7, dtype=torch.float64)
    results = []
    for options in VARIANTS:
        torch.manual_seed(0)  # the same weights
        results.append(SeRankAttention(3, **options).double()(x))
    for i, first in enumerate(results):
        for second in results[i + 1 :]:
            assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_attention_rows_are_distributions(options: dict[str, Any]) -> None:
    attention = SeRankAttention(5, **options).attention(torch.randn(2, 4, 6, 7).bfloat16())
    assert attention.shape == (2, 4, 4)
    assert attention.dtype == torch.float32
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(2), torch.ones(2, 4))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_output_follows_a_permutation_of_channels(options: dict[str, Any]) -> None:
    layer = SeRankAttention(5, **options).double()
    x = distinct(2, 6, 5, 7)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("shape", "k"), CASES)
@pytest.mark.parametrize("constant", [None, 0.0, 0.37], ids=["random", "zeros", "constant"])
def test_gradients_are_finite(shape: tuple[int, ...], k: int, options: dict[str, Any], constant: float | None) -> None:
    layer = SeRankAttention(k, **options)
    x = (torch.randn(shape) if constant is None else torch.full(shape, constant)).requires_grad_()
    layer(x).square().sum().backward()
    for name, parameter in [("x", x), *layer.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_projections_learn() -> None:
    layer = SeRankAttention(5)
    layer(torch.randn(2, 4, 6, 7)).square().sum().backward()
    assert {name for name, parameter in layer.named_parameters() if parameter.grad is not None} == {
        "query.weight",
        "key.weight",
    }
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(), name


@pytest.mark.parametrize("options", VARIANTS, ids=str)
# the last one with so many points for each one ranked that blocks are looked at first
@pytest.mark.parametrize(("shape", "k"), [((2, 3, 3, 4), 4), ((1, 3, 2, 2), 6), ((1, 2, 4, 9), 2)])
def test_first_and_second_order_gradients(shape: tuple[int, ...], k: int, options: dict[str, Any]) -> None:
    layer = SeRankAttention(k, **options).double()
    x = distinct(*shape).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    weights = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        result: Tensor = functional_call(layer, dict(zip(names, weights, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, *weights))
    assert torch.autograd.gradgradcheck(run, (x, *weights))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("ties", [False, True], ids=["random", "ties"])
def test_a_frame_does_not_depend_on_its_batch(ties: bool, options: dict[str, Any]) -> None:
    layer = SeRankAttention(100, **options)
    x = torch.randn(8, 6, 17, 13)
    if ties:  # what a block that ends with ReLU gives: more zeros than there are points left to choose
        x = (x - 1.0).relu()
    order = torch.randperm(8)
    with torch.no_grad():
        batch, shuffled = layer(x), layer(x[order])
        alone = torch.cat([layer(frame[None]) for frame in x])
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-5)
    torch.testing.assert_close(shuffled, batch[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_memory_format_is_kept(options: dict[str, Any]) -> None:
    layer = SeRankAttention(5, **options)
    x = torch.randn(2, 4, 8, 7)
    plain, last = layer(x), layer(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_strided_input(options: dict[str, Any]) -> None:
    layer = SeRankAttention(5, **options)
    x = torch.randn(2, 4, 7, 16)[..., ::2]
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_runs_in_any_floating_dtype(dtype: torch.dtype, options: dict[str, Any]) -> None:
    result = SeRankAttention(5, **options).to(dtype)(torch.randn(2, 3, 6, 5, dtype=dtype))
    assert result.dtype == dtype
    assert result.isfinite().all()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_autocast_leaves_a_float32_map_alone(options: dict[str, Any]) -> None:
    layer = SeRankAttention(5, **options)
    x = torch.randn(2, 8, 9, 7)
    with torch.no_grad():
        full = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
    assert half.dtype == torch.float32
    assert torch.equal(half, full)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_bfloat16_autocast_stays_close_to_float32(options: dict[str, Any]) -> None:
    layer = SeRankAttention(5, **options)
    x = torch.randn(2, 8, 9, 7).bfloat16()  # as an autocast convolution gives it
    with torch.no_grad():
        full = layer(x.float())
        mix = layer.attention(x.float()) + torch.eye(8)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    # A is float32 in both, so that only 1 + A and the result are rounded, by up to 2^-8 each of what is
    # summed; 1 percent more for the higher orders and the sum itself
    bound = 1.01 * 2**-7 * torch.einsum("bij,bjhw->bihw", mix, x.float().abs())
    assert ((half.float() - full).abs() <= bound).all()


class LowRank(nn.Module):
    """An adapter as those of LoRA: a layer left as it is, and a product of two small matrices beside it."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x) + self.up(self.down(x))
        return result


@pytest.mark.parametrize("name", ["query", "key"])
def test_an_adapter_around_a_projection_takes_effect(name: str) -> None:
    layer = SeRankAttention(6)
    x = torch.randn(2, 5, 7, 9)
    before = layer(x).detach()
    merged = SeRankAttention(6)
    merged.load_state_dict(layer.state_dict())
    adapter = LowRank(getattr(layer, name))
    with torch.no_grad():
        getattr(merged, name).weight += adapter.up.weight @ adapter.down.weight
    setattr(layer, name, adapter)
    after = layer(x)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, merged(x), rtol=0, atol=1e-5)
    after.square().sum().backward()
    for parameter in (adapter.down.weight, adapter.up.weight):
        assert parameter.grad is not None
        assert parameter.grad.any()
    assert adapter.layer.weight.grad is None


@pytest.mark.parametrize("name", ["query", "key"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_hook_on_a_projection_takes_effect(dtype: torch.dtype, name: str) -> None:
    layer = SeRankAttention(6).to(dtype)
    x = torch.randn(2, 5, 7, 9).to(dtype)
    seen = []

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append((inputs[0].shape, inputs[0].dtype, output.shape))
        return torch.zeros_like(output)

    with torch.no_grad():
        handle = getattr(layer, name).register_forward_hook(hook)
        hooked = layer.attention(x)
        handle.remove()
        plain = layer.attention(x)
    assert seen == [((2, 5, 6), dtype, (2, 5, 12))]
    torch.testing.assert_close(hooked, torch.full((2, 5, 5), 0.2))  # all scores equal
    assert (plain - hooked).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_module_stays_close_to_float32(dtype: torch.dtype) -> None:
    layer = SeRankAttention(32).to(dtype)
    x = torch.randn(2, 8, 17, 13).relu().to(dtype)
    with torch.no_grad():
        half = layer.attention(x)
        full = layer.float().attention(x.float())
    assert half.dtype == torch.float32
    # rounded are tokens, queries and keys, once each; what remains differs by a few roundings of the largest score
    assert (half - full).abs().max() < 8 * torch.finfo(dtype).eps * full.max()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", [(3, 6, 7), (6, 7), (1, 2, 3, 6, 7)])
def test_other_than_four_axes_are_refused(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"x must have shape \(B, C, H, W\); got {re.escape(str(shape))}"):
        SeRankAttention(5, **options)(torch.zeros(shape))


def test_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be of a floating dtype; got torch\.int64; .* x\.float\(\)"):
        SeRankAttention(5)(torch.zeros(1, 2, 6, 7, dtype=torch.int64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", [(2, 16, 64, 48), (1, 8, 9, 7)])
def test_the_same_on_cuda(shape: tuple[int, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    layer = SeRankAttention(64, **options)
    x = (torch.randn(shape) - 1.5).relu()  # most channels have fewer than K values above zero
    with torch.no_grad():
        here = layer(x)
        there = layer.cuda()(x.cuda()).cpu()
        alone = layer(x[:1].cuda()).cpu()
    bound = 1e-4 * float(here.abs().max())
    torch.testing.assert_close(there, here, rtol=0, atol=bound)
    torch.testing.assert_close(alone, here[:1], rtol=0, atol=bound)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
    k=st.integers(1, 24),
    options=st.sampled_from(VARIANTS),
)
def test_any_size_and_channels(shape: tuple[int, int, int, int], k: int, options: dict[str, Any]) -> None:
    result = SeRankAttention(k, **options)(torch.randn(shape))
    assert result.shape == shape
    assert result.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("k", 0), ("k", -3), ("select", "during"), ("select", ""), ("table_width", 0), ("table_width", -4)],
)
def test_wrong_arguments_are_named(name: str, value: object) -> None:
    arguments: dict[str, Any] = {"k": 4, name: value}
    with pytest.raises(ValueError, match=f"{name} .*{value}"):
        SeRankAttention(**arguments)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (64, [512, 256, 128, 64, 32]),
        (128, [1024, 512, 256, 128, 64]),
        (32, [256, 128, 64, 32, 16]),
        (48, [256, 128, 64, 32, 16]),  # floor of the logarithm
        (63, [256, 128, 64, 32, 16]),
        (65, [512, 256, 128, 64, 32]),
        (8, [64, 32, 16, 8, 4]),
        (1, [8, 4, 2, 1, 1]),  # at least one point
    ],
)
def test_rank_size_by_width(width: int, expected: list[int]) -> None:
    sizes = [rank_size(width * 2**i, i + 1) for i in range(5)]
    assert sizes == expected
    assert all(type(size) is int for size in sizes)


@pytest.mark.parametrize(("offset", "expected"), [(1, 128), (2, 256), (3, 512), (4, 1024), (5, 2048)])
def test_rank_size_by_offset(offset: int, expected: int) -> None:
    assert rank_size(64, 1, offset) == expected
    assert rank_size(128, 2, offset) == expected // 2


def test_rank_size_is_at_least_one() -> None:
    assert rank_size(1, 5) == 1
    assert rank_size(2, 8, 1) == 1
    assert rank_size(1, 1, -7) == 1


def test_rank_size_floors_exactly() -> None:
    assert rank_size(2**50 - 1, 1, 0) == 2**49
    assert rank_size(2**50, 1, 0) == 2**50


@given(channels=st.integers(1, 5000), level=st.integers(1, 7), offset=st.integers(1, 5))
def test_rank_size_follows_equation_2(channels: int, level: int, offset: int) -> None:
    assert rank_size(channels, level, offset) == reference.rank_size(channels, level, offset)


@pytest.mark.parametrize(
    ("name", "channels", "level"),
    [("channels", 0, 1), ("channels", -8, 2), ("level", 64, 0), ("level", 64, 9), ("level", 1, 64)],
)
def test_rank_size_names_wrong_arguments(name: str, channels: int, level: int) -> None:
    value = channels if name == "channels" else level
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        rank_size(channels, level)


@pytest.mark.parametrize("name", ["k", "table_width"])
@pytest.mark.parametrize("value", [0, -1, 3.0, True])
def test_counts_are_whole_numbers(name: str, value: object) -> None:
    arguments: dict[str, Any] = {"k": 4} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        SeRankAttention(**arguments)
