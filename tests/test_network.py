"""The whole network: shapes, gradients, batch independence, memory format, compile and export, stable names."""

from __future__ import annotations

import json
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from serank import SeRankDet
from serank.frames.preparation import LARGEST_SIDE, SMALLEST_TILE
from serank.layers import SeRankAttention
from serank.models.config import SeRankConfig

SNAPSHOT = Path(__file__).parent / "data" / "state_dict.json"

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "paper's stem": {"stem_channels": 1},
    "released graph": {
        "in_channels": 3,
        "stem_channels": 3,
        "merge_kernel": 3,
        "table_size": 512,
        "fusion": "gated",
        "bias": True,
    },
    "plain encoder": {"encoder": "plain"},
    "no attention": {"attention": "none"},
    "no encoding": {"positional_encoding": False},
    "rank after": {"attention": "after"},
    "concatenation": {"fusion": "concat"},
    "a gate per channel": {"per_channel_fusion": True},
    "difference branch": {"branches": ["difference"]},
    "two branches": {"branches": ["dilated", "vanilla"]},
    "offset 1": {"rank_offset": 1},
    "offset 5": {"rank_offset": 5},
}


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


def small(**arguments: Any) -> SeRankDet:
    """A narrow network whose batch norms have been given statistics, as after training."""
    model = SeRankDet(**{"width": 4, **arguments})
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@torch.no_grad()
def test_variants_give_one_logit_a_pixel(variant: dict[str, Any]) -> None:
    model = small(**variant)
    x = torch.randn(2, model.in_channels, 40, 56)
    outputs = model.forward_deep(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 1, 40, 56)] * 6
    assert all(o.isfinite().all() for o in outputs)
    torch.testing.assert_close(model(x), outputs[-1])


@torch.no_grad()
def test_untrained_outputs_are_near_the_prior(variant: dict[str, Any]) -> None:
    model = SeRankDet(**{"width": 8, **variant})
    for output in model.forward_deep(torch.randn(2, model.in_channels, 64, 64)):
        assert 0.003 < float(output.sigmoid().mean()) < 0.03


def test_every_parameter_learns(variant: dict[str, Any]) -> None:
    model = SeRankDet(**{"width": 4, **variant}).train()
    x = torch.randn(2, model.in_channels, 48, 64)
    torch.stack([o.square().mean() for o in model.forward_deep(x)]).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    # what a following batch norm cancels gets no gradient, and gamma starts at 0 and holds its branch back at first
    idle = {n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert all(".bias" in n or ".fuse." in n for n in idle), idle


@given(height=st.integers(1, 50), width=st.integers(1, 50), channels=st.integers(1, 3), base=st.integers(1, 5))
@settings(max_examples=25)
@torch.no_grad()
def test_any_size_and_width(height: int, width: int, channels: int, base: int) -> None:
    model = small(in_channels=channels, width=base)
    y = model(torch.randn(1, channels, height, width))
    assert y.shape == (1, 1, height, width)
    assert y.isfinite().all()


@torch.no_grad()
def test_a_frame_does_not_depend_on_its_batch() -> None:
    model = small()
    x = torch.randn(8, 1, 40, 33)
    alone = torch.cat([model(frame[None]) for frame in x])
    order = torch.randperm(8)
    torch.testing.assert_close(model(x), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x[order]), alone[order], atol=1e-5, rtol=0)
    assert alone.std() > 1e-3  # the frames do differ


