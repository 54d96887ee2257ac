"""One scene through data types, offsets, gains and defects: a network with `scaling="standard"` gets the same input."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serank.datasets.sample import RawSample, Sample
from serank.frames import FrameOptions, FramePreparer, FrameSpec
from serank.frames.preparation import unit_frame
from serank.inference.detections import find_detections

Array = NDArray[Any]
TARGET = (slice(40, 43), slice(60, 63))


def scene() -> NDArray[np.float64]:
    """8-bit grey, whole numbers: a sky with a gradient, noise and one target."""
    rng = np.random.default_rng(0)
    sky = 90 + np.linspace(0, 30, 96)[:, None] + rng.normal(0, 4, (96, 128))
    sky[TARGET] = 220
    return np.rint(sky).clip(0, 255)


GREY = scene()
COUNTS = np.rint(7000 + 6 * GREY).astype(np.uint16)
KELVIN = (273 + 0.1 * GREY).astype(np.float32)


def changed(array: Array, where: Any, value: float) -> Array:
    copy = array.copy()
    copy[where] = value
    return copy


def hot_disc(array: Array) -> Array:
    rows, columns = np.ogrid[:96, :128]
    return changed(array, np.hypot(rows - 20, columns - 100) < 4.4, 16000)


def dead_pixels(array: Array) -> Array:
    rng = np.random.default_rng(1)
    copy = array.copy()
    places = rng.choice(copy.size, 24, replace=False)
    copy.ravel()[places] = rng.choice([0, 16383], 24)
    return copy


CASES: list[tuple[str, Array]] = [
    ("bytes", GREY.astype(np.uint8)),
    ("unit floats", (GREY / 255).astype(np.float32)),
    ("unit floats, one a hair above 1", changed((GREY / 255).astype(np.float32), (0, 0), 1.0000001)),
    ("whole floats", GREY.astype(np.float64)),
    ("counts", COUNTS),
    ("counts as int32", COUNTS.astype(np.int32)),
    ("counts as floats", COUNTS.astype(np.float32)),
    ("low counts", np.rint(3 + 2 * GREY).astype(np.uint16)),
    ("kelvin", KELVIN),
    ("three channels", np.repeat(GREY[..., None], 3, 2).astype(np.uint8)),
]
DEFECTS: list[tuple[str, Array]] = [
    ("first row 65535", changed(COUNTS, 0, 65535)),
    ("first row 0", changed(COUNTS, 0, 0)),
    ("dead pixels", dead_pixels(COUNTS)),
    ("dead column", changed(COUNTS, (slice(None), 30), 0)),
    ("hot disc", hot_disc(COUNTS)),
    ("two rows of no data", changed(KELVIN, slice(-2, None), -9999)),
    ("letterbox", changed(COUNTS, (slice(None), slice(0, 5)), 0)),
]


def values(array: Array, **options: Any) -> NDArray[np.float32]:
    return FramePreparer(FrameSpec(scaling="standard"), FrameOptions(**options))(array).values


@pytest.mark.parametrize(("name", "array"), CASES, ids=[name for name, _ in CASES])
def test_containers_give_the_same_input(name: str, array: Array) -> None:
    z = values(array)
    expected = values(GREY.astype(np.uint8))
    z[0, 0] = expected[0, 0]  # of the float above 1
    np.testing.assert_allclose(z, expected, atol=5e-3)


@pytest.mark.parametrize(("name", "array"), DEFECTS, ids=[name for name, _ in DEFECTS])
def test_defects_hardly_change_the_rest(name: str, array: Array) -> None:
    z, expected = values(array), values(GREY.astype(np.uint8))
    untouched = array == (KELVIN if array.dtype == np.float32 else COUNTS)
    assert untouched.mean() > 0.95
    np.testing.assert_allclose(z[untouched], expected[untouched], atol=0.12 * np.abs(expected[untouched]).max())
    assert np.median(np.abs(z - expected)) < 0.15
    grey = unit_frame(array)
    assert grey[TARGET].min() > 0.9
    assert abs(np.median(grey) - 0.42) < 0.02


def test_black_hot_frames_are_turned_back() -> None:
    np.testing.assert_allclose(values(255 - GREY, polarity="black-hot"), values(GREY), atol=1e-6)
    unit = FramePreparer(FrameSpec(), FrameOptions(polarity="black-hot"))((255 - GREY).astype(np.uint8))
    np.testing.assert_allclose(unit.values, GREY / 255, atol=1e-6)


@pytest.mark.parametrize("no_data", [-9999, float("nan")])
def test_no_data_is_filled_and_hidden(no_data: float) -> None:
    array = changed(KELVIN, slice(-20, None), no_data)
    frame = FramePreparer(FrameSpec(scaling="standard"), FrameOptions(no_data=no_data))(array)
    unseen = np.zeros(KELVIN.shape, np.bool_)
    unseen[-20:] = True
    masked = np.ma.MaskedArray(KELVIN, unseen)
    assert frame.hidden is not None
    assert frame.hidden[-20:].all()
    assert not frame.hidden[:-20].any()
    np.testing.assert_array_equal(frame.values[-20:], np.repeat(frame.values[-21:-20], 20, 0))
    np.testing.assert_allclose(FramePreparer(FrameSpec(scaling="standard"))(masked).values, frame.values, atol=1e-6)
    found = find_detections(np.ones(KELVIN.shape, np.float32), frame.grey, hidden=frame.hidden)
    assert found.boxes.tolist() == [[0, 0, KELVIN.shape[1], KELVIN.shape[0] - 20]]
    assert found.probability[-20:].max() == 0


def test_ignored_regions_are_hidden_and_do_not_count() -> None:
    marked = changed(GREY.astype(np.uint8), (slice(0, 30), slice(0, 60)), 255)
    mask = np.zeros(GREY.shape, np.bool_)
    mask[:30, :60] = True
    by_box = FramePreparer(FrameSpec(scaling="standard"), FrameOptions(ignore=[[0, 0, 60, 30]]))(marked)
    by_mask = FramePreparer(FrameSpec(scaling="standard"), FrameOptions(ignore=mask))(marked)
    np.testing.assert_array_equal(by_box.values, by_mask.values)
    assert by_box.hidden is not None
    np.testing.assert_array_equal(by_box.hidden, mask)
    assert by_box.values[:30, :60].max() < 10


def test_value_range() -> None:
    frame = FramePreparer(FrameSpec(), FrameOptions(value_range=(7000, 7000 + 6 * 255)))(COUNTS)
    np.testing.assert_allclose(frame.values, GREY / 255, atol=1e-6)


def test_samples_of_counts_are_scaled_as_in_detection() -> None:
    spec = FrameSpec(0, 1, scaling="standard")
    sample = RawSample.of("a", unit_frame(COUNTS), GREY > 200, COUNTS)
    np.testing.assert_array_equal(sample.scaled(spec), values(COUNTS))
    eight = Sample("a", unit_frame(GREY.astype(np.uint8)), GREY > 200)
    np.testing.assert_allclose(eight.scaled(spec), values(GREY.astype(np.uint8)), atol=1e-4)


def test_what_is_lost_is_said_once() -> None:
    prepare = FramePreparer(FrameSpec())
    with pytest.warns(UserWarning, match=r"constant, nothing can be found"):
        frame = prepare(np.full((8, 8), 7, np.uint8))
    assert frame.hidden is not None
    assert frame.hidden.all()
    with pytest.warns(UserWarning, match=r"lie in .*% of the range.*pass value_range="):
        prepare((100 + GREY / 60).astype(np.uint8))
    with pytest.warns(UserWarning, match="false colour"):
        prepare(np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(np.full((8, 8), 7, np.uint8))


@pytest.mark.parametrize("palette", ["inferno", "jet", "turbo", "hot"])
def test_false_colour_is_turned_back(palette: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    colours = matplotlib.colormaps[palette](GREY.astype(np.uint8), bytes=True)[..., :3]
    for name in ("auto", palette):
        frame = FramePreparer(FrameSpec(), FrameOptions(palette=name))(colours)
        assert np.abs(frame.values * 255 - GREY).max() <= 2
