"""Empty batches, sparse tensors and subclasses: the right result or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serank import DDC, LSFF, SeRankAttention, SeRankDet
from serank.losses import LOSSES, deep_supervision_loss

GRAPHS: list[dict[str, Any]] = [
    {},
    {"encoder": "plain", "attention": "after"},
    {"attention": "none", "fusion": "concat"},
    {"fusion": "gated", "merge_kernel": 3, "table_size": 32, "bias": True},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("graph", GRAPHS)
def test_an_empty_batch_gives_an_empty_map(graph: dict[str, Any], training: bool) -> None:
    model = SeRankDet(width=2, **graph).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items() if "tracked" not in name}
    x = torch.zeros(0, 1, 40, 56, requires_grad=True)
    assert model(x).shape == (0, 1, 40, 56)
    outputs = model.forward_deep(x)
    assert [o.shape for o in outputs] == [(0, 1, 40, 56)] * 6
    torch.autograd.backward(torch.stack(outputs).sum())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_empty_batch_in_layers_and_the_optimised_network(memory_format: torch.memory_format) -> None:
    x = torch.zeros(0, 4, 40, 48).contiguous(memory_format=memory_format)
    layers: list[Callable[[Tensor], Tensor]] = [DDC(4, 4), SeRankAttention(8), lambda m: LSFF(4)(m, m)]
    assert [layer(x).shape for layer in layers] == [x.shape] * 3
    assert SeRankDet(width=2).eval().optimize()(torch.zeros(0, 1, 40, 48)).shape == (0, 1, 40, 48)


@pytest.mark.parametrize(
    ("argument", "layer"),
    [
        ("x", DDC(4, 4)),
        ("x", SeRankAttention(8)),
        ("skip", LSFF(4)),
        ("x", SeRankDet(in_channels=4, width=2)),
        ("x", SeRankDet(in_channels=4, width=2).eval().optimize()),
    ],
)
def test_sparse_maps_are_refused(argument: str, layer: nn.Module) -> None:
    sparse = torch.ones(1, 4, 32, 32).to_sparse()
    inputs = (sparse, sparse.to_dense()) if argument == "skip" else (sparse,)
    with pytest.raises(
        ValueError, match=rf"{argument} must be a dense tensor; .*sparse_coo.* {argument}\.to_dense\(\)"
    ):
        layer(*inputs)


def test_maps_of_other_axes_and_types_are_refused() -> None:
    maps = torch.zeros(2, 16, 16)  # of LSFF, the mean over axis 1 would be one over rows
    for argument, layer in (("x", DDC(2, 2)), ("skip", LSFF(2))):
        inputs = (maps, maps) if argument == "skip" else (maps,)
        with pytest.raises(ValueError, match=rf"{argument} must have shape \(B, ., H, W\); got \(2, 16, 16\)"):
            layer(*inputs)
        with pytest.raises(ValueError, match=rf"{argument} must be of a floating dtype; got torch\.uint8"):
            layer(*(m[None].to(torch.uint8) for m in inputs))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_nothing_and_of_sparse_tensors(loss: str) -> None:
    """A mean over no image is NaN, which would end up in the weights."""
    empty, maps = torch.zeros(0, 1, 8, 8), torch.ones(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"hold no pixel; got shape \(0, 1, 8, 8\)\. Leave empty batches out"):
        deep_supervision_loss([empty], empty, loss=loss)
    with pytest.raises(ValueError, match=r"must be dense tensors; convert them with \.to_dense\(\)"):
        deep_supervision_loss([maps], maps.to_sparse(), loss=loss)


def test_sparse_frames_are_refused() -> None:
    with pytest.raises(TypeError, match=r"the frame: a sparse tensor.*tensor\.to_dense\(\)"):
        SeRankDet(width=1).detect(torch.zeros(32, 32).to_sparse())


class Handing(SeRankDet):
    """Hands all arguments on, and has one of its own."""

    def __init__(self, extra: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra
        self.config["extra"] = extra


class Further(Handing):
    """Without a constructor."""


class Doubling(Handing):
    """Has another forward pass."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Fixed(SeRankDet):
    """Takes one argument of the many in its config."""

    def __init__(self, width: int = 2) -> None:
        super().__init__(width=width)


@pytest.mark.parametrize("kind", [Handing, Further, Doubling])
def test_subclasses_that_hand_arguments_on(kind: type[Handing], tmp_path: Path) -> None:
    model = kind(extra=5, width=2, threshold=0.25).eval()
    model.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    assert (type(again), again.extra, again.threshold) == (kind, 5, 0.25)
    other = model.reconfigured(threshold=0.75)
    assert (type(other), other.extra, other.threshold) == (kind, 5, 0.75)
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
        assert torch.equal(other(x), model(x))
    with pytest.warns(UserWarning, match=r"config\.json: lacks entries, whose defaults are taken: extra=3\."):
        assert kind.from_pretrained("sirst").extra == 3


def test_subclasses_that_do_not(tmp_path: Path) -> None:
    """They couldn't be loaded again, which is said when they are saved."""
    with pytest.raises(ValueError, match=r"Fixed's constructor doesn't take attention, .*Let .* take \*\*kwargs"):
        Fixed().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Fixed's constructor doesn't take"):
        Fixed().reconfigured(threshold=0.25)
    model = Fixed(3)
    model.config = {"width": 3}
    model.save_pretrained(tmp_path)
    assert Fixed.from_pretrained(tmp_path).config["width"] == 3


def test_numbers_of_numpy_as_settings() -> None:
    given: dict[str, Any] = {"width": np.int64(2), "threshold": np.float32(0.25), "working_size": np.int64(64)}
    model = SeRankDet(**given, tta=np.int64(4))  # type: ignore[arg-type]
    assert (model.config["width"], model.threshold, model.frame_spec.working_size, model.tta) == (2, 0.25, 64, 4)
