"""Layers, network, losses, training, detection and export on every device there is, against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import TINY, scenes, tiny
from torch import Tensor, nn

from serank import DDC, LSFF, SeRankAttention, SeRankDet
from serank.losses import LOSSES, deep_supervision_loss
from serank.synthetic import SyntheticScenes
from serank.train import fit

LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "DDC": (lambda: DDC(3, 5), 1),
    "DDC released": (lambda: DDC(3, 5, merge_kernel=3, bias=True), 1),
    "SeRankAttention": (lambda: SeRankAttention(8), 1),
    "SeRankAttention after": (lambda: SeRankAttention(3, select="after"), 1),
    "LSFF": (lambda: LSFF(3), 2),
    "LSFF gated": (lambda: LSFF(3, mode="gated"), 2),
}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Within a share of the largest expected value."""
    largest = max(float(expected.detach().abs().max()), 1e-3)
    return float((found.detach().cpu().double() - expected.detach()).abs().max()) <= tolerance * largest


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_of_layers(name: str, channels_last: bool, device: str) -> None:
    make, inputs = LAYERS[name]
    layer = make()
    exact = make().double()
    exact.load_state_dict(layer.state_dict())
    values = [torch.randn(2, 3, 12, 10) for _ in range(inputs)]
    wide = [v.double().requires_grad_() for v in values]
    expected = exact(*wide)
    (expected**2).sum().backward()
    layer.to(device)
    sent = [v.to(device) for v in values]
    if channels_last:
        sent = [v.to(memory_format=torch.channels_last) for v in sent]
    found = layer(*(v.requires_grad_() for v in sent))
    (found**2).sum().backward()
    assert close(found, expected)
    # together, since some, such as those of a bias before batch norm, are zero but for rounding
    gradients, exact_gradients = (
        torch.cat([p.grad.flatten() for p in (*part.parameters(), *given) if p.grad is not None])
        for part, given in ((layer, sent), (exact, wide))
    )
    assert close(gradients, exact_gradients, 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_equal_values_are_taken_first_in_spatial_order(dtype: torch.dtype, device: str) -> None:
    x = torch.randint(0, 4, (2, 3, 40, 30)).to(dtype)
    layer = SeRankAttention(50)
    values, index = layer.top_k(x.to(device))
    for plane, positions, taken in zip(x.flatten(0, 1), index.flatten(0, 1).cpu(), values.flatten(0, 1), strict=True):
        numbers = plane.flatten().tolist()
        first = sorted(range(len(numbers)), key=lambda i: (-numbers[i], i))[:50]
        assert positions.tolist() == sorted(first)
        assert taken.tolist() == [numbers[i] for i in sorted(first)]
    alone = layer.top_k(x[1:].to(device, memory_format=torch.channels_last))[1]
    assert torch.equal(alone[0], index[1])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: str, device: str) -> None:
    outputs = [torch.randn(2, 1, 9, 7) for _ in range(2)]
    target = (torch.rand(2, 1, 9, 7) < 0.2).float()
    expected = deep_supervision_loss([o.double() for o in outputs], target.double(), loss=loss, pixel_weight=0.5)
    found = deep_supervision_loss([o.to(device) for o in outputs], target.to(device), loss=loss, pixel_weight=0.5)
    assert close(found, expected, 1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 64, 48), (1, 1, 33, 50)], ids=str)
def test_logits_of_the_network_and_its_optimised_copies(shape: tuple[int, ...], device: str) -> None:
    model = SeRankDet.from_pretrained("sirst")
    x = torch.rand(shape)
    with torch.no_grad():
        expected = SeRankDet.from_pretrained("sirst").double()(x.double())
        model.to(device)
        assert close(model(x.to(device)), expected)
        for graphs in (True, False):
            fast = model.optimize(graphs=graphs)
            for _ in range(3):  # as it is, recorded, replayed
                assert close(fast(x.to(device)), expected)
        half = model.optimize(torch.bfloat16)
        assert all(close(half(x.to(device)), expected, 0.5) for _ in range(3))


def test_a_frame_does_not_depend_on_its_batch(device: str) -> None:
    model = SeRankDet.from_pretrained("sirst", device=device)
    x = torch.rand(3, 1, 48, 64, device=device)
    with torch.no_grad():
        alone = torch.cat([model(frame[None]) for frame in x])
        assert close(model(x), alone.cpu().double())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_learns_and_agrees_with_the_cpu(precision: str, device: str) -> None:
    options: dict[str, Any] = {**vars(TINY), "epochs": 2, "precision": precision}
    recipe = type(TINY)(**options)
    model, expected = tiny(), tiny().double()
    first = {name: value.clone() for name, value in model.named_parameters()}
    rows = fit(model, scenes(4), recipe=recipe, device=device, progress=False).rows
    exact = fit(expected, scenes(4), recipe=type(TINY)(**{**options, "precision": "float32"}), progress=False).rows
    assert [row["loss"] for row in rows] == pytest.approx(
        [row["loss"] for row in exact], rel=1e-3 if precision == "float32" else 0.02
    )
    assert next(model.parameters()).device.type == device
    assert any(not torch.equal(value.cpu(), first[name]) for name, value in model.named_parameters())


def test_detection(device: str) -> None:
    frames = [s.frame for s in SyntheticScenes(3, 50, 64, targets=(1, 2), size=(3, 8), scr=(10, 30), seed=2)]
    cpu = SeRankDet.from_pretrained("sirst").detect(frames)
    for network in (model := SeRankDet.from_pretrained("sirst", device=device), model.optimize()):
        for found, expected in zip(network.detect(frames), cpu, strict=True):
            np.testing.assert_allclose(found.probability, expected.probability, atol=2e-3)
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1)


def test_export(device: str, tmp_path: Path) -> None:
    model = SeRankDet(width=2).eval().to(device)
    model.export(tmp_path / "a.pt2", format="torch")
    program = torch.export.load(tmp_path / "a.pt2").module()
    x = torch.rand(1, 1, 40, 24, device=device)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), atol=1e-4, rtol=1e-4)
