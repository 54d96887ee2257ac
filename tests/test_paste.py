"""Pasting targets: what is added, where, and where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serank.datasets import Sample
from serank.frames import FrameSpec
from serank.train import Augmentation
from serank.train.augment import RandomCrops
from serank.train.paste import paste_target

Float = NDArray[np.float32]


def blob(height: int = 64, width: int = 64, top: int = 30, left: int = 20, side: int = 4) -> tuple[Float, Float]:
    """A flat frame of 0.2 with one bright square target."""
    frame = np.full((height, width), 0.2, np.float32)
    mask = np.zeros((height, width), np.float32)
    mask[top : top + side, left : left + side] = 1
    frame[mask > 0] = 0.6
    return frame, mask


@pytest.mark.parametrize("seed", range(20))
def test_the_target_keeps_its_shape_and_contrast(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.3, 0.4, (80, 96)).astype(np.float32)
    frame, mask = before.copy(), np.zeros_like(before)
    assert paste_target(frame, mask, *blob(), rng)
    rows, columns = np.nonzero(mask)
    assert (int(np.ptp(rows)), int(np.ptp(columns)), len(rows)) == (3, 3, 16)
    added = frame - before
    inside = added[mask > 0]
    np.testing.assert_allclose(inside, inside[0], atol=1e-6)
    assert 0.4 * 0.4 - 1e-6 <= inside[0] <= 0.4 * 1.2 + 1e-6
    # the donor's background is flat, so nothing else changes
    np.testing.assert_allclose(added[mask == 0], 0, atol=1e-6)


def test_other_targets_stay_free() -> None:
    rng = np.random.default_rng(0)
    placed = 0
    for _ in range(200):
        frame, mask = blob(64, 64, 24, 24, 16)
        before = mask.copy()
        if paste_target(frame, mask, *blob(), rng):
            placed += 1
            assert mask.sum() == before.sum() + 16
            assert frame[24:40, 24:40].min() == np.float32(0.6)
    assert 20 < placed < 180  # a place is tried once


def test_only_one_of_several_targets_comes() -> None:
    donor, donor_mask = blob()
    donor[20:24, 44:48], donor_mask[20:24, 44:48] = 0.9, 1
    frame, mask = np.full((64, 64), 0.2, np.float32), np.zeros((64, 64), np.float32)
    assert paste_target(frame, mask, donor, donor_mask, np.random.default_rng(0))
    assert mask.sum() == 16


def close() -> tuple[Float, Float]:
    """Two targets, one pixel apart."""
    frame, mask = blob()
    frame[30:34, 25:29], mask[30:34, 25:29] = 0.6, 1
    return frame, mask


@pytest.mark.parametrize(
    "donor",
    [
        (np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)),
        blob(top=0),  # cut by the crop's side, perhaps
        blob(left=64 - 4),
        blob(side=30),  # too large for the frame
        close(),  # a part of the other one would come along
    ],
    ids=["none", "top", "right", "large", "close"],
)
def test_where_nothing_fits_nothing_changes(donor: tuple[Float, Float]) -> None:
    frame, mask = np.full((40, 40), 0.2, np.float32), np.zeros((40, 40), np.float32)
    assert not paste_target(frame, mask, *donor, np.random.default_rng(0))
    assert (frame == np.float32(0.2)).all()
    assert not mask.any()


def test_values_stay_in_range() -> None:
    donor, donor_mask = blob()
    donor[donor_mask > 0] = 1
    frame, mask = np.full((64, 64), 0.7, np.float32), np.zeros((64, 64), np.float32)
    assert paste_target(frame, mask, donor, donor_mask, np.random.default_rng(1))
    assert frame.max() == 1


@pytest.mark.parametrize(("level", "background", "target"), [(1.0, 0.2, 0.6), (0.9, 0.2, 1.0), (0.0, 0.8, 0.3)])
@pytest.mark.parametrize("seed", range(4))
def test_no_mask_where_the_range_cuts_the_target_off(level: float, background: float, target: float, seed: int) -> None:
    _, donor_mask = blob()
    donor = np.where(donor_mask > 0, target, background).astype(np.float32)
    frame, mask = np.full((64, 64), level, np.float32), np.zeros((64, 64), np.float32)
    assert not paste_target(frame, mask, donor, donor_mask, np.random.default_rng(seed))
    assert (frame == np.float32(level)).all()
    assert not mask.any()


def samples() -> list[Sample]:
    frame, mask = blob()
    return [Sample("with", frame, mask > 0), Sample("without", np.full((64, 64), 0.2, np.float32), mask > 1)]


def test_crops_of_empty_frames_get_targets() -> None:
    settings = Augmentation(crop=64, scale=(1, 1), blur=0, contrast=0, paste=1)
    crops = RandomCrops(samples(), settings, FrameSpec(), seed=0)
    masks = [crops[epoch, 1][1] for epoch in range(40)]
    assert 10 <= sum(bool(m.any()) for m in masks) < 40  # the donor may be the empty one
    once, again = crops[3, 1], crops[3, 1]
    assert once[2] == again[2] == "without"
    assert (once[0] == again[0]).all()
    assert (once[1] == again[1]).all()


def test_without_pasting_crops_are_as_ever() -> None:
    plain = RandomCrops(samples(), Augmentation(crop=64), FrameSpec(), seed=3)
    sometimes = RandomCrops(samples(), Augmentation(crop=64, paste=0.5), FrameSpec(), seed=3)
    same = [bool((plain[e, 0][0] == sometimes[e, 0][0]).all()) for e in range(40)]
    assert 10 < sum(same) < 40


def test_a_share_outside_its_range() -> None:
    with pytest.raises(ValueError, match=r"paste must lie in \[0, 1\]; got 2"):
        Augmentation(paste=2)
