"""Data sets made of others: NoisySIRST and the SIRST-AUG recipe, and writing them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from serank.datasets import FolderDataset, NoisySIRST, Sample, sirst_aug, write_folder
from serank.synthetic import SyntheticScenes

CORNERS = {"top-left": (0, 0), "top-right": (0, 1), "bottom-left": (1, 0), "bottom-right": (1, 1)}


def flat(level: float, shape: tuple[int, int] = (80, 90), name: str = "flat") -> Sample:
    mask = np.zeros(shape, np.bool_)
    mask[3:6, 4:6] = True
    return Sample(name, np.full(shape, level, np.float32), mask)


def same(a: Sample, b: Sample) -> bool:
    return a.name == b.name and np.array_equal(a.frame, b.frame) and np.array_equal(a.mask, b.mask)


# --- NoisySIRST ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [10, 20, 30, 2.5])
def test_noise_has_its_strength(sigma: float) -> None:
    noisy = NoisySIRST([flat(0.5, (200, 200))], sigma)[0]
    difference = 255 * (noisy.frame.astype(np.float64) - 0.5)
    assert difference.mean() == pytest.approx(0, abs=0.02 * sigma)
    # rounding to whole levels adds 1/12 to the variance, clipping at 4 sigma and more takes next to nothing
    assert difference.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.02)
    # white: neighbours have nothing to do with each other
    assert abs(np.mean(difference[:, 1:] * difference[:, :-1])) < 0.03 * sigma**2


@given(st.floats(0.01, 200), st.integers(0, 2**31), st.floats(0, 1, width=32))
def test_noisy_frames_are_8_bit_frames(sigma: float, seed: int, level: float) -> None:
    sample = flat(level, (9, 11))
    name, frame, mask, *_ = NoisySIRST([sample], sigma, seed)[0]
    assert name == "flat"
    assert frame.dtype == np.float32
    np.testing.assert_array_equal(frame, np.rint(255 * frame).astype(np.uint8) / np.float32(255))
    np.testing.assert_array_equal(mask, sample.mask)


def test_noise_depends_on_seed_and_index_alone() -> None:
    samples = [flat(0.5, name=str(i)) for i in range(5)]
    noisy = NoisySIRST(samples, 20, seed=3)
    forward = list(noisy)
    assert len(noisy) == len(forward) == 5
    for i in (4, 0, 2, 2, -1):
        assert same(noisy[i], forward[i])
    assert all(not np.array_equal(a.frame, b.frame) for i, a in enumerate(forward) for b in forward[:i])
    assert not np.array_equal(NoisySIRST(samples, 20, seed=4)[0].frame, forward[0].frame)
    with pytest.raises(IndexError):
        noisy[5]
    np.testing.assert_array_equal(samples[0].frame, np.float32(0.5))


def test_stronger_noise_is_the_same_noise() -> None:
    weak, strong = (NoisySIRST([flat(0.5)], sigma)[0].frame.astype(np.float64) - 0.5 for sigma in (10, 30))
    assert np.corrcoef(weak.ravel(), strong.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("sigma", [0, -10, float("nan"), float("inf")])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be > 0"):
        NoisySIRST([flat(0.5)], sigma)


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_bad_seed_of_noise(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seed must be (a whole number )?>= 0"):
        NoisySIRST([flat(0.5)], 10, seed)


# --- SIRST-AUG -------------------------------------------------------------------------------------------------------


def scene(shape: tuple[int, int], *targets: tuple[int, int], name: str = "scene") -> Sample:
    """Noise with single targets of 2 x 3 px, the top left pixel of each given; brightest of all there."""
    frame = np.random.default_rng(shape).uniform(0, 0.6, shape).astype(np.float32)
    mask = np.zeros(shape, np.bool_)
    for row, column in targets:
        mask[row : row + 2, column : column + 3] = True
    frame[mask] = 1
    return Sample(name, frame, mask)


def mirrored(array: NDArray[Any], row: int, column: int, size: int) -> NDArray[Any]:
    """A crop by plain padding."""
    pad = 4 * size
    return np.pad(array, pad, mode="symmetric")[row + pad : row + pad + size, column + pad : column + pad + size]


def test_five_crops_for_each_target() -> None:
    samples = [scene((70, 60), (10, 20), (40, 50), name="a"), flat(0.2), scene((50, 80), (5, 6), name="b")]
    samples[1].mask[:] = False
    crops = sirst_aug(samples, size=32, rotations=3)
    assert len(crops) == (2 + 1) * 5 * 3
    names = [crop.name for crop in crops]
    assert len(set(names)) == len(names)
    assert names[0] == "a_t0_top-left_r0"
    assert names[-1] == "b_t0_centre_r2"
    assert not any(name.startswith("flat") for name in names)
    assert len(sirst_aug(samples, size=32)) == 3 * 25


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(4, 90),
    width=st.integers(4, 90),
    size=st.integers(16, 64),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_unrotated_crops_are_exact(height: int, width: int, size: int, place: tuple[float, float]) -> None:
    """Mirrored at the border where they leave the frame; the target at its corner with 2 px to spare."""
    row, column = round(place[0] * (height - 2)), round(place[1] * (width - 3))
    sample = scene((height, width), (row, column))
    for crop in sirst_aug([sample], size=size, rotations=1):
        where = crop.name.split("_")[2]
        if where == "centre":
            top, left = row - size // 2, column + 1 - size // 2
        else:
            # the middle pixel is in the first row and the second column, the farthest one sqrt(2) px away
            bottom, right = CORNERS[where]
            top = row - (4 if not bottom else size - 1 - 4)
            left = column + 1 - (4 if not right else size - 1 - 4)
        np.testing.assert_array_equal(crop.frame, mirrored(sample.frame, top, left, size))
        np.testing.assert_array_equal(crop.mask, mirrored(sample.mask, top, left, size))
        assert crop.mask.sum() >= 6
        assert crop.frame.dtype == np.float32
        assert crop.mask.dtype == np.bool_


@pytest.mark.parametrize("target", [(40, 50), (0, 0), (88, 97)])
def test_every_crop_holds_its_target(target: tuple[int, int]) -> None:
    sample = scene((90, 100), target)
    crops = sirst_aug([sample], size=48, rotations=12, seed=5)
    for crop in crops:
        place = crop.name.split("_")[2]
        row, column = (24, 24) if place == "centre" else (4 + 39 * c for c in CORNERS[place])
        assert crop.mask[row, column]
        # frame and mask are turned together: the middle pixel is still the target's, and nothing else is as bright
        assert crop.frame[row, column] == pytest.approx(1)
        inside = crop.mask[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5]
        assert 3 <= inside.sum() <= (11 if target == (40, 50) else 60)
        assert crop.frame[~crop.mask].max() < 1
        assert crop.frame[crop.mask].min() >= 0.25
    turned = {crop.frame.tobytes() for crop in crops}
    assert len(turned) == len(crops)


def test_rotation_is_about_the_target_and_keeps_distances() -> None:
    """A second target 20 px from the first stays 20 px from it."""
    sample = scene((120, 120), (60, 60), (60, 80))
    angles = []
    for crop in sirst_aug([sample], size=64, rotations=20):
        if not crop.name.startswith("scene_t0_centre"):
            continue
        other = crop.mask.copy()
        other[27:38, 27:38] = False
        rows, columns = np.nonzero(other)
        dy, dx = rows.mean() - 32, columns.mean() - 32
        assert np.hypot(dy, dx) == pytest.approx(20, abs=1.5)
        angles.append(np.arctan2(dy, dx))
    assert len(angles) == 20
    assert angles[0] == pytest.approx(0, abs=0.1)
    assert np.ptp(angles) > 3


def test_crops_do_not_depend_on_the_order_of_access() -> None:
    samples = [scene((40, 40), (9, 9))]
    crops = sirst_aug(samples, size=24, seed=7)
    forward = list(crops)
    for i in (24, 3, 0, 3, -2):
        assert same(crops[i], forward[i])
    assert same(sirst_aug(samples, size=24, seed=7)[9], forward[9])
    assert not np.array_equal(sirst_aug(samples, size=24, seed=8)[1].frame, forward[1].frame)
    assert same(sirst_aug(samples, size=24, seed=8)[0], forward[0])
    with pytest.raises(IndexError):
        crops[25]


def test_a_target_larger_than_the_crop_is_in_the_middle() -> None:
    sample = scene((60, 60))
    sample.mask[10:50, 10:50] = True
    for crop in sirst_aug([sample], size=16):
        assert crop.mask.all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"size": 15}, "size must be >= 16"),
        ({"size": 32.0}, "size"),
        ({"rotations": 0}, "rotations must be >= 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_of_the_recipe(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sirst_aug([flat(0.5)], **bad)


def test_no_target_to_crop() -> None:
    with pytest.raises(ValueError, match="samples hold no target"):
        sirst_aug(SyntheticScenes(3, 32, 32, empty=1.0))


# --- writing ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    scenes = NoisySIRST(SyntheticScenes(4, 40, 50), 10)
    folder = write_folder(scenes, tmp_path / "noisy")
    assert folder == tmp_path / "noisy"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noisy"]
    assert sorted(p.name for p in folder.iterdir()) == ["images", "masks", "train.txt"]
    dataset = FolderDataset(folder, "train")
    assert len(dataset) == 4
    assert all(same(a, b) for a, b in zip(dataset, scenes, strict=True))
    with Image.open(folder / "masks" / f"{scenes[0].name}.png") as mask:
        assert mask.mode == "L"
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_several_splits_in_one_folder(tmp_path: Path) -> None:
    crops = sirst_aug([scene((40, 50), (9, 9))], size=32, rotations=2)
    (tmp_path / "aug").mkdir()
    folder = write_folder({"trainval": crops, "test": [flat(0.3)]}, str(tmp_path / "aug"))
    train, test = FolderDataset(folder, "trainval"), FolderDataset(folder, "test")
    assert train.names == [crop.name for crop in crops]
    assert test.names == ["flat"]
    for read, crop in zip(train, crops, strict=True):
        assert np.abs(read.frame - crop.frame).max() <= 0.5 / 255 + 1e-6
        np.testing.assert_array_equal(read.mask, crop.mask)


def test_folders_in_use_are_refused(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        with pytest.raises(FileExistsError, match=f"{name}: is not an empty folder"):
            write_folder([flat(0.3)], tmp_path / name)
    assert (tmp_path / "used" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="parent folder doesn't exist"):
        write_folder([flat(0.3)], tmp_path / "no" / "folder")


class Failing(Sequence[Sample]):
    """Fails at the second sample."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if index == 1:
            raise OSError(28, "No space left on device")
        return flat(0.1, name=str(index))


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_folder(Failing(), tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="No space left"):
        write_folder(Failing(), tmp_path / "folder")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\\b", "a\nb", "a ", "a.png", "C:x"])
