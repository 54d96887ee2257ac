"""Effects of sensors on training crops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serank.datasets import Sample
from serank.frames import FrameSpec
from serank.frames.scaling import UNIT_CONTRAST, UNIT_MEDIAN, location_contrast
from serank.train import Augmentation
from serank.train.augment import random_crop
from serank.train.sensor import EFFECTS, add_sensor_effects

Float = NDArray[np.float32]
SPREAD = 0.05


def scene(seed: int = 0) -> tuple[Float, Float]:
    """Smooth clutter of spread 0.05 about 0.4 and the mask of a target in its middle."""
    rng = np.random.default_rng(seed)
    frame = (0.4 + 0.1 * np.sin(np.arange(96) / 7)[:, None] * np.cos(np.arange(96) / 9)[None]).astype(np.float32)
    mask = np.zeros((96, 96), np.float32)
    mask[46:50, 46:50] = 1
    return frame + rng.normal(0, 1e-4, frame.shape).astype(np.float32), mask


def with_effect(seed: int, **shares: float) -> tuple[Float, Float, Float]:
    frame, mask = scene(seed)
    return frame, mask, add_sensor_effects(frame, mask, shares, SPREAD, np.random.default_rng(seed))


def test_no_effect_leaves_frame_and_random_numbers_alone() -> None:
    frame, mask = scene()
    rng = np.random.default_rng(3)
    assert np.array_equal(add_sensor_effects(frame, mask, {}, SPREAD, rng), frame)
    assert rng.random() == np.random.default_rng(3).random()


@pytest.mark.parametrize("effect", EFFECTS)
def test_effect_occurs_in_its_share_of_crops(effect: str) -> None:
    frame, mask = scene()
    rng = np.random.default_rng(1)
    crops = (add_sensor_effects(frame, mask, {effect: 0.3}, SPREAD, rng) for _ in range(300))
    changed = [not np.array_equal(crop, frame) for crop in crops]
    # stripes of rows come in half as many crops on top; a hot region over the target is left out
    least, most = {"stripes": (0.3, 0.5), "hot_region": (0.15, 0.38)}.get(effect, (0.22, 0.38))
    assert least <= np.mean(changed) <= most


def test_noise_is_of_single_pixels_and_stripes_are_of_columns() -> None:
    frame, _, noisy = with_effect(1, noise=1.0)
    assert 0 < (noisy - frame).std() < 0.3 * SPREAD * 1.1
    frame, _, striped = with_effect(6, stripes=1.0)
    added = striped - frame
    rows, columns = added - added.mean(0), added - added.mean(1, keepdims=True)
    assert min(np.abs(rows - rows.mean(1, keepdims=True)).max(), np.abs(columns).max()) < 1e-5


def test_dead_pixels_are_few_and_far_outside() -> None:
    frame, _, dead = with_effect(2, dead_pixels=1.0)
    changed = dead != frame
    assert 0 < changed.mean() <= 0.003
    assert (np.abs(dead - np.median(frame))[changed] > 11 * SPREAD).all()


def test_dead_lines_are_whole() -> None:
    frame, _, dead = with_effect(3, dead_lines=1.0)
    changed = dead != frame
    rows, columns = changed.all(1).sum(), changed.all(0).sum()
    assert 1 <= max(rows, columns) <= 3
    assert min(rows, columns) == 0


def test_hot_region_never_touches_a_target() -> None:
    areas = []
    for seed in range(60):
        frame, mask, hot = with_effect(seed, hot_region=1.0)
        added = hot - frame
        areas.append((added > SPREAD).mean())
        if areas[-1]:
            assert np.abs(added[mask > 0]).max() < 0.03 * added.max()
    assert sum(area > 0.005 for area in areas) > 30


def test_saturation_cuts_the_brightest() -> None:
    frame, _, cut = with_effect(4, saturation=1.0)
    assert (cut <= frame).all()
    assert 0 < (cut < frame).mean() <= 0.031


def test_counts_map_a_crop_as_a_frame_of_unknown_range_is() -> None:
    frame, mask = scene()
    spec = FrameSpec(working_size=None)
    still: dict[str, Any] = {"scale": (1.0, 1.0), "blur": 0.0, "crop": 96}
    sample = Sample("scene", frame * 0.3 + 0.5, mask > 0)
    rng = np.random.default_rng(0)
    found = [location_contrast(random_crop(sample, Augmentation(counts=1.0, **still), spec, rng)[0]) for _ in range(40)]
    medians, contrasts = np.transpose(found)
    assert np.abs(medians - UNIT_MEDIAN).max() < 0.1 + 1e-3
    assert np.abs(np.log(contrasts / UNIT_CONTRAST)).max() < 0.35 + 0.05
    assert medians.std() > 0.03
    assert np.log(contrasts).std() > 0.1
