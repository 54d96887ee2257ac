"""Top-k points of a frame: counts, positions, tiles, and a model left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serank import SeRankAttention, SeRankDet
from serank.evaluation.report.top_k import TopKLevel, count_top_k

Float = NDArray[np.float32]


def small(**arguments: Any) -> SeRankDet:
    return SeRankDet(**{"width": 2, **arguments}).eval()


def noise(height: int, width: int) -> Float:
    return np.random.default_rng(0).random((height, width), dtype=np.float32)


def by_hand(model: SeRankDet, x: Tensor) -> list[NDArray[np.int64]]:
    """Counts of each level from the maps that enter the attention, sorted by value."""
    counts = []
    with torch.no_grad():
        for level, (block, attend) in enumerate(zip(model.encoder, model.attention, strict=True)):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            assert isinstance(attend, SeRankAttention)
            points = x[0].flatten(1).numpy()
            chosen = np.argsort(-points, axis=1, kind="stable")[:, : attend.k]
            counts.append(np.bincount(chosen.ravel(), minlength=points.shape[1]).reshape(x.shape[2:]))
            x = attend(x)
    return counts


def without_relu(model: SeRankDet) -> SeRankDet:
    """So that no two points share a value, of which either would do."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Identity())
    return model


def test_counts_are_those_of_the_maps_that_enter_the_layers() -> None:
    model = without_relu(small())
    frame = noise(32, 48)
    levels = count_top_k(model, frame)
    assert [level.level for level in levels] == [1, 2, 3, 4, 5]
    assert [level.channels for level in levels] == [2, 4, 8, 16, 32]
    assert [level.scale for level in levels] == [(2.0**i, 2.0**i) for i in range(5)]
    x = model.frame_spec.normalise(torch.from_numpy(frame)[None, None], 1)
    for level, expected in zip(levels, by_hand(model, x), strict=True):
        np.testing.assert_array_equal(level.counts, expected)
        assert level.counts.sum() == level.channels * level.k


def test_k_is_at_most_the_number_of_points() -> None:
    levels = count_top_k(small(rank_offset=5), noise(16, 16))
    assert levels[4].k == 1
    assert levels[4].counts.tolist() == [[32]]
    assert levels[0].k == 64


def test_a_bright_spot_is_ranked_where_it_is() -> None:
    model = small(working_size=96, scale_range=(0.1, 10.0))
    with torch.no_grad():  # the first level's maps are blurs of the frame
        for p in model.encoder[0].parameters():
            p.abs_()
    frame = np.full((50, 40), 0.1, np.float32)
    frame[30:33, 12:15] = 1
    (finest, *_) = count_top_k(model, frame)
    assert finest.scale == pytest.approx((50 / 96, 40 / 77))
    assert finest.counts.shape == (96, 80)  # 96x77, padded to multiples of 16
    rows, columns = np.nonzero(finest.counts)
    assert finest.k == 16
    places = np.stack([rows, columns], axis=1) * finest.scale
    assert (places > (27, 9)).all()
    assert (places < (36, 18)).all()


def test_tiles_rank_their_own_points() -> None:
    model = without_relu(small(tile=32, overlap=0))
    frame = noise(32, 64)
    whole = count_top_k(model, frame)
    halves = [count_top_k(model, frame[:, :32]), count_top_k(model, frame[:, 32:])]
    for i, level in enumerate(whole):
        np.testing.assert_array_equal(level.counts, np.hstack([half[i].counts for half in halves]))
        assert level.k == halves[0][i].k


def test_where_tiles_overlap_the_larger_count_is_kept() -> None:
    levels = count_top_k(small(tile=48, overlap=10), noise(40, 70))  # tiles of 40 x 48
    assert [level.counts.shape for level in levels] == [(48 // 2**i, 80 // 2**i) for i in range(5)]
    for level in levels:
        assert 0 < level.counts.max() <= level.channels


def test_networks_without_the_layer_have_no_levels() -> None:
    assert count_top_k(small(attention="none"), noise(16, 16)) == []
    assert count_top_k(small(attention="after"), noise(16, 16)) == []


def test_the_model_is_left_as_it_was() -> None:
    model = small().train()
    model.encoder[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert isinstance(count_top_k(model, noise(20, 30))[0], TopKLevel)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_go_when_the_network_fails() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    model = small()
    model.head = Broken()  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        count_top_k(model, noise(16, 16))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("frame", [np.zeros((1, 8, 8), np.float32), np.zeros((0, 8), np.float32)])
def test_frames_of_another_shape_are_refused(frame: Float) -> None:
    with pytest.raises(ValueError, match=r"frame must be finite, of shape \(H, W\)"):
        count_top_k(small(), frame)


def test_frames_with_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        count_top_k(small(), np.full((8, 8), np.nan, np.float32))
