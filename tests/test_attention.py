"""SeRankAttention and equation 2 against the equations, and as a block in someone's network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from serank.layers import ranking
from serank.layers.attention import SeRankAttention, rank_size

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


@pytest.mark.parametrize(("shape", "k"), CASES)
def test_rank_keeps_the_largest_in_spatial_order(shape: tuple[int, ...], k: int) -> None:
    x = distinct(*shape)
    values, index = SeRankAttention(k).rank(x)
    kept = min(k, shape[2] * shape[3])
    assert values.shape == index.shape == (*shape[:2], kept)
    for b in range(shape[0]):
        for c in range(shape[1]):
            positions = reference.ranked_positions(x[b, c].numpy(), k)
            assert index[b, c].tolist() == [row * shape[3] + column for row, column in positions]
            assert values[b, c].tolist() == [x[b, c, row, column].item() for row, column in positions]


# frames with so many points for each one ranked that blocks are looked at first, of 8 and of 16 points
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "k"),
    [((2, 3, 16, 8), 8), ((1, 2, 13, 11), 5), ((2, 5, 40, 37), 4), ((1, 8, 1, 300), 1), ((1, 1, 64, 9), 9)],
)
def test_ranking_by_blocks(shape: tuple[int, ...], k: int, dtype: torch.dtype, layout: torch.memory_format) -> None:
    for x in (
        distinct(*shape),
        torch.randn(shape).relu(),
        torch.randn(shape).sub(2).relu(),
        torch.randint(0, 4, shape),
        torch.zeros(shape),
    ):
        x = x.to(dtype=dtype, memory_format=layout)
        points = x.flatten(2)
        values, index = ranking.rank(x, k)
        assert (index.diff(dim=2) > 0).all()
        assert torch.equal(points.gather(2, index), values)
        assert torch.equal(values.sort(2, descending=True).values, points.topk(k).values)
        if dtype != torch.bfloat16:  # also of equal values those that torch.topk takes
            assert torch.equal(index, points.topk(k, sorted=False).indices.sort(2).values)
    assert ranking._sparse(x, k)


def test_gradients_of_ranking_by_blocks() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = distinct(2, 3, 16, 9).to(memory_format=layout).requires_grad_()
        values, index = ranking.rank(x, 7)
        weights = torch.randn_like(values)
        (values * weights).sum().backward()  # type: ignore[no-untyped-call]
        expected = torch.zeros(2, 3, 16 * 9, dtype=x.dtype).scatter(2, index, weights)
        assert x.grad is not None
        assert torch.equal(x.grad.flatten(2), expected)


def test_few_points_and_other_devices_are_not_ranked_by_blocks() -> None:
    assert not ranking._sparse(torch.empty(1, 1, 4, 4), 2)
    assert not ranking._sparse(torch.empty(1, 1, 64, 64, device="meta"), 2)


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
@pytest.mark.parametrize(("shape", "k"), [((2, 3, 3, 4), 4), ((1, 3, 2, 2), 6)])
def test_gradcheck(shape: tuple[int, ...], k: int, options: dict[str, Any]) -> None:
    layer = SeRankAttention(k, **options).double()
    x = distinct(*shape).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    weights = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        result: Tensor = functional_call(layer, dict(zip(names, weights, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, *weights))


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
    assert rank_size(2, 9, 1) == 1
    assert rank_size(1, 1, -7) == 1


def test_rank_size_floors_exactly() -> None:
    assert rank_size(2**50 - 1, 1, 0) == 2**49
    assert rank_size(2**50, 1, 0) == 2**50


@given(channels=st.integers(1, 5000), level=st.integers(1, 7), offset=st.integers(1, 5))
def test_rank_size_follows_equation_2(channels: int, level: int, offset: int) -> None:
    assert rank_size(channels, level, offset) == reference.rank_size(channels, level, offset)


@pytest.mark.parametrize(("name", "channels", "level"), [("channels", 0, 1), ("channels", -8, 2), ("level", 64, 0)])
def test_rank_size_names_wrong_arguments(name: str, channels: int, level: int) -> None:
    value = channels if name == "channels" else level
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        rank_size(channels, level)
