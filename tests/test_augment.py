"""Training crops: what they hold, that they repeat, and that frame and mask stay together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from serank.datasets import Sample
from serank.frames import FrameSpec
from serank.train import Augmentation
from serank.train.augment import RandomCrops, random_crop

PLAIN: dict[str, Any] = {"scale": (1.0, 1.0), "blur": 0.0, "contrast": 0.0}


def scene(height: int = 90, width: int = 120, at: tuple[int, int] = (60, 20), size: int = 9) -> Sample:
    """Dark clutter with one bright disc, which is the target."""
    row, column = np.ogrid[:height, :width]
    mask = (row - at[0]) ** 2 + (column - at[1]) ** 2 <= (size / 2) ** 2
    frame = np.random.default_rng(height).uniform(0.1, 0.3, (height, width))
    frame[mask] = 0.9
    return Sample("scene", frame.astype(np.float32), mask)


def scaled_to(working_size: int | None) -> FrameSpec:
    return FrameSpec(working_size=working_size, scale_range=(1e-3, 1e3))


def draw(
    sample: Sample, count: int = 1, working_size: int | None = None, **arguments: Any
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    augmentation = Augmentation(**{"crop": 32, **arguments})
    return [random_crop(sample, augmentation, scaled_to(working_size), rng)[:2] for _ in range(count)]


@settings(max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    crop=st.integers(16, 70),
    low=st.floats(0.2, 1),
    high=st.floats(1, 4),
    working_size=st.none() | st.integers(1, 150),
    seed=st.integers(0, 2**32),
)
def test_shapes_types_and_ranges(
    height: int, width: int, crop: int, low: float, high: float, working_size: int | None, seed: int
) -> None:
    """Frames of any size, smaller than the crop too, give crops of the same kind."""
    sample = scene(height, width, (height // 2, width // 2), 3)
    crops = RandomCrops([sample], Augmentation(crop, (low, high), 0.5, 0.5, 1.0), scaled_to(working_size), seed)
    frame, mask, name = crops[0, 0]
    assert name == sample.name
    assert frame.shape == mask.shape == (1, crop, crop)
    assert frame.dtype == mask.dtype == torch.float32
    assert frame.is_contiguous()
    assert mask.is_contiguous()
    assert torch.isfinite(frame).all()
    assert 0 <= frame.min() <= frame.max() <= 1
    assert ((mask == 0) | (mask == 1)).all()


def test_same_seed_epoch_and_index_give_the_same_crop() -> None:
    samples = [scene(), scene(64, 64, (10, 50)), scene(40, 200, (20, 150))]
    first = RandomCrops(samples, Augmentation(crop=48), FrameSpec(), seed=7)
    second = RandomCrops(samples, Augmentation(crop=48), FrameSpec(), seed=7)
    assert len(first) == 3
    forwards = [first[0, i] for i in range(3)]
    backwards = {i: second[0, i] for i in (2, 0, 1, 0)}
    for i, (frame, mask, _) in enumerate(forwards):
        torch.testing.assert_close(frame, backwards[i][0], rtol=0, atol=0)
        torch.testing.assert_close(mask, backwards[i][1], rtol=0, atol=0)
    assert not torch.equal(second[5, 0][0], forwards[0][0])


def test_crops_differ_by_seed_epoch_and_index() -> None:
    samples = [scene()] * 4
    seen = set()
    for seed in range(3):
        crops = RandomCrops(samples, Augmentation(crop=32), FrameSpec(), seed)
        seen |= {crops[epoch, i][0].numpy().tobytes() for epoch in range(3) for i in range(4)}
    assert len(seen) == 36


def test_samples_are_left_as_they_were() -> None:
    sample = scene()
    before = sample.frame.copy(), sample.mask.copy()
    draw(sample, 20, contrast=1.0, blur=1.0)
    np.testing.assert_array_equal(sample.frame, before[0])
    np.testing.assert_array_equal(sample.mask, before[1])


@pytest.mark.parametrize("arguments", [{"scale": (1.0, 1.0)}, {"scale": (0.5, 2.0), "unscaled": 1.0}])
def test_crops_at_the_scale_of_detection_are_the_frame_s_own_pixels(arguments: dict[str, Any]) -> None:
    sample = scene(90, 120)
    views = np.lib.stride_tricks.sliding_window_view(sample.frame, (32, 32)).reshape(-1, 32, 32)
    masks = np.lib.stride_tricks.sliding_window_view(sample.mask, (32, 32)).reshape(-1, 32, 32)
    corners = set()
    for frame, mask in draw(sample, 40, blur=0.0, contrast=0.0, target_share=1.0, **arguments):
        turned = [np.rot90(f(frame), turn) for f in (np.asarray, np.transpose) for turn in range(4)]
        kept = [np.rot90(f(mask), turn) for f in (np.asarray, np.transpose) for turn in range(4)]
        ((which, place),) = {(i, j) for i, t in enumerate(turned) for j in np.flatnonzero((views == t).all((1, 2)))}
        assert (kept[which] == masks[place]).all()
        corners.add(place)
    assert len(corners) > 20


@pytest.mark.parametrize(("height", "width"), [(25, 30), (30, 25), (31, 31), (31, 90), (90, 25)])
def test_crops_of_small_frames_are_the_frame_s_own_pixels_too(height: int, width: int) -> None:
    """Also where the difference to the crop's side is odd; what lies outside mirrors the frame."""
    frame = np.random.default_rng(0).random((height, width), np.float32)
    mask = np.zeros((height, width), np.bool_)
    mask[12:15, 11:14] = True
    found = 0
    for crop, marked in draw(Sample("a", frame, mask), 20, blur=0.0, contrast=0.0, target_share=1.0, scale=(1.0, 1.0)):
        values, counts = np.unique(crop[marked > 0], return_counts=True)
        assert np.isin(values, frame[mask]).all()
        assert not np.isin(crop[marked == 0], frame[mask]).any()
        found += len(counts) == 9
    assert found > 5


