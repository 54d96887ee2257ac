"""One scene through data types, byte orders, offsets, gains, defects and containers: the same input and detections."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank import SeRankDet
from serank.frames import FrameOptions, FramePreparer, FrameSpec
from serank.frames.scaling import location_contrast
from serank.inference import InferenceNetwork
from serank.inference.detections import find_detections

Array = NDArray[Any]
Float = NDArray[np.float32]
EXAMPLES = Path(__file__).parents[1] / "examples" / "frames"
TARGET = (slice(40, 43), slice(60, 63))


def scene() -> Array:
    """8-bit grey, whole numbers: a sky with a gradient, noise and one target."""
    rng = np.random.default_rng(0)
    sky = 90 + np.linspace(0, 30, 96)[:, None] + rng.normal(0, 4, (96, 128))
    sky[TARGET] = 220
    return np.asarray(np.rint(sky).clip(0, 255), np.uint8)


GREY = scene()

RANGES: dict[str, tuple[str, float, float]] = {
    "12-bit counts": ("<u2", 1000, 10),
    "14-bit counts": ("<u2", 7000, 6),
    "14-bit counts, big-endian": (">u2", 7000, 6),
    "16-bit counts": ("<u2", 2000, 200),
    "low counts": ("<u2", 3, 2),
    "signed counts": ("<i2", -3000, 7),
    "signed counts, big-endian": (">i2", -3000, 7),
    "wide counts": ("<i4", 7000, 6),
    "wide counts, big-endian": (">i4", -70000, 60),
    "unsigned wide counts": ("<u4", 2**31, 1000),
    "64-bit counts": ("<i8", 10**9, 12),
    "counts as floats": ("<f4", 7000, 6),
    "counts as floats, big-endian": (">f4", 7000, 6),
    "half floats, celsius": ("<f2", -20, 0.25),
    "kelvin": ("<f4", 273, 0.1),
    "kelvin, narrow": ("<f4", 273, 0.01),
    "kelvin, double": ("<f8", 273, 0.1),
    "kelvin, double, big-endian": (">f8", 273, 0.1),
    "celsius below zero": ("<f4", -40, 0.1),
    "radiance": ("<f8", 5, 0.03),
}
"""Versions of a scene that 8 bits don't hold: data type, offset and gain of its grey levels."""


def recast(grey: Array, version: str) -> Array:
    code, offset, gain = RANGES[version]
    return (offset + gain * grey.astype(np.float64)).astype(code)


def changed(array: Array, where: Any, value: float) -> Array:
    copy = array.copy()
    copy[where] = value
    return copy


def hottest(array: Array) -> float:
    """Far above every value, within the type."""
    return float(array.astype(np.float64).max() + 4 * np.ptp(array.astype(np.float64)))


def coldest(array: Array) -> float:
    limits = np.finfo if array.dtype.kind == "f" else np.iinfo
    far = float(array.astype(np.float64).min() - 4 * np.ptp(array.astype(np.float64)))
    return max(far, float(limits(array.dtype).min))


def hot_disc(array: Array) -> Array:
    """A disc of 0.5% of the pixels, such as an engine."""
    rows, columns = np.ogrid[: array.shape[0], : array.shape[1]]
    disc = np.hypot(rows - array.shape[0] * 0.2, columns - array.shape[1] * 0.15) < np.sqrt(0.005 * array.size / np.pi)
    top = float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else np.inf
    return changed(array, disc, min(hottest(array), top))


def dead_pixels(array: Array) -> Array:
    """0.2% of the pixels, hot and dead by turns, none of them on the target or beside another."""
    copy = array.copy()
    rows, columns = np.arange(5, array.shape[0], 20), np.arange(7, array.shape[1], 25)
    copy[np.ix_(rows, columns[::2])] = coldest(array)
    return copy