def test_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="sample name"):
        write_folder([flat(0.3, name=name)], tmp_path / "folder")
    with pytest.raises(ValueError, match="split name"):
        write_folder([flat(0.3)], tmp_path / "folder", split=name)
    assert list(tmp_path.iterdir()) == []


def test_samples_to_write_must_be_there_and_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples is empty"):
        write_folder([], tmp_path / "folder")
    with pytest.raises(ValueError, match="two samples are called 'flat'"):
        write_folder({"train": [flat(0.1)], "val": [flat(0.2)]}, tmp_path / "folder")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_written_folders_have_the_usual_permissions(tmp_path: Path) -> None:
    folder = write_folder([flat(0.3)], tmp_path / "folder")
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- the shared data -------------------------------------------------------------------------------------------------


def test_recipe_on_the_shared_data(shared: Path) -> None:
    root = shared / "data" / "sirst"
    if not root.is_dir():
        pytest.skip(f"needs the frames of {root}")
    samples = list(FolderDataset(root, "val"))[:12]
    crops = sirst_aug(samples, rotations=2)
    for i in range(0, len(crops), 7):
        _, frame, mask, *_ = crops[i]
        assert frame.shape == mask.shape == (256, 256)
        assert mask.any()
        assert 0 <= frame.min() < frame.max() <= 1
