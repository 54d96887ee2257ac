"""The released code's graph is the same class with other arguments: its outputs to 1e-5, from a file as released."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serank import SeRankDet

FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"


def value(name: str, shape: list[int]) -> Tensor:
    """An entry's weights as fixtures/README.md makes them, and for the tables as DESIGN.md defines them."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("pos_enc"):
        side = shape[1]
        angle = np.arange(shape[0])[:, None] * np.exp(-np.log(10000) * np.arange(0, side, 2) / side)
        table = np.stack((np.sin(angle), np.cos(angle)), axis=2).reshape(shape)
        return torch.from_numpy(table.astype(np.float32))
    g = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("gamma"):
        g = np.full(shape, 0.1)
    elif name.endswith("running_var"):
        g = 1 + 0.1 * np.abs(g)
    elif name.endswith(("running_mean", "bias")):
        g = 0.1 * g
    elif len(shape) == 1:
        g = 1 + 0.1 * g
    else:
        g = g * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(g, np.float32))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> SeRankDet:
    shapes = FIXTURES / "released_state_dict.json"
    if not shapes.exists():
        pytest.skip("needs the fixtures of the shared folder, which are not part of the repository")
    state = {f"decode_head.{name}": value(name, shape) for name, shape in json.loads(shapes.read_text()).items()}
    assert len(state) == 439
    file = tmp_path_factory.mktemp("released") / "best.pth.tar"
    torch.save({"epoch": 500, "state_dict": state, "loss": np.float64(0.25)}, file)
    del state
    try:
        return SeRankDet.from_released(file)
    finally:
        file.unlink()  # 0.4 GB


@torch.no_grad()
@pytest.mark.usefixtures("topk_ties")
def test_outputs_and_maps_inside(released: SeRankDet, shared: Path) -> None:
    expected = np.load(shared / "fixtures" / "released_graph.npz")
    places: dict[str, nn.Module] = {
        "Conv1": released.encoder[0],
        "Conv3": released.encoder[2],
        "max_channel1": released.attention[0],
        "max_channel3": released.attention[2],
        "max_channel5": released.attention[4],
        "Up_conv5": released.decoder[3],
        "Up_conv2": released.decoder[0],
        "neck5": released.decoder[3].get_submodule("fuse"),
        "neck2": released.decoder[0].get_submodule("fuse"),
    }
    seen: dict[str, Tensor] = {}
    for name, module in places.items():
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
    outputs = released.forward_deep(torch.from_numpy(expected["input"]))
    # both frames in one batch, where the released code gives each another result than alone
    for frame in range(2):
        for name, output in zip(("side1", "side2", "side3", "side4", "side5", "final"), outputs, strict=True):
            np.testing.assert_allclose(output[frame, 0], expected[f"{name}_{frame}"], atol=1e-5, err_msg=name)
    assert {f"after_{name}" for name in seen} == {name for name in expected if name.startswith("after_")}
    for name, output in seen.items():
        np.testing.assert_allclose(output[0, :4], expected[f"after_{name}"], atol=1e-5, err_msg=name)
