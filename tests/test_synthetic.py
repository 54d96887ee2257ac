"""Synthetic scenes and the sample frames made from them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from serank.datasets import Sample
from serank.synthetic import BACKGROUNDS, MASK_FRACTION, Scene, SyntheticScenes, make_scene

EXAMPLES = Path(__file__).parent.parent / "examples"
EIGHT_CONNECTED = np.ones((3, 3))


def regions(mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Centroids (x, y) of the mask's regions."""
    labels, count = ndimage.label(mask, EIGHT_CONNECTED)
    centres = ndimage.center_of_mass(mask, labels, range(1, count + 1))
    return [(x, y) for y, x in centres]


def nearest(mask: NDArray[np.bool_], x: float, y: float) -> float:
    return min(float(np.hypot(x - u, y - v)) for u, v in regions(mask))


def same(a: Scene | Sample, b: Scene | Sample) -> bool:
    return np.array_equal(a.frame, b.frame) and np.array_equal(a.mask, b.mask)


def test_a_scene_is_what_it_says() -> None:
    scene = make_scene(120, 90, targets=2, seed=3)
    assert scene.frame.shape == scene.mask.shape == (120, 90)
    assert scene.frame.dtype == np.float32
    assert scene.mask.dtype == np.bool_
    assert len(scene.targets) == len(regions(scene.mask)) == 2


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_seed_alone_decides(background: str) -> None:
    scene = make_scene(64, 80, background=background, seed=5)
    again = make_scene(64, 80, background=background, seed=5)
    assert same(scene, again)
    assert scene.targets == again.targets
    assert same(scene, make_scene(64, 80, background=background, seed=np.random.default_rng(5)))
    assert not np.array_equal(scene.frame, make_scene(64, 80, background=background, seed=6).frame)


def test_a_generator_is_advanced_and_the_global_state_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    rng = np.random.default_rng(1)
    assert not same(make_scene(40, 40, seed=rng), make_scene(40, 40, seed=rng))
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_backgrounds_differ() -> None:
    frames = [make_scene(64, 64, background=b, seed=0).frame for b in BACKGROUNDS]
    assert all(not np.array_equal(a, b) for i, a in enumerate(frames) for b in frames[:i])


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 150),
    width=st.integers(16, 150),
    background=st.sampled_from(BACKGROUNDS),
    scr=st.floats(2, 40),
    noise=st.sampled_from([0.0, 0.003, 0.05]),
    seed=st.integers(0, 2**32),
)
def test_any_size_and_background(height: int, width: int, background: str, scr: float, noise: float, seed: int) -> None:
    scene = make_scene(height, width, background=background, scr=scr, noise=noise, seed=seed)
    assert scene.frame.shape == (height, width)
    assert np.isfinite(scene.frame).all()
    assert 0 <= scene.frame.min() <= scene.frame.max() <= 1
    (target,) = scene.targets
    assert nearest(scene.mask, target.x, target.y) < 1
    assert 1 <= target.size <= 5
    # 4 pixels when the smallest target is centred between them
    assert 1 <= scene.mask.sum() <= max(4, 1.6 * np.pi / 4 * target.size**2 + 4)
    # no pixel of the target lies on the border
    assert not scene.mask[[0, -1]].any()
    assert not scene.mask[:, [0, -1]].any()
    assert target.scr >= scr * (1 - 1e-9)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("scr", [3.0, 10.0, 25.0])
