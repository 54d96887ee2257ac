"""Gaps between neighbouring targets, against a definition by distances, and their weight in the loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from serank.gaps import gaps
from serank.losses import bce_loss, deep_supervision_loss
from serank.train import Recipe


def two_squares(free: int, top: int = 8) -> Tensor:
    """A `(1, 1, 24, 32)` mask of two squares of 5 px side, `free` pixels apart."""
    mask = torch.zeros(1, 1, 24, 32)
    mask[..., top : top + 5, 6:11] = 1
    mask[..., top : top + 5, 11 + free : 16 + free] = 1
    return mask


def plain(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Background within 4.5 px of two targets, by pairs."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    near = [ndimage.distance_transform_edt(labels != i) <= 4.5 for i in range(1, count + 1)]
    found = np.zeros_like(mask)
    for a, b in itertools.combinations(near, 2):
        found |= a & b
    return found & ~mask


@pytest.mark.parametrize("seed", range(10))
def test_against_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((3, 1, 40, 30)) < 0.02
    found = gaps(torch.from_numpy(mask).float())
    assert found.shape == (3, 1, 40, 30)
    assert found.dtype == torch.float32
    assert 0 < found.mean() < 1
    for got, one in zip(found[:, 0].numpy(), mask[:, 0], strict=True):
        np.testing.assert_array_equal(got > 0, plain(one))


@pytest.mark.parametrize("top", [0, 8, 19])
def test_neighbours_have_one_and_distant_ones_have_none(top: int) -> None:
    assert gaps(two_squares(1, top))[0, 0, top : top + 5, 11].all()
    assert not gaps(two_squares(1, top))[two_squares(1, top) > 0].any()
    assert gaps(two_squares(7, top)).any()
    assert not gaps(two_squares(8, top)).any()


def test_one_target_or_none_has_none() -> None:
    mask = two_squares(0)  # they touch
    assert not gaps(mask).any()
    assert not gaps(torch.zeros_like(mask)).any()


def test_weight_counts_gaps_more() -> None:
    target = two_squares(2)
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bare, plain_loss, weighed = (
        deep_supervision_loss([logits], target, pixel_weight=pixel, gap_weight=gap)
        for pixel, gap in ((0.0, 0.0), (3.0, 0.0), (3.0, 7.0))
    )
    gap = gaps(target).bool()
    extra = 7.0 * torch.nn.functional.softplus(logits[gap]).sum() / target.numel()
    assert float(weighed - plain_loss) == pytest.approx(3.0 * float(extra), rel=1e-6)
    assert float(plain_loss - bare) == pytest.approx(3.0 * float(bce_loss(logits, target)), rel=1e-6)


def test_weight_without_a_pixel_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gap_weight .* needs pixel_weight > 0; got 2"):
        deep_supervision_loss([torch.zeros(1, 1, 4, 4)], torch.zeros(1, 1, 4, 4), gap_weight=2.0)
    with pytest.raises(ValueError, match=r"gap_weight .* needs pixel_weight > 0; got 2"):
        Recipe(gap_weight=2.0)
    with pytest.raises(ValueError, match="gap_weight must be >= 0 and finite; got -1"):
        Recipe(gap_weight=-1.0, pixel_weight=1.0)