def test_share_of_crops_that_are_not_scaled() -> None:
    sample = scene(120, 120, size=20)
    sizes = [mask.sum() for _, mask in draw(sample, 300, crop=96, target_share=1.0, scale=(1.5, 1.6), unscaled=0.4)]
    own = sample.mask.sum()
    assert 0.3 < np.mean([size <= own for size in sizes]) < 0.55  # some scaled ones lie partly outside


@pytest.mark.parametrize(
    ("height", "width", "at"),
    [(90, 120, (60, 20)), (300, 300, (0, 299)), (300, 300, (299, 0)), (20, 25, (10, 10)), (20, 300, (19, 299))],
)
@pytest.mark.parametrize("working_size", [None, 300])
def test_target_share_1_always_holds_a_target(
    height: int, width: int, at: tuple[int, int], working_size: int | None
) -> None:
    """Where frames are not scaled down, not a pixel of it may be lost."""
    sample = scene(height, width, at, 3)
    for _, mask in draw(sample, 60, target_share=1.0, working_size=working_size, scale=(1.0, 2.0)):
        assert mask.any()


@pytest.mark.parametrize("working_size", [None, 150])
def test_target_share_1_of_frames_scaled_down(working_size: int | None) -> None:
    """A target that only reaches into the crop's border by a pixel may vanish there, rarely."""
    crops = draw(scene(300, 300, (40, 250), 16), 300, target_share=1.0, working_size=working_size, scale=(0.5, 2.0))
    assert sum(mask.any() for _, mask in crops) >= 285


def test_target_share() -> None:
    """A target of 3 px in 200 x 200 lies in about 4% of crops of 32 px, and in all of them when asked for."""
    sample = scene(200, 200, (100, 100), 3)
    assert sample.mask.sum() == 9
    found = [sum(m.any() for _, m in draw(sample, 300, target_share=share, **PLAIN)) for share in (0.0, 0.5, 1.0)]
    assert 2 <= found[0] <= 30
    assert 125 <= found[1] <= 190
    assert found[2] == 300


