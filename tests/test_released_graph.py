"""The released code's graph is the same class with other arguments: its outputs, to 1e-5."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serank import SeRankDet

# released name -> ours; levels count from 1 there, from 0 here, and the decoder's finest step is its number 2
RENAMES = (
    (r"^Conv(\d)\.", 1, "encoder.{}."),
    (r"^max_channel(\d)\.", 1, "attention.{}."),
    (r"^neck(\d)\.", 2, "decoder.{}.fuse."),
    (r"^Up(\d)\.up\.", 2, "decoder.{}.up."),
    (r"^Up_conv(\d)\.conv\.", 2, "decoder.{}.refine."),
    (r"^conv(\d)\.", 1, "side_heads.{}."),
)
PARTS = (
    (r"^Conv\.", "head."),
    (r"\.conv_layer\.", ".branches.vanilla."),
    (r"\.cdc_layer\.0\.conv\.", ".branches.difference.0."),
    (r"\.cdc_layer\.", ".branches.difference."),
    (r"\.dconv_layer\.", ".branches.dilated."),
    (r"\.final_layer\.", ".merge."),
    (r"\.fc1\.", ".query."),
    (r"\.fc2\.", ".key."),
    (r"\.conv_squeeze\.", ".squeeze."),
    (r"\.fuse\.conv\.", ".fuse.expand."),
    (r"\.up\.1\.", ".reduce.0."),
    (r"\.up\.2\.", ".reduce.1."),
)


def ours(name: str) -> str:
    for pattern, first, place in RENAMES:
        name = re.sub(pattern, lambda m, f=first, p=place: p.format(int(m[1]) - f), name)  # type: ignore[misc]
    for pattern, place in PARTS:
        name = re.sub(pattern, place, name)
    # the decoder block is one flat list there: conv, norm, ReLU, three times
    return re.sub(r"refine\.(\d)\.(conv\.)?", lambda m: f"refine.{int(m[1]) // 3}.{int(m[1]) % 3}.", name)


def value(name: str, shape: list[int]) -> Tensor:
    """An entry's weights as fixtures/README.md makes them."""
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
def released() -> SeRankDet:
    file = Path(__file__).parents[2] / "shared" / "fixtures" / "released_state_dict.json"
    if not file.exists():
        pytest.skip("needs the fixtures of the shared folder, which are not part of the repository")
    model = SeRankDet(in_channels=3, stem_channels=3, merge_kernel=3, table_size=512, fusion="gated", bias=True).eval()
    state = model.state_dict()
    for name, shape in json.loads(file.read_text()).items():
        if not name.endswith(("pos_enc", "num_batches_tracked")):
            state[ours(name)].copy_(value(name, shape))
    assert len(state) == len([n for n in json.loads(file.read_text()) if not n.endswith("pos_enc")])
    return model


@torch.no_grad()
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
    for name, output in seen.items():
        np.testing.assert_allclose(output[0, :4], expected[f"after_{name}"], atol=1e-5, err_msg=name)