@torch.no_grad()
def test_cropping_back_what_was_padded() -> None:
    # repeating the last row and column by hand gives what the network does inside
    model = small()
    x = torch.randn(1, 1, 30, 47)
    padded = torch.cat([x, x[..., -1:]], dim=3)
    padded = torch.cat([padded, padded[..., -1:, :], padded[..., -1:, :]], dim=2)
    torch.testing.assert_close(model(x), model(padded)[..., :30, :47])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_channels_last_is_kept(dtype: torch.dtype) -> None:
    model = small(width=8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lost: list[str] = []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            # the order of one channel's axes is open; a map of one channel counts as either format
            if output.ndim == 4 and not output.is_contiguous(memory_format=torch.channels_last):
                lost.append(name)

        return hook

    for name, module in model.named_modules():
        if name and not isinstance(module, nn.ModuleDict | nn.ModuleList):
            module.register_forward_hook(watch(name))
    x = torch.randn(2, 1, 64, 48).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        model(x)
    assert not lost


@torch.no_grad()
def test_bfloat16_autocast_is_near() -> None:
    model = small(width=8)
    x = torch.randn(2, 1, 64, 64)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    # bfloat16 keeps 8 bits, some 30 layers deep; ranking may pick other points among near ties
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


@torch.no_grad()
def test_double_precision() -> None:
    model = small()
    x = torch.randn(1, 1, 32, 32)
    exact = model.double()(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(model.float()(x), exact.float(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_compile_without_graph_breaks() -> None:
    model = small()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.randn(2, 1, 33, 50)
    torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # raised inside PyTorch 2.13's inductor
@torch.no_grad()
def test_compile_with_inductor() -> None:
    model = small()
    compiled = torch.compile(model, fullgraph=True)
    for shape in ((1, 1, 33, 50), (2, 1, 32, 48)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.slow  # the ONNX file of test_export.py is made of such a program
@torch.no_grad()
def test_export_with_dynamic_sizes() -> None:
    model = small()
    height, width = torch.export.Dim("height", min=32, max=2048), torch.export.Dim("width", min=32, max=2048)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model, (torch.randn(2, 1, 64, 80),), dynamic_shapes={"x": {0: batch, 2: height, 3: width}}
    )
    for shape in ((1, 1, 48, 48), (3, 1, 50, 67)):
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-5, rtol=1e-5)


def test_names_in_the_state_dict_are_stable() -> None:
    shapes = {name: list(value.shape) for name, value in SeRankDet(width=4).state_dict().items()}
    assert shapes == json.loads(SNAPSHOT.read_text()), "renaming entries breaks every published checkpoint"


def test_config_builds_the_same_network(variant: dict[str, Any]) -> None:
    model = SeRankDet(**{"width": 4, "mean": [0.1] * variant.get("in_channels", 1), **variant})
    again = SeRankDet(**json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_numpy_s_values_are_taken() -> None:
    model = SeRankDet(
        in_channels=np.int64(2),  # type: ignore[arg-type]
        width=np.uint8(4),  # type: ignore[arg-type]
        bias=np.bool_(True),  # type: ignore[arg-type]
        mean=np.array([0.4, 0.5]),  # type: ignore[arg-type]
        threshold=np.float32(0.25),  # type: ignore[arg-type]
    )
    found = {name: model.config[name] for name in ("in_channels", "width", "bias", "mean", "threshold")}
    assert found == {"in_channels": 2, "width": 4, "bias": True, "mean": [0.4, 0.5], "threshold": 0.25}
    assert type(found["width"]) is int
    assert json.loads(json.dumps(model.config)) == model.config


def test_arguments_and_settings_are_the_same() -> None:
    arguments = {p.name: p.default for p in signature(SeRankDet).parameters.values()}
    assert arguments == {setting.name: setting.default for setting in fields(SeRankConfig)}
    assert list(SeRankDet(width=1).config) == list(arguments)


def test_ranks_of_equation_2() -> None:
    model = SeRankDet(width=64)
    ranks = [m.k for m in model.attention if isinstance(m, SeRankAttention)]
    assert ranks == [512, 256, 128, 64, 32]


@pytest.mark.parametrize("side", [SMALLEST_TILE, LARGEST_SIDE])
def test_the_network_takes_what_frame_spec_takes(side: int) -> None:
    model = SeRankDet(width=1, working_size=side, tile=side, overlap=side // 2)
    assert (model.frame_spec.working_size, model.frame_spec.tile, model.frame_spec.overlap) == (side, side, side // 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be >= 1; got 0"),
        ({"width": 0}, "width must be >= 1; got 0"),
        ({"encoder": "vgg"}, "encoder must be"),
        ({"attention": "se"}, "attention must be"),
        ({"fusion": "add"}, 'fusion must be "select", "gated" or "concat"; got .add.'),
        ({"width": True}, "width must be an int; got True"),
        ({"width": np.float64(4)}, r"width must be an int; got 4\.0"),
        ({"table_size": "512"}, "table_size must be an int or None; got .512."),
        ({"bias": 1}, "bias must be true or false; got 1"),
        ({"theta": True}, "theta must be a number; got True"),
        ({"branches": "vanilla"}, "branches must be a list of names; got .vanilla."),
        ({"branches": [1]}, "branches must be a list of names; got one int, 1"),
        ({"branches": []}, "branches must be"),
        ({"threshold": 1.5}, r"threshold must lie in \[0, 1\]; got 1.5"),
        ({"std": 0.0}, "std must be > 0"),
        ({"mean": float("nan")}, "mean must be finite"),
        ({"tile": 64, "overlap": 64}, "overlap must lie in 0 to 32"),
        ({"mean": [0.5, 0.5]}, "mean must be one number or 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeRankDet(**{"width": 4, **arguments})


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 1, 0, 32), (1, 1, 32, 0)])
def test_wrong_input_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="x must have"):
        SeRankDet(width=4)(torch.zeros(shape))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_other_input_channels_give_the_same_on_grey_frames(before: int, after: int) -> None:
    torch.manual_seed(0)
    model = SeRankDet(in_channels=before, width=2, mean=[0.4] * before, std=0.2).eval()
    other = model.reconfigured(in_channels=after, threshold=0.3)
    assert (other.in_channels, other.threshold, other.config["threshold"]) == (after, 0.3, 0.3)
    assert not other.training
    grey = torch.rand(1, 1, 32, 48)
    outputs = [m(m.frame_spec.normalise(grey, m.in_channels)) for m in (model, other)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        other.head.weight.zero_()
    assert model.head.weight.abs().sum() > 0  # a copy


def test_reconfigured_refuses() -> None:
    model = SeRankDet(in_channels=3, width=2, mean=[0.4, 0.5, 0.6])
    with pytest.raises(ValueError, match="in_channels can't change for a network with mean="):
        model.reconfigured(in_channels=1)
    with pytest.raises(ValueError, match="width: the weights don't fit the change"):
        model.reconfigured(width=4)
    with pytest.raises(ValueError, match="fusion: the weights don't fit the change"):
        model.reconfigured(fusion="concat")
    with pytest.raises(ValueError, match="attention: the weights don't fit the change"):
        model.reconfigured(attention="none")  # which leaves weights over
    with pytest.raises(ValueError, match="bias: the weights don't fit the change"):
        SeRankDet(width=2, bias=True).reconfigured(bias=False)
    with pytest.raises(ValueError, match="unknown arguments size; SeRankDet takes in_channels"):
        model.reconfigured(size=4)


def test_a_copy_has_the_weights_of_a_network_in_double_precision() -> None:
    model = SeRankDet(width=2).double()
    with torch.no_grad():
        model.head.weight.fill_(1 / 3)
    copy = model.reconfigured(threshold=0.4)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), copy.state_dict().values(), strict=True))
    assert copy.head.weight.dtype == torch.float64