def test_the_measured_ratio_is_the_asked_one(background: str, scr: float) -> None:
    """By the documented formula, from a scene and the same scene without target."""
    met = 0
    for seed in range(8):
        kwargs: dict[str, Any] = {"background": background, "noise": 0.005, "seed": seed}
        scene = make_scene(96, 128, scr=scr, size=(1, 7), **kwargs)
        clutter = make_scene(96, 128, targets=0, **kwargs).frame
        (target,) = scene.targets
        reach = int(np.ceil(target.size)) + 8
        row, column = round(target.y), round(target.x)
        around = clutter[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        std = max(around.std(), 0.005)
        measured = (scene.frame[scene.mask].max() - around.mean()) / std
        if scene.frame.max() < 1:  # else the frame was divided by its maximum
            assert measured == pytest.approx(target.scr, rel=1e-3)
        assert target.scr >= scr - 1e-6
        met += abs(measured - scr) < 0.01 * scr
    assert met >= 7


def test_the_ratio_shows_in_the_frame_alone() -> None:
    """Peak against a ring of the finished frame, as someone without the clutter would measure."""
    for seed in range(10):
        scene = make_scene(100, 100, background="sky", scr=12, size=(2, 5), noise=0.01, seed=seed)
        near = ndimage.binary_dilation(scene.mask, iterations=4)
        ring = ndimage.binary_dilation(scene.mask, iterations=11) & ~near
        values = scene.frame[ring]
        assert (scene.frame[scene.mask].max() - values.mean()) / values.std() == pytest.approx(12, rel=0.25)


def test_a_ratio_out_of_reach_dims_the_frame_and_not_the_target() -> None:
    kwargs: dict[str, Any] = {"background": "cloud", "noise": 0.05, "seed": 2}
    scene = make_scene(64, 64, scr=60, **kwargs)
    clutter = make_scene(64, 64, targets=0, **kwargs).frame
    (target,) = scene.targets
    assert scene.frame.max() == pytest.approx(1)
    assert scene.frame[scene.mask].max() == scene.frame.max()
    gain = float(np.median(scene.frame[~scene.mask] / clutter[~scene.mask]))
    assert gain < 0.9
    assert (scene.frame - gain * clutter).max() == pytest.approx(target.amplitude, rel=1e-4)
    assert target.scr == pytest.approx(60, rel=1e-6)


def test_what_a_target_adds() -> None:
    """On quiet ground the added light is an ellipse of the stated size, amplitude, axes and mask."""
    kwargs: dict[str, Any] = {"background": "sky", "noise": 0.0, "seed": 4}
    scene = make_scene(80, 80, size=12, scr=40, **kwargs)
    (target,) = scene.targets
    added = scene.frame.astype(np.float64) - make_scene(80, 80, targets=0, **kwargs).frame
    assert added.min() > -1e-6
    assert added.max() == pytest.approx(target.amplitude, rel=1e-5)
    assert scene.mask.sum() == pytest.approx(np.pi * 36, rel=0.05)
    assert np.array_equal(scene.mask, added >= MASK_FRACTION * added.max())
    y, x = np.mgrid[:80, :80]
    weight = added / added.sum()
    assert (weight * x).sum() == pytest.approx(target.x, abs=0.02)
    assert (weight * y).sum() == pytest.approx(target.y, abs=0.02)
    dx, dy = x - target.x, y - target.y
    long = (weight * (dx * np.cos(target.angle) + dy * np.sin(target.angle)) ** 2).sum()
    short = (weight * (dy * np.cos(target.angle) - dx * np.sin(target.angle)) ** 2).sum()
    # a Gaussian of exponent -(u / a)^2 has the variance a^2 / 2
    assert long == pytest.approx(18 * target.aspect, rel=0.03)
    assert short == pytest.approx(18 / target.aspect, rel=0.03)


def test_small_targets_are_round_and_large_ones_differ() -> None:
    small = [make_scene(40, 40, size=2, seed=s).targets[0] for s in range(5)]
    large = [make_scene(40, 40, size=8, seed=s).targets[0] for s in range(5)]
    assert {t.aspect for t in small} == {1.0}
    assert len({t.aspect for t in large}) == 5
    assert all(1 <= t.aspect <= 1.6 for t in large)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 8))
def test_targets_keep_apart(seed: int, count: int) -> None:
    scene = make_scene(100, 120, targets=count, size=(1, 6), seed=seed)
    assert len(scene.targets) == len(regions(scene.mask)) == count
    for i, a in enumerate(scene.targets):
        assert nearest(scene.mask, a.x, a.y) < 1
        for b in scene.targets[:i]:
            assert np.hypot(a.x - b.x, a.y - b.y) > a.size + b.size + 2


def test_a_range_of_counts_is_drawn_with_both_ends() -> None:
    counts = {len(make_scene(64, 64, targets=(0, 2), seed=s).targets) for s in range(30)}
    assert counts == {0, 1, 2}


def test_no_targets() -> None:
    scene = make_scene(50, 60, targets=0)
    assert scene.targets == ()
    assert not scene.mask.any()
    assert 0 <= scene.frame.min() <= scene.frame.max() <= 1


def test_the_noise_has_its_strength() -> None:
    kwargs: dict[str, Any] = {"background": "sky", "targets": 0, "seed": 1}
    noisy, clean = (make_scene(128, 128, noise=n, **kwargs).frame for n in (0.02, 0.0))
    assert (noisy - clean).std() == pytest.approx(0.02, rel=0.03)
    assert abs((noisy - clean).mean()) < 0.001


