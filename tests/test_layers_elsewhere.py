"""The layers in somebody else's network: trained for a step, exported to ONNX and as a program."""

from __future__ import annotations

import io
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank import DDC, LSFF, SeRankAttention, SeRankDet

SIZES = [(1, 32, 32), (3, 36, 52), (2, 48, 20), (1, 64, 96)]
"""Batch, height and width; sides are multiples of 4, which this network asks for."""
FEW_POINTS = [(1, 8, 8), (2, 16, 12)]
"""Whose maps have fewer points than K."""


class UNet(nn.Module):
    """A plain U-Net of three levels, two of whose encoder blocks and whose skips are serank's layers."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.first = DDC(3, channels, hidden_channels=channels)
        self.second = nn.Sequential(DDC(channels, 2 * channels), SeRankAttention(40))
        self.third = nn.Sequential(
            nn.Conv2d(2 * channels, 4 * channels, 3, padding=1),
            nn.BatchNorm2d(4 * channels),
            nn.ReLU(),
            SeRankAttention(10, table_width=64),
        )
        self.up_second = nn.ConvTranspose2d(4 * channels, 2 * channels, 2, stride=2)
        self.up_first = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.fuse_second = LSFF(2 * channels)
        self.fuse_first = LSFF(channels, mode="gated")
        self.head = nn.Conv2d(2 * channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        third = self.third(F.max_pool2d(second, 2))
        second = self.fuse_second(second, self.up_second(third))
        logits: Tensor = self.head(self.fuse_first(first, self.up_first(second)))
        return logits


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    network = UNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    x, target = torch.randn(2, 3, 32, 48), torch.randint(0, 2, (2, 32, 48))
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(network.train()(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    unmoved = [name for name, p in network.named_parameters() if torch.equal(p, before[name])]
    assert not unmoved
    return network.eval().requires_grad_(False)


def dynamic() -> dict[str, dict[int, object]]:
    height, width = (4 * torch.export.Dim(name, min=4) for name in ("height", "width"))
    return {"x": {0: torch.export.Dim("batch"), 2: height, 3: width}}


def test_onnx(network: UNet, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra serank[export]")
    pytest.importorskip("onnxscript", reason="needs the extra serank[export]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised inside PyTorch 2.13, by its own use of an old name
        torch.onnx.export(
            network,
            (torch.randn(2, 3, 32, 48),),
            tmp_path / "unet.onnx",
            input_names=["x"],
            dynamic_shapes=dynamic(),
            external_data=False,
            dynamo=True,  # PyTorch before 2.9 asks for it
            verbose=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "unet.onnx", providers=["CPUExecutionProvider"])
    for batch, height, width in SIZES + FEW_POINTS:
        x = torch.randn(batch, 3, height, width)
        result = session.run(None, {"x": x.numpy()})[0]
        np.testing.assert_allclose(result, network(x), atol=1e-4, rtol=0)


def test_program(network: UNet) -> None:
    program = torch.export.export(network, (torch.randn(2, 3, 32, 48),), dynamic_shapes=dynamic())
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for batch, height, width in SIZES:
        x = torch.randn(batch, 3, height, width)
        torch.testing.assert_close(loaded(x), network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [DDC(3, 4), SeRankAttention(8), SeRankAttention(8, select="after"), LSFF(3)])
def test_shapes_on_the_meta_device(layer: nn.Module) -> None:
    x = torch.randn(2, 3, 5, 7)
    given = [x, x] if isinstance(layer, LSFF) else [x]
    shape = layer.eval()(*given).shape
    assert deepcopy(layer).to("meta")(*(v.to("meta") for v in given)).shape == shape


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
def test_torch_jit_trace_gives_the_same(network: UNet) -> None:
    """For maps of the traced size; TensorBoard's `add_graph` traces so too."""
    example, x = torch.randn(2, 2, 3, 32, 48)
    for whole in (network, SeRankDet(width=2, in_channels=3).eval()):
        traced = torch.jit.trace(whole, example[:1])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(traced(x[:1]), whole(x[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@torch.no_grad()
def test_replicas_without_parameters(dtype: torch.dtype) -> None:
    """`torch.nn.DataParallel` gives its replicas tensors as attributes in place of parameters."""
    layer = SeRankAttention(8)
    x = torch.randn(2, 3, 5, 7).to(dtype)
    expected = layer.to(dtype)(x)
    for linear in (layer.query, layer.key):
        weight = linear.weight.detach()
        del linear._parameters["weight"]
        linear.weight = weight
    assert not list(layer.parameters())
    assert torch.equal(layer(x), expected)