def test_every_target_is_drawn() -> None:
    sample = scene(200, 200, (20, 20), 5)
    sample.mask[180:185, 180:185] = True
    sample.frame[180:185, 180:185] = 0.5
    brightest = [frame[mask > 0].max() for frame, mask in draw(sample, 60, target_share=1.0, **PLAIN)]
    assert 15 < sum(b > 0.8 for b in brightest) < 45


def test_target_lies_anywhere_in_the_crop() -> None:
    crops = draw(scene(200, 200, (100, 100), 3), 300, target_share=1.0, **PLAIN)
    centres = np.array([ndimage.center_of_mass(mask) for _, mask in crops if mask.any()])
    assert (centres.min(axis=0) < 4).all()
    assert (centres.max(axis=0) > 27).all()


def test_frame_without_target() -> None:
    sample = scene()
    sample.mask[:] = False
    assert not any(mask.any() for _, mask in draw(sample, 30, target_share=1.0))


def test_plain_crops_are_pieces_of_the_frame() -> None:
    """Without scale, blur and contrast a crop of the frame's own size is one of its eight symmetries."""
    sample = scene(32, 32, (8, 12), 5)
    symmetries = [np.rot90(f, k) for f in (sample.frame, sample.frame.T) for k in range(4)]
    masks = [np.rot90(m, k) for m in (sample.mask, sample.mask.T) for k in range(4)]
    seen = set()
    for frame, mask in draw(sample, 120, **PLAIN):
        matches = [i for i in range(8) if np.allclose(frame, symmetries[i], atol=1e-6)]
        assert len(matches) == 1
        np.testing.assert_array_equal(mask, masks[matches[0]])
        seen.add(matches[0])
    assert seen == set(range(8))


def test_plain_crop_lies_inside_the_frame() -> None:
    """A frame larger than the crop is never mirrored: its marked border rows meet the crop's border only."""
    sample = scene(70, 50)
    sample.frame[:] = np.arange(70 * 50).reshape(70, 50) / 3500
    for frame, _ in draw(sample, 60, **PLAIN):
        # bilinear interpolation between pixels keeps the slopes of a plane, but for the outermost row and column
        inner = frame[1:-1, 1:-1]
        slopes = sorted(abs(np.diff(inner, axis=axis)).mean() for axis in (0, 1))
        np.testing.assert_allclose(slopes, [1 / 3500, 50 / 3500], rtol=0.01)
        for axis in (0, 1):
            step = np.diff(inner, axis=axis)
            assert (step > 0).all() or (step < 0).all()


def test_small_frame_is_mirrored() -> None:
    """What lies beyond the frame has its values, not a border of zeros that looks like an edge."""
    sample = scene(10, 14, (5, 5), 3)
    sample.frame[:] = 0.5
    sample.frame[sample.mask] = 0.9
    for frame, mask in draw(sample, 20, crop=64, **PLAIN):
        assert frame.min() > 0.499
        assert ndimage.label(mask)[1] > 4
        np.testing.assert_array_equal(frame > 0.7, mask == 1)