def test_blur_softens_the_background() -> None:
    sharp, soft = (make_scene(128, 128, background="ground", targets=0, noise=0, blur=b, seed=2).frame for b in (0, 2))
    assert np.abs(np.diff(soft)).mean() < 0.7 * np.abs(np.diff(sharp)).mean()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_brightness_is_that_of_real_frames(background: str) -> None:
    """Means of SIRST's frames: 5% below 0.19, 5% above 0.73."""
    frames = [make_scene(96, 128, background=background, targets=0, seed=s).frame for s in range(12)]
    means = [float(f.mean()) for f in frames]
    assert min(means) > 0.15
    assert max(means) < 0.75
    assert max(means) - min(means) > 0.05
    assert all(0.005 < f.std() < 0.3 for f in frames)


# Areas.


def areas(mask: NDArray[np.bool_]) -> list[int]:
    labels, count = ndimage.label(mask, EIGHT_CONNECTED)
    return [int(a) for a in ndimage.sum_labels(mask, labels, range(1, count + 1))]


def test_sizes_give_areas_from_1_to_beyond_80_px() -> None:
    seen: dict[float, list[int]] = {}
    for size in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.1, 12.0):
        seen[size] = [a for seed in range(8) for a in areas(make_scene(96, 96, size=size, targets=3, seed=seed).mask)]
        if size >= 3:  # the mean, since a target's area depends on how it lies between the pixels
            assert np.mean(seen[size]) == pytest.approx(np.pi / 4 * size**2, rel=0.1)
    assert min(seen[1.0]) == min(seen[1.5]) == 1
    assert max(seen[1.0]) <= 4
    assert 76 <= min(seen[10.1]) <= 80 <= max(seen[10.1])
    assert min(seen[12.0]) > 100


def test_sizes_drawn_evenly_in_their_logarithm() -> None:
    drawn = [
        t.size for s in range(60) for t in make_scene(96, 96, targets=5, size=(1.5, 12), sizes="log", seed=s).targets
    ]
    share = np.log(np.asarray(drawn) / 1.5) / np.log(8)
    assert share.min() >= 0
    assert share.max() <= 1
    # 300 draws; the largest gap to an even distribution stays below 0.1 but for one seed in 200 (Kolmogorov)
    assert np.abs(np.sort(share) - np.linspace(0, 1, len(share))).max() < 0.1
    assert np.median(drawn) < 5


# The sensor.

QUIET: dict[str, Any] = {"background": "sky", "targets": 0, "noise": 0.0, "seed": 3}


def added(height: int = 200, width: int = 240, **kwargs: float) -> NDArray[np.float64]:
    """What a sensor's fault adds to a scene, in float64."""
    clean = make_scene(height, width, **QUIET).frame.astype(np.float64)
    assert 0.05 < clean.min() < clean.max() < 0.95  # so that nothing is clipped
    return make_scene(height, width, **{**QUIET, **kwargs}).frame - clean


def test_stripes_are_offsets_of_columns_and_rows() -> None:
    pattern = added(stripes=0.01)
    columns, rows = pattern.mean(axis=0), pattern.mean(axis=1)
    rest = pattern - columns - rows[:, None] + pattern.mean()
    assert np.abs(rest).max() < 1e-6
    assert columns.std() == pytest.approx(0.01, rel=0.15)
    assert rows.std() == pytest.approx(0.005, rel=0.15)
    assert abs(np.corrcoef(columns[1:], columns[:-1])[0, 1]) < 0.2


def test_shading_is_smooth_and_has_its_strength() -> None:
    field = added(shading=0.03)
    assert field.std() == pytest.approx(0.03, rel=1e-3)
    assert abs(field.mean()) < 1e-6
    assert max(np.abs(np.diff(field, axis=a)).max() for a in (0, 1)) < 0.005


def test_shot_noise_grows_with_the_level() -> None:
    kwargs: dict[str, Any] = {"background": "cloud", "targets": 0, "noise": 0.0, "seed": 7}
    clean = make_scene(300, 300, **kwargs).frame
    noise = make_scene(300, 300, shot=0.05, **kwargs).frame.astype(np.float64) - clean
    order = np.argsort(clean, axis=None)
    for part in (order[:20000], order[-20000:]):
        assert noise.ravel()[part].std() == pytest.approx(0.05 * np.sqrt(clean.ravel()[part].mean()), rel=0.04)
    assert clean.max() > 2 * clean.min()