DEFECTS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "none": (lambda a: a, 1e-3),
    "first row dead": (lambda a: changed(a, 0, coldest(a)), 3e-3),
    "dead column": (lambda a: changed(a, (slice(None), 30), coldest(a)), 3e-3),
    "dead pixels": (dead_pixels, 3e-3),
    "two rows of no data": (lambda a: changed(a, slice(-2, None), coldest(a)), 3e-3),
    # these change median and spread, if little: by about a grey level and by a tenth of a spread of the scene
    "hot disc": (hot_disc, 8e-3),
    "letterbox of 4%": (lambda a: changed(a, (slice(None), slice(0, a.shape[1] // 25)), coldest(a)), 3e-2),
}
"""What is done to the pixels, and by how much the others' input may differ for it."""


def prepared(array: Array | Path, **options: Any) -> Float:
    """What the network gets, before its own mean and size."""
    return FramePreparer(FrameSpec(), FrameOptions(**options))(array).grey


COUNTS, KELVIN = recast(GREY, "14-bit counts"), recast(GREY, "kelvin")


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("version", RANGES)
def test_ranges_beyond_bytes_give_one_input(version: str, defect: str) -> None:
    array = recast(GREY, version)
    spoil, tolerance = DEFECTS[defect]
    spoilt = spoil(array)
    kept = spoilt == array
    assert 0.95 < kept.mean() < (1.01 if defect == "none" else 1)
    unit, expected = prepared(spoilt), prepared(COUNTS)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit[kept], expected[kept], rtol=0, atol=tolerance)
    assert unit[TARGET].min() > 0.6


def test_the_input_of_counts_is_that_of_a_typical_frame_of_bytes() -> None:
    unit = prepared(COUNTS)
    assert abs(np.median(unit) - 0.42) < 1e-6
    assert location_contrast(unit)[1] == pytest.approx(0.012, rel=1e-3)


BYTES: dict[str, Array] = {
    "uint8": GREY,
    "three channels": np.repeat(GREY[..., None], 3, 2),
    "floats in [0, 1]": (GREY / 255).astype(np.float32),
    "doubles in [0, 1]": GREY / 255,
    "floats in [0, 1], big-endian": (GREY / 255).astype(">f4"),
    "floats in [0, 1], one pixel 1.0000001": changed((GREY / 255).astype(np.float32), (0, 0), 1.0000001),
    "whole floats": GREY.astype(np.float32),
    "whole doubles, one of 255.0001": changed(GREY.astype(np.float64), (0, 0), 255.0001),
    "wide integers": GREY.astype(np.int64),
}


@pytest.mark.parametrize("version", BYTES)
def test_bytes_and_what_stands_for_them_are_divided_by_255(version: str) -> None:
    expected = GREY.astype(np.float32) / np.float32(255)
    if "one" in version:
        expected[0, 0] = 1
    np.testing.assert_array_equal(prepared(BYTES[version], repair=False), expected)


def test_bool_is_0_and_1() -> None:
    bright = np.median(GREY) < GREY
    np.testing.assert_array_equal(prepared(bright, repair=False), bright.astype(np.float32))


def clouds() -> Array:
    """A part of an example frame, bytes, with two clear targets."""
    with Image.open(EXAMPLES / "cloud_320x240.png") as image:
        return np.ascontiguousarray(np.asarray(image)[112:, 40:208])


TARGETS = np.array([[87.41 - 40, 187.74 - 112], [158 - 40, 185 - 112]])
"""Centroids (x, y) of `examples/frames.json`, from left to right."""


def stored_turned(array: Array, file: Path) -> None:
    Image.fromarray(np.ascontiguousarray(np.rot90(array))).save(file, tiffinfo={274: 6})


def stored_pgm(array: Array, file: Path) -> None:
    head = f"P5 {array.shape[1]} {array.shape[0]} 65535\n".encode()
    file.write_bytes(head + array.astype(">u2").tobytes())


def by_pillow(**options: Any) -> Callable[[Array, Path], None]:
    return lambda array, file: Image.fromarray(array).save(file, **options)


def by_numpy(array: Array, file: Path) -> None:
    np.save(file, array)


FILES: dict[str, tuple[str | None, str, Callable[[Array, Path], None]]] = {
    "bmp": (None, "frame.bmp", by_pillow()),
    "jpeg": (None, "frame.jpg", by_pillow(quality=95)),
    "webp": (None, "frame.webp", by_pillow(lossless=True)),
    "jpeg 2000": (None, "frame.jp2", by_pillow(irreversible=False)),
    "npy of bytes": (None, "frame.npy", by_numpy),
    "16-bit png": ("14-bit counts", "frame.png", by_pillow()),
    "16-bit tiff": ("16-bit counts", "frame.tif", by_pillow()),
    "16-bit tiff, turned by its tag": ("14-bit counts", "frame.tif", stored_turned),
    "16-bit pgm": ("12-bit counts", "frame.pgm", stored_pgm),
    "32-bit tiff": ("wide counts", "frame.tif", by_pillow()),
    "float tiff": ("kelvin", "frame.tif", by_pillow()),
    "npy of big-endian counts": ("14-bit counts, big-endian", "frame.npy", by_numpy),
    "npy of doubles": ("kelvin, double", "frame.npy", by_numpy),
}
"""Range (`None` for bytes), name and writer of each file."""


@pytest.fixture(scope="module")
def network() -> InferenceNetwork:
    return SeRankDet.from_pretrained("general").optimize()


@pytest.fixture(scope="module")
def plain(network: InferenceNetwork, tmp_path_factory: pytest.TempPathFactory) -> Array:
    """Centroids (x, y) in the 8-bit PNG, from left to right."""
    file = tmp_path_factory.mktemp("plain") / "frame.png"
    Image.fromarray(clouds()).save(file)
    found = by_column(network.detect(file).centroids)
    np.testing.assert_allclose(found, TARGETS, atol=1)
    return found


def by_column(centroids: Array) -> Array:
    return np.asarray(centroids[np.argsort(centroids[:, 0])])


@pytest.mark.parametrize("kind", FILES)
def test_every_container_gives_the_detections_of_the_png(
    network: InferenceNetwork, plain: Array, tmp_path: Path, kind: str
) -> None:
    version, name, write = FILES[kind]
    write(clouds() if version is None else recast(clouds(), version), tmp_path / name)
    found = by_column(network.detect(tmp_path / name).centroids)
    assert found.shape == plain.shape
    np.testing.assert_allclose(found, plain, atol=1)


def test_every_range_gives_the_detections_of_the_png(network: InferenceNetwork, plain: Array) -> None:
    for version, found in zip(RANGES, network.detect([recast(clouds(), version) for version in RANGES]), strict=True):
        np.testing.assert_allclose(by_column(found.centroids), plain, atol=1, err_msg=version)


@pytest.mark.parametrize("defect", [name for name in DEFECTS if name != "none"])
@pytest.mark.parametrize("version", ["14-bit counts", "kelvin"])
def test_defects_leave_the_detections_of_the_png(
    network: InferenceNetwork, plain: Array, version: str, defect: str
) -> None:
    array = recast(clouds(), version)
    spoilt = DEFECTS[defect][0](array)
    found = by_column(network.detect(spoilt).centroids)
    if defect == "hot disc":  # which may be one
        columns, rows = np.rint(found).astype(int).T
        found = found[(spoilt == array)[rows, columns]]
    assert found.shape == plain.shape
    np.testing.assert_allclose(found, plain, atol=1)


def test_black_hot_frames_are_turned_back() -> None:
    np.testing.assert_allclose(prepared(255 - GREY, polarity="black-hot"), GREY / np.float32(255), atol=1e-6)
    cold = (20000 - COUNTS.astype(np.int64)).astype(np.uint16)
    np.testing.assert_allclose(prepared(cold, polarity="black-hot"), prepared(COUNTS), atol=1e-6)


@pytest.mark.parametrize("no_data", [-9999, float("nan")])
def test_no_data_is_filled_and_hidden(no_data: float) -> None:
    array = changed(KELVIN, slice(-20, None), no_data)
    frame = FramePreparer(FrameSpec(), FrameOptions(no_data=no_data))(array)
    unseen = np.zeros(KELVIN.shape, np.bool_)
    unseen[-20:] = True
    masked = np.ma.MaskedArray(KELVIN, unseen)
    assert frame.hidden is not None
    assert frame.hidden[-20:].all()
    assert not frame.hidden[:-20].any()
    np.testing.assert_array_equal(frame.grey[-20:], np.repeat(frame.grey[-21:-20], 20, 0))
    np.testing.assert_allclose(FramePreparer(FrameSpec())(masked).grey, frame.grey, atol=1e-6)
    found = find_detections(np.ones(KELVIN.shape, np.float32), frame.grey, hidden=frame.hidden)
    assert found.boxes.tolist() == [[0, 0, KELVIN.shape[1], KELVIN.shape[0] - 20]]
    assert found.probability[-20:].max() == 0


def test_ignored_regions_are_hidden_and_do_not_count() -> None:
    mask = np.zeros(GREY.shape, np.bool_)
    mask[:30, :60] = True
    by_box, by_mask, plain = (
        FramePreparer(FrameSpec(), FrameOptions(ignore=ignored))(changed(COUNTS, mask, marked))
        for ignored, marked in (([[0, 0, 60, 30]], 16383), (mask, 16383), (mask, 7000))
    )
    np.testing.assert_array_equal(by_box.grey, by_mask.grey)
    np.testing.assert_allclose(by_box.grey[~mask], plain.grey[~mask], atol=1e-6)
    assert by_box.hidden is not None
    np.testing.assert_array_equal(by_box.hidden, mask)
    assert by_box.grey[mask].max() < 0.9


def test_value_range() -> None:
    unit = prepared(COUNTS, value_range=(7000, 7000 + 6 * 255))
    np.testing.assert_allclose(unit, GREY / np.float32(255), atol=1e-6)


def test_what_is_lost_is_said_once() -> None:
    prepare = FramePreparer(FrameSpec())
    with pytest.warns(UserWarning, match=r"constant, nothing can be found"):
        frame = prepare(np.full((8, 8), 7, np.uint8))
    assert frame.hidden is not None
    assert frame.hidden.all()
    with pytest.warns(UserWarning, match=r"lie in .*% of the range.*pass value_range="):
        prepare((100 + GREY / 60).astype(np.uint8))
    with pytest.warns(UserWarning, match=r'false colour.* palette="auto" \(--palette auto\)'):
        prepare(np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(np.full((8, 8), 7, np.uint8))


@pytest.mark.parametrize("palette", ["inferno", "jet", "turbo", "hot"])
def test_false_colour_is_turned_back(palette: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    colours = matplotlib.colormaps[palette](GREY, bytes=True)[..., :3]
    for name in ("auto", palette):
        assert np.abs(prepared(colours, palette=name) * np.float32(255) - GREY).max() <= 2
