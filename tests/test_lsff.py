"""LSFF against the equations, and as a block in someone's network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import lsff, weights_of
from torch import nn

from serank.layers import LSFF

# (B, C, H, W), with odd sides, one channel, maps smaller than the 7x7 window and 1x1 maps
SHAPES = [(2, 3, 5, 7), (1, 2, 9, 8), (2, 1, 4, 3), (3, 4, 1, 1), (1, 1, 1, 1), (2, 3, 1, 10)]
# mode and maps; "channels" stands for one gate for each channel
MODES = [("select", "one"), ("select", "channels"), ("gated", "one"), ("concat", "one")]


def build(channels: int, mode: str, maps: str) -> LSFF:
    """A layer with a gamma that is not the 0 at which "gated" is a concatenation."""
    layer = LSFF(channels, mode=mode, maps=channels if maps == "channels" else 1)
    if mode == "gated":
        nn.init.constant_(layer.gamma, 0.8)
    return layer


@pytest.mark.parametrize(("mode", "maps"), MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_follow_the_equations(shape: tuple[int, ...], mode: str, maps: str) -> None:
    layer = build(shape[1], mode, maps).double()
    skip, decoded = torch.randn(2, *shape, dtype=torch.float64)
    expected = lsff(skip.numpy(), decoded.numpy(), weights_of(layer), mode=mode)
    np.testing.assert_allclose(layer(skip, decoded).detach().numpy(), expected, rtol=0, atol=1e-10)


def test_one_gate_for_each_channel() -> None:
    assert LSFF(5).squeeze.weight.shape == (1, 2, 7, 7)
    assert LSFF(5, maps=5).squeeze.weight.shape == (5, 2, 7, 7)


def test_an_open_gate_selects_the_skip() -> None:
    layer = LSFF(3).double()
    skip, decoded = torch.randn(2, 1, 3, 6, 5, dtype=torch.float64)
    nn.init.zeros_(layer.squeeze.weight)
    assert layer.squeeze.bias is not None
    nn.init.constant_(layer.squeeze.bias, 100.0)
    torch.testing.assert_close(layer(skip, decoded), skip, rtol=0, atol=1e-12)
    nn.init.constant_(layer.squeeze.bias, -100.0)
    torch.testing.assert_close(layer(skip, decoded), decoded, rtol=0, atol=1e-12)


def test_gated_starts_as_a_concatenation() -> None:
    skip, decoded = torch.randn(2, 2, 3, 6, 5)
    assert torch.equal(LSFF(3, mode="gated")(skip, decoded), LSFF(3, mode="concat")(skip, decoded))


@pytest.mark.parametrize(("mode", "channels"), [("select", 3), ("gated", 6), ("concat", 6)])
def test_out_channels_are_those_of_the_output(mode: str, channels: int) -> None:
    layer = LSFF(3, mode=mode)
    assert layer.out_channels == channels
    assert layer(torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)).shape == (2, channels, 5, 4)


def test_concat_has_no_parameters() -> None:
    assert not LSFF(3, mode="concat").state_dict()


@pytest.mark.parametrize(("mode", "maps"), MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_gets_a_gradient(shape: tuple[int, ...], mode: str, maps: str) -> None:
    layer = build(shape[1], mode, maps)
    skip, decoded = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
    layer(skip, decoded).square().sum().backward()
    for name, parameter in [("skip", skip), ("decoded", decoded), *layer.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_gamma_learns_from_its_start() -> None:
    layer = LSFF(3, mode="gated")
    layer(torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6)).square().sum().backward()
    assert layer.gamma.grad is not None
    assert layer.gamma.grad.any()
    for name, parameter in layer.named_parameters():  # the others get a zero one while gamma is 0
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("mode", "maps"), MODES)
def test_a_frame_does_not_depend_on_its_batch(mode: str, maps: str) -> None:
    layer = build(4, mode, maps).eval()
    skip, decoded = torch.randn(2, 8, 4, 17, 13)
    order = torch.randperm(8)
    with torch.no_grad():
        batch, shuffled = layer(skip, decoded), layer(skip[order], decoded[order])
        alone = torch.cat([layer(s[None], d[None]) for s, d in zip(skip, decoded, strict=True)])
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-5)
    torch.testing.assert_close(shuffled, batch[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("mode", "maps"), MODES)
def test_memory_format_is_kept(mode: str, maps: str) -> None:
    layer = build(4, mode, maps)
    skip, decoded = torch.randn(2, 2, 4, 8, 7)
    plain = layer(skip, decoded)
    last = layer(*(x.contiguous(memory_format=torch.channels_last) for x in (skip, decoded)))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("mode", "maps"), MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_runs_in_any_floating_dtype(dtype: torch.dtype, mode: str, maps: str) -> None:
    skip, decoded = torch.randn(2, 2, 3, 6, 5, dtype=dtype)
    result = build(3, mode, maps).to(dtype)(skip, decoded)
    assert result.dtype == dtype
    assert result.isfinite().all()


@pytest.mark.parametrize(("mode", "maps"), MODES)
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "float32")])
def test_bfloat16_autocast_stays_close_to_float32(mode: str, maps: str, dtypes: tuple[str, str]) -> None:
    """Also of one float32 and one bfloat16 map, since autocast keeps the dtype of some operations."""
    layer = build(4, mode, maps)
    skip, decoded = torch.randn(2, 2, 4, 16, 15).bfloat16().float()
    with torch.no_grad():
        full = layer(skip, decoded)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(skip.to(getattr(torch, dtypes[0])), decoded.to(getattr(torch, dtypes[1])))
    assert half.dtype == torch.float32  # the wider of both
    assert half.isfinite().all()
    # bfloat16 rounds by up to 2^-8. The longest path is two convolutions, whose inputs, weights and results
    # are rounded, and a few products: below 16 times in all; independent errors add up as the root of that.
    assert (half.float() - full).abs().max() < 4 * 2**-8 * full.abs().max()


def test_autocast_keeps_bfloat16_of_both() -> None:
    skip, decoded = torch.randn(2, 2, 4, 6, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert LSFF(4)(skip, decoded).dtype == torch.bfloat16


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from(MODES),
)
def test_any_size_and_channels(shape: tuple[int, int, int, int], kind: tuple[str, str]) -> None:
    layer = build(shape[1], *kind)
    result = layer(torch.randn(shape), torch.randn(shape))
    assert result.shape == (shape[0], layer.out_channels, *shape[2:])
    assert result.isfinite().all()


@pytest.mark.parametrize(("name", "value"), [("mode", "sum"), ("mode", ""), ("maps", 0), ("maps", 2), ("maps", 5)])
def test_wrong_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} .*{value}"):
        LSFF(4, **{name: value})  # type: ignore[arg-type]


def test_equal_values_over_channels_share_the_gradient_of_the_gate() -> None:
    layer = LSFF(4)
    skip, decoded = torch.zeros(1, 4, 5, 6, requires_grad=True), torch.rand(1, 4, 5, 6)
    layer.gate(skip, decoded - 2).sum().backward()  # type: ignore[no-untyped-call]
    assert skip.grad is not None
    torch.testing.assert_close(skip.grad, skip.grad.mean(1, keepdim=True).expand_as(skip))
    assert skip.grad.any()


@pytest.mark.parametrize("mode", ["select", "gated", "concat"])
def test_other_channels_than_those_of_the_layer(mode: str) -> None:
    two, three = torch.rand(1, 2, 5, 6), torch.rand(1, 3, 5, 6)
    for skip, decoded, name in ((two, two, "skip"), (three, two, "decoded")):
        with pytest.raises(ValueError, match=f"{name} must have 3 channels"):
            LSFF(3, mode=mode)(skip, decoded)


@pytest.mark.parametrize("channels", [0, -1, 4.0, True, None])
def test_channels_are_a_whole_number(channels: object) -> None:
    with pytest.raises(ValueError, match="channels must be"):
        LSFF(channels)  # type: ignore[arg-type]