def test_defects_are_single_pixels_that_are_no_targets() -> None:
    kwargs: dict[str, Any] = {"background": "sky", "targets": (1, 4), "size": (1, 9), "noise": 0.003}
    dead = hot = 0
    for seed in range(12):
        clean = make_scene(128, 128, seed=seed, **kwargs)
        scene = make_scene(128, 128, seed=seed, defects=0.003, **kwargs)
        assert np.array_equal(scene.mask, clean.mask)
        assert scene.targets == clean.targets
        moved = scene.frame.astype(np.float64) - clean.frame
        changed = moved != 0
        assert 20 < changed.sum() < 90  # 49 expected
        assert not (changed & ndimage.binary_dilation(scene.mask, EIGHT_CONNECTED, iterations=2)).any()
        room = np.where(moved > 0, 1 - clean.frame, clean.frame)[changed]
        assert (np.abs(moved[changed]) >= 0.3 * room - 1e-6).all()
        assert (np.abs(moved[changed]) <= room + 1e-6).all()
        dead, hot = dead + int((moved < 0).sum()), hot + int((moved > 0).sum())
    assert 0.4 < dead / (dead + hot) < 0.6


def test_a_real_target_lights_its_neighbours_and_a_hot_pixel_does_not() -> None:
    """What tells the smallest targets from defects."""
    for seed in range(20):
        scene = make_scene(48, 48, background="sky", noise=0, size=1.5, scr=20, seed=seed)
        clean = make_scene(48, 48, background="sky", noise=0, targets=0, seed=seed)
        (target,) = scene.targets
        light = np.sort((scene.frame.astype(np.float64) - clean.frame).ravel())[::-1]
        assert light[1] > 0.15 * target.amplitude


def test_what_is_off_draws_nothing() -> None:
    """Scenes stay what they were in release 0.1.0, here to 6 bits, whose steps are far from rounding errors."""
    digest = hashlib.sha256()
    for background in BACKGROUNDS:
        scene = make_scene(48, 64, background=background, targets=(1, 3), size=(1, 6), seed=11)
        digest.update(np.rint(scene.frame * 64).astype(np.uint8).tobytes() + scene.mask.tobytes())
    assert digest.hexdigest() == "3ad52280aac47ea494ad539add0efd2ee836d9b7edcc5a6f90200bee200ff92b"


def test_samples_do_not_depend_on_the_order_of_access() -> None:
    scenes = SyntheticScenes(6, 48, 64, seed=9)
    forward = [scenes[i] for i in range(6)]
    again = SyntheticScenes(20, 48, 64, seed=9)
    for i in (5, 0, 3, 3, 1):
        assert same(again[i], forward[i])
        assert again[i].name == forward[i].name
    assert all(not np.array_equal(a.frame, b.frame) for i, a in enumerate(forward) for b in forward[:i])
    assert not same(SyntheticScenes(6, 48, 64, seed=10)[0], forward[0])


def test_it_is_a_sequence_of_samples() -> None:
    scenes = SyntheticScenes(12, 32, 40, targets=(1, 2))
    assert len(scenes) == len(list(scenes)) == 12
    assert same(scenes[-1], scenes[11])
    for index in (12, -13):
        with pytest.raises(IndexError):
            scenes[index]
    for sample in scenes:
        assert isinstance(sample, Sample)
        assert sample.frame.shape == sample.mask.shape == (32, 40)
        assert sample.frame.dtype == np.float32
        assert sample.mask.dtype == np.bool_
        assert 1 <= len(regions(sample.mask)) <= 2
    assert len({s.name for s in scenes}) == 12


def test_backgrounds_and_empty_share_are_drawn() -> None:
    scenes = SyntheticScenes(60, 32, 32, background=("sky", "sea"), empty=0.5, seed=1)
    names = [s.name for s in scenes]
    assert {n.split("_")[0] for n in names} == {"sky", "sea"}
    assert 18 <= sum(not s.mask.any() for s in scenes) <= 42
    assert not any(s.mask.any() for s in SyntheticScenes(5, 32, 32, empty=1.0))
    assert {s.name.split("_")[0] for s in SyntheticScenes(5, 32, 32, background="ground")} == {"ground"}