@pytest.mark.parametrize("working_size", [None, 60, 250])
@pytest.mark.parametrize(("height", "width"), [(90, 120), (300, 200), (40, 30)])
def test_frame_and_mask_stay_together(height: int, width: int, working_size: int | None) -> None:
    sample = scene(height, width, (height // 3, width // 2), 13)
    overlaps = []
    for frame, mask in draw(sample, 90, crop=64, target_share=1.0, contrast=0.1, working_size=working_size):
        if mask.sum() < 12 or (mask == 0).sum() < 200:
            continue  # too little of either to tell them apart by their values
        bright = frame > (frame.min() + frame.max()) / 2
        overlaps.append((bright & (mask == 1)).sum() / (bright | (mask == 1)).sum())
    assert len(overlaps) > 15
    assert min(overlaps) > 0.6
    assert np.mean(overlaps) > 0.85


@pytest.mark.parametrize("scale", [(0.5, 2.0), (1.0, 1.0), (1.5, 3.0), (0.25, 0.5)])
@pytest.mark.parametrize("working_size", [None, 300])
def test_scale_range(scale: tuple[float, float], working_size: int | None) -> None:
    """The square root of the target's area grows with the scale; drawn evenly in its logarithm."""
    sample = scene(400, 400, (200, 200), 41)
    crops = draw(sample, 80, crop=320, target_share=1.0, scale=scale, working_size=working_size)
    inside = [m for _, m in crops if not (m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any())]
    ratio = 1 if working_size is None else working_size / 400
    # frames smaller than the window are mirrored, with their targets
    factors = np.array([math.sqrt(m.sum() / ndimage.label(m)[1] / sample.mask.sum()) for m in inside]) / ratio
    assert len(factors) > 10
    assert factors.min() > 0.94 * scale[0]
    assert factors.max() < 1.06 * scale[1]
    if scale == (0.5, 2.0):
        assert factors.min() < 0.65
        assert factors.max() > 1.5
        assert 0.3 < np.mean(factors < 1) < 0.75


def test_training_scales_a_frame_as_detection_does() -> None:
    # the target's size says the scale: a frame of 400 px is not shrunk to 100 px, but at most by half
    sample = scene(400, 400, (200, 200), 40)
    spec = FrameSpec(working_size=100)
    assert spec.working_shape(400, 400) == (200, 200)
    augmentation = Augmentation(crop=64, target_share=1.0, **PLAIN)
    crops = RandomCrops([sample], augmentation, spec)
    areas = [float(crops[epoch, 0][1].sum()) for epoch in range(20)]
    assert max(areas) == pytest.approx(sample.mask.sum() / 4, rel=0.1)


def test_working_size_makes_frames_of_any_size_alike() -> None:
    areas = []
    for factor in (1, 2, 4):
        sample = scene(64 * factor, 64 * factor, (32 * factor, 32 * factor), 12 * factor)
        _, mask = draw(sample, crop=128, working_size=128, **PLAIN)[0]
        areas.append(mask.sum())
    assert max(areas) < 1.15 * min(areas)


def test_blur() -> None:
    sample = scene()
    rough = [np.abs(np.diff(f)).mean() for f, _ in draw(sample, 40, scale=(1, 1), blur=0, contrast=0, target_share=0)]
    blurred = [np.abs(np.diff(f)).mean() for f, _ in draw(sample, 40, scale=(1, 1), blur=1, contrast=0, target_share=0)]
    assert np.mean(blurred) < 0.85 * np.mean(rough)


def test_contrast() -> None:
    sample = scene()
    sample.frame[:] = 0.5
    plain = [f.mean() for f, _ in draw(sample, 50, contrast=0.0)]
    changed = [f.mean() for f, _ in draw(sample, 200, contrast=0.2)]
    np.testing.assert_allclose(plain, 0.5, atol=1e-6)
    # 0.5 (1 +- 0.2) +- 0.1
    assert 0.3 <= min(changed) < 0.36
    assert 0.64 < max(changed) <= 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 15}, "crop must be >= 16; got 15"),
        ({"scale": (0, 1)}, r"scale must be a range \(low, high\) with 0 < low <= high; got \(0\.0, 1\.0\)"),
        ({"scale": (2, 1)}, "scale must be a range"),
        ({"scale": (math.nan, 1)}, "scale must be a range"),
        ({"scale": (1, math.inf)}, "scale must be a range"),
        ({"target_share": 1.1}, r"target_share must lie in \[0, 1\]; got 1.1"),
        ({"target_share": -0.1}, "target_share must lie"),
        ({"blur": math.nan}, "blur must lie"),
        ({"contrast": 2}, "contrast must lie"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**arguments)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        RandomCrops([scene()], Augmentation(), FrameSpec(), seed=-1)[0, 0]


@pytest.mark.parametrize("size", [1, 2])
def test_targets_do_not_vanish_from_a_shrunk_mask(size: int) -> None:
    sample = scene(160, 160, (80, 80), size)
    assert sample.mask.sum() == {1: 1, 2: 5}[size]
    for _, mask in draw(sample, 40, crop=64, target_share=1.0, scale=(0.3, 0.5), blur=0.0, contrast=0.0):
        assert 1 <= mask.sum() <= 2
        assert mask[mask > 0].min() == 1