BAD = [
    ({"height": 15}, "height"),
    ({"width": 20.5}, "width"),
    ({"background": "space"}, "background.*cloud.*space"),
    ({"targets": -1}, "targets"),
    ({"targets": (3, 1)}, "targets"),
    ({"targets": 1.5}, "targets"),
    ({"targets": "two"}, "targets"),
    ({"size": 0.5}, "size"),
    ({"size": (5, 2)}, "size"),
    ({"size": 30}, "size.*third"),
    ({"size": (1, 2, 3)}, "size"),
    ({"scr": 0}, "scr"),
    ({"scr": float("nan")}, "scr"),
    ({"scr": (3, float("inf"))}, "scr"),
    ({"noise": -0.1}, "noise"),
    ({"noise": float("nan")}, "noise"),
    ({"blur": 11}, "blur"),
    ({"seed": -1}, "seed"),
    ({"seed": 1.0}, "seed"),
    ({"sizes": "even "}, "sizes must be 'even' or 'log'"),
    ({"shot": -0.1}, "shot must be in"),
    ({"stripes": 0.6}, "stripes must be in"),
    ({"shading": float("nan")}, "shading must be in"),
    ({"defects": 0.2}, r"defects must be in \[0, 0.1\]"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_arguments_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scene(**{"height": 64, "width": 64, **bad})
    with pytest.raises(ValueError, match=message):
        SyntheticScenes(**{"length": 4, "height": 64, "width": 64, **bad})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"length": 0}, "length"),
        ({"length": 2.0}, "length"),
        ({"empty": 1.1}, "empty"),
        ({"background": ()}, "background"),
        ({"background": ("sky", "space")}, "background.*space"),
        ({"seed": np.random.default_rng(0)}, "seed"),
    ],
)
def test_bad_arguments_of_the_data_set_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticScenes(**{"length": 4, "height": 64, "width": 64, **bad})


def test_too_many_targets_say_how_many_fit() -> None:
    with pytest.raises(ValueError, match=r"targets: only \d of 50 fit into 32 x 32"):
        make_scene(32, 32, targets=50, size=5)


def test_a_data_set_passes_everything_on() -> None:
    kwargs: dict[str, Any] = {"sizes": "log", "size": (1.5, 9), "scr": (5, 9), "noise": 0.02, "blur": 1.1}
    kwargs |= {"shot": 0.01, "stripes": 0.01, "shading": 0.02, "defects": 0.001}
    scenes = SyntheticScenes(3, 64, 72, background="sea", targets=2, seed=4, **kwargs)
    rng = np.random.default_rng((4, 1))
    rng.choice(["sea"])
    rng.uniform()  # whether the sample is empty
    assert same(scenes[1], make_scene(64, 72, background="sea", targets=2, seed=rng, **kwargs))


@pytest.fixture(scope="module")
def make_frames() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_frames", EXAMPLES / "make_frames.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(make_frames: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as the command writes it."""
    folder = tmp_path_factory.mktemp("made") / "frames"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_frames.py", "--output", str(folder)])
        make_frames.main()
    return folder


def test_the_frames_in_the_repository_are_what_the_code_makes(made: Path) -> None:
    stored = EXAMPLES / "frames"
    names = sorted(p.name for p in made.iterdir())
    assert names == sorted(p.name for p in stored.iterdir())
    assert len(names) == 6
    assert json.loads(made.with_suffix(".json").read_text()) == json.loads(stored.with_suffix(".json").read_text())
    for name in names:
        with Image.open(made / name) as image, Image.open(stored / name) as kept:
            assert image.mode == kept.mode
            # another library version may round a pixel the other way
            difference = np.asarray(image, np.int64) - np.asarray(kept, np.int64)
        assert np.abs(difference).max() <= 1
    assert sum(p.stat().st_size for p in stored.iterdir()) < 3_000_000


def test_the_sample_frames_hold_their_targets(make_frames: ModuleType, made: Path) -> None:
    listed = json.loads(made.with_suffix(".json").read_text())["frames"]
    assert [f["file"] for f in listed] == [spec.name for spec in make_frames.FRAMES]
    assert {(f["width"], f["height"]) for f in listed} >= {(1280, 1024), (1024, 1024), (256, 256)}
    modes = set()
    for entry in listed:
        with Image.open(made / entry["file"]) as image:
            assert image.size == (entry["width"], entry["height"])
            modes.add(image.mode)
            pixels = np.asarray(image, np.float64)
        assert 1 <= len(entry["targets"]) <= 4
        for target in entry["targets"]:
            row, column = round(target["y"]), round(target["x"])
            radius = int(np.sqrt(target["area"]))
            around = pixels[max(0, row - 20) : row + 21, max(0, column - 20) : column + 21]
            core = pixels[row - radius : row + radius + 1, column - radius : column + radius + 1]
            assert core.max() == around.max()
            assert core.max() - np.median(around) > 0.1 * 255 * (1100 / 255 if image.mode == "I;16" else 1)
    assert modes == {"L", "I;16"}
