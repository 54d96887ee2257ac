"""Reading, scaling, resizing and tiling of frames, and every way in which a file can be no frame."""

from __future__ import annotations

import io
import math
import re
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from serank.errors import CheckpointError, FrameError
from serank.frames import FrameLike, FrameSpec, read_frame
from serank.frames.held import MAX_PIXELS
from serank.frames.preparation import TILE_STEP, resize, tiles, unit_frame
from serank.frames.reading import FRAME_SUFFIXES, decode
from serank.frames.sources import find_sources

Array = NDArray[Any]

GREY = np.array([[0, 1, 51], [102, 204, 255]], np.uint8)
# k / 255 by hand: 0, 1/255, 1/5, 2/5, 4/5, 1
UNIT = np.array([[0, 1 / 255, 0.2], [0.4, 0.8, 1]], np.float32)
COUNTS = np.array([[0, 300, 65535], [40000, 256, 1]], np.uint16)


def picture(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (height, width), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def robust(values: Array) -> Array:
    """The documented formula, quantiles interpolated by hand."""

    def quantile(numbers: list[float], q: float) -> float:
        ordered = sorted(numbers)
        at = q * (len(ordered) - 1)
        below = math.floor(at)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (at - below) * (ordered[above] - ordered[below])

    x = [float(v) for v in values.ravel()]
    median = quantile(x, 0.5)
    distance = [abs(v - median) for v in x]
    most = quantile(distance, 0.9)
    mean = sum(min(d, most) for d in distance) / len(x)
    low, high = quantile(x, 0.05), quantile(x, 0.95)
    distinct = sorted({v for v in x if low <= v <= high})
    step = quantile([b - a for a, b in pairwise(distinct)], 0.5)
    spread = max(mean, step)
    v = values.astype(np.float64)
    mixed = [
        abs(v[i + 1, j + 1] - v[i + 1, j] - v[i, j + 1] + v[i, j])
        for i in range(v.shape[0] - 1)
        for j in range(v.shape[1] - 1)
    ]
    most = quantile(mixed, 0.9)
    noise = sum(min(m, most) for m in mixed) / len(mixed) / 1.4
    noise = min(max(noise, 0.5 * step, spread / 300), spread / 5)
    return np.clip(0.42 + 0.012 * (v - median) / math.sqrt(spread * noise), 0, 1)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_lossless_files_of_grey_content(tmp_path: Path, suffix: str, mode: str) -> None:
    file = tmp_path / f"frame{suffix}"
    Image.fromarray(GREY).convert(mode).save(file)
    frame = read_frame(file)
    assert frame.dtype == np.float32
    np.testing.assert_array_equal(frame, UNIT)
    np.testing.assert_array_equal(read_frame(str(file)), UNIT)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(np.array([[0, 9, 128], [255, 0, 77]], np.uint8)))
    image.save(tmp_path / f"frame{suffix}")
    np.testing.assert_array_equal(read_frame(tmp_path / f"frame{suffix}"), UNIT)


def test_palette_with_alpha_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(GREY).convert("P")
    image.save(tmp_path / "frame.png", transparency=bytes([0, 128, 255]))
    with Image.open(tmp_path / "frame.png") as saved:
        assert saved.mode == "P"
        assert isinstance(saved.info["transparency"], bytes)
    np.testing.assert_array_equal(read_frame(tmp_path / "frame.png"), UNIT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr"])
def test_modes_of_pil_images(mode: str) -> None:
    """White and black in any mode are 1 and 0, whatever else the mode can hold."""
    black_white = Image.fromarray(np.array([[0, 255, 0]], np.uint8))
    through = {"RGBa": "RGBA", "La": "LA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "PA": "P"}.get(mode, mode)
    image = black_white.convert(through).convert(mode)
    assert image.mode == mode
    np.testing.assert_array_equal(read_frame(image), [[0, 1, 0]])


def test_one_bit_files(tmp_path: Path) -> None:
    for suffix in (".png", ".tif", ".bmp"):
        Image.fromarray(GREY).point(lambda v: 255 * (v > 100)).convert("1").save(tmp_path / f"bits{suffix}")
        np.testing.assert_array_equal(read_frame(tmp_path / f"bits{suffix}"), [[0, 0, 0], [1, 1, 1]])


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.linspace(20, 220, 64 * 48).reshape(48, 64).astype(np.uint8)
    for suffix, mode in ((".jpg", "L"), (".JPEG", "RGB")):
        Image.fromarray(smooth).convert(mode).save(tmp_path / f"frame{suffix}", quality=95)
        np.testing.assert_allclose(read_frame(tmp_path / f"frame{suffix}"), smooth / 255, atol=4 / 255)


def test_colour_file(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 50]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    # 0.299 * 255 = 76.2, 0.587 * 255 = 149.7, 0.114 * 255 = 29.1, 2.99 + 117.4 + 5.7 = 126.1
    np.testing.assert_array_equal(
        read_frame(tmp_path / "colour.png"), np.array([[76, 150, 29, 126]], np.float32) / np.float32(255)
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(COUNTS).save(tmp_path / f"counts{suffix}")
    decoded = decode(tmp_path / f"counts{suffix}")
    assert decoded.dtype.kind in "ui"
    np.testing.assert_array_equal(decoded, COUNTS)
    np.testing.assert_allclose(read_frame(tmp_path / f"counts{suffix}"), robust(COUNTS), atol=1e-6)


def tiff(pixels: bytes, width: int, height: int, *, order: str, bits: int, kind: int) -> bytes:
    """A plain uncompressed TIFF, written field by field; `kind` is 1 unsigned, 2 signed, 3 float."""
    fields = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    fields += [(279, len(pixels)), (339, kind)]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields)
    header = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(pixels))
    return header + pixels + struct.pack(f"{order}H", len(fields)) + entries + b"\0\0\0\0"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("code", "kind", "values"),
    [
        ("u2", 1, [[0, 300, 65535], [40000, 256, 1]]),
        ("i4", 2, [[-70000, 0, 300], [1, 1 << 20, 12]]),
        ("f4", 3, [[0, 0.25, 0.5], [0.125, 1, 0.75]]),
        ("f4", 3, [[-1.5, 0, 7], [1e4, 2, 3]]),
    ],
)
def test_tiff_of_both_byte_orders(tmp_path: Path, order: str, code: str, kind: int, values: list[list[float]]) -> None:
    stored = np.array(values, f"{order}{code}")
    file = tmp_path / "frame.tif"
    file.write_bytes(tiff(stored.tobytes(), 3, 2, order=order, bits=8 * stored.itemsize, kind=kind))
    decoded = decode(file)
    assert decoded.dtype.isnative
    assert decoded.dtype.kind == code[0]
    np.testing.assert_array_equal(decoded, np.array(values))
    in_unit = min(map(min, values)) >= 0 and max(map(max, values)) <= 1
    np.testing.assert_allclose(read_frame(file), np.array(values) if in_unit else robust(np.array(values)), atol=1e-6)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    for array in (picture(), picture().astype(np.uint16) * 100):
        Image.fromarray(array).save(tmp_path / "frame.tif", compression=compression)
        np.testing.assert_array_equal(decode(tmp_path / "frame.tif"), array)


def test_first_page_of_a_tiff(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 5), v, np.uint8)) for v in (51, 255)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match=r"pages\.tif: frame 1 of 2 is read; `serank detect` .*take all of them"):
        frame = read_frame(tmp_path / "pages.tif")
    np.testing.assert_array_equal(frame, np.full((4, 5), np.float32(0.2)))


def test_decode_keeps_colour(tmp_path: Path) -> None:
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(colours).save(tmp_path / "colour.bmp")
    np.testing.assert_array_equal(decode(tmp_path / "colour.bmp"), colours)


# --- arrays, tensors, PIL images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_unit_range_stay(dtype: type) -> None:
    values: Array = np.array([[0, 0.25], [0.75, 1]], dtype)
    frame = read_frame(values)
    assert frame.dtype == np.float32
    np.testing.assert_array_equal(frame, values)


@pytest.mark.parametrize(
    "dtype",
    [np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64, ">u2"],
)
def test_other_values_are_scaled_by_their_range(dtype: Any) -> None:
    values = np.arange(-120 if dtype is np.int8 else 300, 0 if dtype is np.int8 else 420).reshape(10, 12).astype(dtype)
    frame = read_frame(values)
    assert frame.dtype == np.float32
    # median 59.5; distances 0.5 to 59.5, each twice, of which the largest tenth counts as their 0.9 quantile, 53.6:
    # 2 * (0.5 + 1.5 + ... + 53.5) + 12 * 53.6 = 3559.2. A ramp has no noise: half a step is assumed
    contrast = math.sqrt(3559.2 / 120 * 0.5)
    expected = np.clip(0.42 + 0.012 * (np.arange(120).reshape(10, 12) - 59.5) / contrast, 0, 1)
    np.testing.assert_allclose(frame, expected, atol=1e-6)


def test_bool_and_uint8_arrays() -> None:
    np.testing.assert_array_equal(read_frame(np.array([[True, False]])), [[1, 0]])
    np.testing.assert_array_equal(read_frame(GREY), UNIT)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_channels(dtype: type) -> None:
    """A last axis of 1, and three equal channels, read exactly as the plain frame."""
    plain = (picture() > 100).astype(dtype) if dtype is np.bool_ else picture().astype(dtype)
    expected = read_frame(plain)
    np.testing.assert_array_equal(read_frame(plain[..., None]), expected)
    np.testing.assert_array_equal(read_frame(np.stack([plain] * 3, axis=-1)), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_colour_floats(dtype: type) -> None:
    colours: Array = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.999]]], dtype)
    expected = [[0.299, 0.587, 0.114, 0.886 + 0.114 * float(dtype(0.999))]]
    np.testing.assert_allclose(read_frame(colours), expected, rtol=1e-6)


def test_colour_at_the_top_of_half_precision() -> None:
    colours = np.full((20, 20, 3), 65504, np.float16)
    colours[0, 0] = 0
    colours[5, 5, 2] = 65472
    frame = read_frame(colours)
    assert np.isfinite(frame).all()
    assert frame[5, 5] > 0


def test_colour_uint16_is_rounded_before_scaling() -> None:
    colours = np.random.default_rng(0).integers(0, 4000, (8, 9, 3)).astype(np.uint16)
    grey = np.rint(colours @ np.array([0.299, 0.587, 0.114])).astype(np.uint16)
    np.testing.assert_allclose(read_frame(colours), robust(grey), atol=1e-6)


TENSOR_SHAPES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda t: t,
    lambda t: t[None],
    lambda t: t[None].expand(3, -1, -1),
    lambda t: t[..., None],
    lambda t: t[..., None].expand(-1, -1, 3),
    lambda t: t.T.contiguous().T,
]


@pytest.mark.parametrize("shape", TENSOR_SHAPES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float32, torch.float64])
def test_tensors(shape: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> None:
    array = picture() // 129 if dtype is torch.bool else picture()
    tensor = torch.from_numpy(array).to(dtype)
    expected = read_frame(tensor.numpy())
    np.testing.assert_array_equal(read_frame(shape(tensor)), expected)


def test_bfloat16_and_grad_tensors() -> None:
    values = torch.tensor([[0, 0.25], [0.5, 1]])
    for tensor in (values.bfloat16(), values.bfloat16()[None], values.clone().requires_grad_()):
        np.testing.assert_array_equal(read_frame(tensor), values)


def test_tensor_with_a_pending_conjugation() -> None:
    """`.imag` of a conjugate is a real tensor that numpy can't view directly."""
    tensor = torch.complex(torch.zeros(2, 2), torch.full((2, 2), -0.5)).conj().imag
    np.testing.assert_array_equal(read_frame(tensor), np.full((2, 2), 0.5))


def test_pil_images(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_frame(Image.fromarray(GREY)), UNIT)
    np.testing.assert_array_equal(read_frame(Image.fromarray(UNIT)), UNIT)
    np.testing.assert_allclose(read_frame(Image.fromarray(COUNTS)), robust(COUNTS), atol=1e-6)
    np.testing.assert_allclose(
        read_frame(Image.fromarray(COUNTS.astype(np.int32))), robust(COUNTS.astype(np.int32)), atol=1e-6
    )
    Image.fromarray(GREY).save(tmp_path / "frame.png")
    with Image.open(tmp_path / "frame.png") as image:
        np.testing.assert_array_equal(read_frame(image), UNIT)


def test_input_is_left_as_it_was() -> None:
    for array in (UNIT.copy(), COUNTS.copy(), GREY.copy()):
        before = array.copy()
        frame = read_frame(array)
        frame[:] = 9
        np.testing.assert_array_equal(array, before)


def test_types_that_are_no_frame() -> None:
    wrong: list[Any] = [None, 3, [[0, 1]], b"frame.png"]
    for source in wrong:
        with pytest.raises(TypeError, match=f"got {type(source).__name__}"):
            read_frame(source)


# --- the range of 16-bit frames --------------------------------------------------------------------------------------


def camera(noise: float = 30.0, target: int = 400) -> NDArray[np.uint16]:
    """A 14-bit camera's frame: counts in a narrow band, and a target of 2 x 2 pixels above them."""
    counts = np.random.default_rng(1).normal(7300, noise, (256, 256))
    counts[100:102, 60:62] = 7300 + target
    return np.rint(counts).astype(np.uint16)


def test_robust_range() -> None:
    counts = camera()
    frame = read_frame(counts)
    np.testing.assert_allclose(frame, robust(counts), atol=1e-6)
    assert frame.dtype == np.float32


def test_small_target_keeps_standing_out() -> None:
    frame = read_frame(camera())
    target = frame[100:102, 60:62]
    clutter = frame.copy()
    clutter[100:102, 60:62] = 0
    assert (target > 0.85).all()
    assert clutter.max() < 0.62
    assert np.median(frame) == pytest.approx(0.42, abs=1e-6)
    dim = read_frame(camera(target=130))[100:102, 60:62]
    assert (dim > 0.55).all()
    assert (dim < target).all()


@given(gain=st.integers(1, 7), offset=st.integers(0, 8000))
def test_invariant_to_gain_and_offset(gain: int, offset: int) -> None:
    counts = camera()[80:120, 40:80]
    changed = (counts.astype(np.int64) * gain + offset).astype(np.uint16)
    np.testing.assert_allclose(read_frame(changed), read_frame(counts), atol=1e-6)


def test_float_counts_read_as_integer_counts() -> None:
    np.testing.assert_array_equal(read_frame(camera().astype(np.float32)), read_frame(camera()))


def test_dead_pixels_do_not_crush_the_rest() -> None:
    counts = camera(target=0)
    expected = read_frame(counts)
    counts[3, 4], counts[200, 10] = 65535, 0
    frame = read_frame(counts)
    assert frame[3, 4] == 1
    assert frame[200, 10] == 0
    rest = np.ones(counts.shape, np.bool_)
    rest[3, 4] = rest[200, 10] = False
    assert abs(frame - expected)[rest].max() < 0.02


@pytest.mark.parametrize("value", [0, 7, 65535])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
def test_constant_frame_is_0(value: int, dtype: type) -> None:
    if 0 <= value < 256 and dtype is not np.uint16:  # that would be 8-bit grey of another type
        value = -3
    np.testing.assert_array_equal(read_frame(np.full((5, 6), value, dtype)), np.zeros((5, 6)))


def test_single_pixels_on_a_constant_frame() -> None:
    """All that varies are two pixels: the median step between the three levels is the spread, a fifth the noise."""
    counts = np.full((100, 100), 500, np.uint16)
    counts[4, 5], counts[70, 8] = 900, 700
    frame = read_frame(counts)
    assert frame[4, 5] == pytest.approx(0.42 + 0.012 * 2 * math.sqrt(5))
    assert frame[70, 8] == pytest.approx(0.42 + 0.012 * math.sqrt(5))
    assert np.count_nonzero(frame == np.float32(0.42)) == 9998


def test_extreme_floats_do_not_overflow() -> None:
    """Missing-value markers of other tools are the most negative numbers."""
    values = np.random.default_rng(0).uniform(0, 2, (50, 50))
    values[0] = np.finfo(np.float64).min
    values[1] = np.finfo(np.float64).max
    frame = read_frame(values)
    assert np.isfinite(frame).all()
    assert frame[0].max() == 0
    assert frame[1].min() == 1
    assert frame[2:].std() > 0.02
    values[:10] = np.finfo(np.float64).max
    assert np.isfinite(read_frame(values)).all()


def test_stray_values_beyond_float32_are_clipped() -> None:
    frame = np.full((5, 8), 0.5)
    frame[2, 3] = 1e300
    found = read_frame(frame)
    assert found[2, 3] == 1
    assert (found == 0.5).sum() == 39


def test_one_pixel_frames() -> None:
    assert read_frame(np.full((1, 1), 51, np.uint8)) == np.float32(0.2)
    assert read_frame(np.full((1, 1), 51, np.uint16)) == 0


# --- what is no frame ------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such file"):
        read_frame(tmp_path / "gone.png")


def test_folder_given_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(FrameError, match=r"folder\.png.*(folder|Permission)"):
        read_frame(tmp_path / "folder.png")


def test_file_given_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(encoded(Image.fromarray(GREY), "PNG"))
    with pytest.raises((FrameError, FileNotFoundError), match=r"inside\.png"):
        read_frame(tmp_path / "file.png" / "inside.png")


def test_operating_system_errors_say_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FrameError, match=r"frame\.png: can't be read: Permission denied"):
        read_frame(tmp_path / "frame.png")


def test_frame_error_is_a_value_error() -> None:
    assert issubclass(FrameError, ValueError)
    assert issubclass(CheckpointError, ValueError)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"a text file, named as an image\n", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(range(256)) * 8],
)
@pytest.mark.parametrize("suffix", sorted(FRAME_SUFFIXES))
def test_files_that_are_no_image(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"frame{suffix}"
    file.write_bytes(content)
    with pytest.raises(FrameError, match=rf"frame\{suffix}: .*\w"):
        read_frame(file)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    """Decoders that nobody asked for stay shut, whatever the file's suffix."""
    for kind in ("GIF", "ICO", "DDS"):
        (tmp_path / "frame.png").write_bytes(encoded(Image.fromarray(picture()), kind))
        with pytest.raises(FrameError, match=r"frame\.png: not an image that can be read; expected \.bmp"):
            read_frame(tmp_path / "frame.png")


def read_or_refuse(file: Path) -> Array | None:
    """The pixels, or `None` where `FrameError` names the file; anything else fails the test.

    So do warnings, but for that of pages which the damaged end of the first one seems to announce.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", f"{re.escape(str(file))}: frame 1 of several is read; those after it are")
            return decode(file)
    except FrameError as error:
        if not str(error).startswith(f"{file}: "):
            raise AssertionError("the error does not name the file") from error
        return None


ERRORS = [struct.error("x"), zlib.error("x"), MemoryError(), RuntimeError("x"), IndexError("x")]

SAMPLES: dict[str, bytes] = {
    "grey.png": encoded(Image.fromarray(picture()), "PNG"),
    "counts.png": encoded(Image.fromarray(picture().astype(np.uint16) * 200), "PNG"),
    "palette.png": encoded(Image.fromarray(picture()).convert("P"), "PNG", transparency=b"\0\1"),
    "plain.tif": encoded(Image.fromarray(picture()), "TIFF"),
    "counts.tif": encoded(Image.fromarray(picture().astype(np.uint16) * 200), "TIFF"),
    "float.tif": encoded(Image.fromarray(picture() / np.float32(300)), "TIFF"),
    "lzw.tif": encoded(Image.fromarray(picture()), "TIFF", compression="tiff_lzw"),
    "deflate.tiff": encoded(Image.fromarray(picture()), "TIFF", compression="tiff_adobe_deflate"),
    "big.tif": tiff(picture().astype(">u2").tobytes(), 32, 24, order=">", bits=16, kind=1),
    "grey.bmp": encoded(Image.fromarray(picture()), "BMP"),
    "grey.jpg": encoded(Image.fromarray(picture()), "JPEG"),
    "colour.jpg": encoded(Image.fromarray(picture()).convert("RGB"), "JPEG"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_files(tmp_path: Path, name: str) -> None:
    """A frame that lacks part of itself is refused; one that lacks only what follows the pixels may be read whole."""
    file, content = tmp_path / name, SAMPLES[name]
    file.write_bytes(content)
    whole = decode(file)
    ends = set(range(0, min(len(content), 260), 3)) | set(range(0, len(content), 41))
    for end in sorted(ends | set(range(len(content) - 40, len(content)))):
        file.write_bytes(content[:end])
        found = read_or_refuse(file)
        if found is not None:
            assert end >= len(content) - 30, f"cut at {end} of {len(content)} bytes"
            np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("name", SAMPLES)
def test_corrupt_files(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    file, refused = tmp_path / name, 0
    for i in range(120):
        content = bytearray(SAMPLES[name])
        span = min(len(content), 300) if i % 2 else len(content)
        for at in rng.integers(0, span, rng.integers(1, 6)):
            content[at] ^= 1 << int(rng.integers(8))
        if i % 5 == 0:
            start = int(rng.integers(0, len(content) - 16))
            content[start : start + 16] = rng.bytes(16)
        file.write_bytes(content)
        found = read_or_refuse(file)
        refused += found is None
        assert found is None or found.ndim in (2, 3)
    assert refused > 5


@given(
    content=st.binary(max_size=200),
    magic=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"\xff\xd8\xff"]),
)
def test_random_bytes_after_a_magic_number(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, magic: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "random.png"
    file.write_bytes(magic + content)
    assert read_or_refuse(file) is None


@pytest.mark.parametrize("cut", [1, 4, 5, 16, 30, 60])
def test_tiff_whose_tags_are_cut_off(tmp_path: Path, cut: int) -> None:
    """Pillow only warns of it, and would read these floats as integers once the tag that says so is lost."""
    content = tiff(UNIT.tobytes(), 3, 2, order="<", bits=32, kind=3)
    (tmp_path / "frame.tif").write_bytes(content[:-cut])
    with pytest.raises(FrameError, match=r"frame\.tif: (truncated or corrupt|not an image)"):
        read_frame(tmp_path / "frame.tif")


@pytest.mark.parametrize("error", ERRORS)
def test_any_error_of_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    (tmp_path / "frame.png").write_bytes(SAMPLES["grey.png"])

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "frombytes", fail)
    with pytest.raises(FrameError, match=r"frame\.png: truncated or corrupt"):
        read_frame(tmp_path / "frame.png")


def test_truncated_pil_image(tmp_path: Path) -> None:
    """Pillow reads pixels late: an image opened from a damaged file fails only when it is used."""
    (tmp_path / "half.png").write_bytes(SAMPLES["grey.png"][:400])
    with Image.open(tmp_path / "half.png") as image, pytest.raises(FrameError, match=r"half\.png: truncated"):
        read_frame(image)
    with (
        Image.open(io.BytesIO(SAMPLES["grey.png"][:400])) as image,
        pytest.raises(FrameError, match="the image: trunc"),
    ):
        read_frame(image)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (100_000, 100_000),  # Pillow refuses it
        (13_000, 13_000),  # Pillow warns of it, serank refuses it
        (MAX_PIXELS + 1, 1),
    ],
)
def test_decompression_bomb(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=rf"bomb\.png: .*more than {MAX_PIXELS} pixels; crop or tile"):
            read_frame(tmp_path / "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_pillow_would_read_every_size_that_is_allowed() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS >= MAX_PIXELS


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 5, 3), (5, 0, 1)])
def test_zero_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match="empty side"):
        read_frame(np.zeros(shape, np.uint8))
    with pytest.raises(FrameError, match="empty side"):
        read_frame(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(), (7,), (4, 5, 2), (4, 5, 4), (4, 5, 0), (1, 4, 5, 3), (2, 1, 4, 5)])
def test_wrong_dimensions(shape: tuple[int, ...]) -> None:
    for source in (np.zeros(shape), torch.zeros(shape)):
        with pytest.raises(FrameError) as caught:
            read_frame(source)
        assert f"shape {shape} is no frame; expected (H, W)" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_nan_and_infinity(tmp_path: Path, value: float, channels: tuple[int, ...]) -> None:
    values = np.full((6, 8, *channels), 0.5, np.float32)
    values[2, 3] = value
    sources: list[FrameLike] = [values, values.astype(np.float64), values.astype(np.float16), torch.from_numpy(values)]
    sources.append(torch.from_numpy(values).bfloat16())
    count = max(channels, default=1)
    for source in sources:
        with pytest.raises(FrameError, match=f"the frame: {count} of {48 * count} values are NaN or infinite"):
            read_frame(source)
    if not channels:
        Image.fromarray(values).save(tmp_path / "dead.tif")
        with pytest.raises(FrameError, match=r"dead\.tif: 1 of 48 values are NaN or infinite"):
            read_frame(tmp_path / "dead.tif")


@pytest.mark.parametrize(
    "dtype", [np.complex64, np.object_, "U3", "S3", "datetime64[s]", "timedelta64[s]", [("a", "f4")]]
)
def test_dtypes_that_are_no_frame(dtype: Any) -> None:
    with pytest.raises(FrameError, match=r"dtype .* can't be a frame; expected integers or floats"):
        read_frame(np.zeros((4, 5), dtype))


def test_complex_tensors() -> None:
    for tensor in (torch.zeros(4, 5, dtype=torch.complex64), torch.zeros(4, 5, dtype=torch.complex128).conj()):
        with pytest.raises(FrameError, match="dtype complex"):
            read_frame(tensor)


def test_unit_frame_names_what_it_is_given() -> None:
    with pytest.raises(FrameError, match=r"^a/b\.png: shape \(3,\)"):
        unit_frame(np.zeros(3), "a/b.png")


# --- folders ---------------------------------------------------------------------------------------------------------


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def test_find_sources_in_a_folder(tmp_path: Path) -> None:
    wanted = [tmp_path / n for n in ("a.bmp", "b.TIFF", "c.jpg", "d.JPEG", "e.png", "f.tif", "z.PNG")]
    others = [tmp_path / n for n in ("list.txt", "a.mat", "png", ".hidden.png", "._a.png", "under/deep.png")]
    touch(*reversed(wanted), *others)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    for path in (tmp_path, str(tmp_path)):
        with pytest.warns(UserWarning, match="passed over") as caught:
            assert find_sources([path]) == wanted
        assert [str(w.message).removeprefix(f"{tmp_path}: ") for w in caught] == [
            "3 other files passed over (a.mat, list.txt, png)",
            "1 broken link passed over (lost.png)",
        ]


def test_find_sources_of_files_and_folders(tmp_path: Path) -> None:
    touch(tmp_path / "one/b.png", tmp_path / "one/a.png", tmp_path / "z.png", tmp_path / "odd.xyz")
    given_paths = [tmp_path / "z.png", tmp_path / "one", tmp_path / "odd.xyz"]
    # files in the order given, and as given: a named file is taken whatever its suffix
    assert [p.name for p in find_sources(given_paths)] == ["z.png", "a.png", "b.png", "odd.xyz"]
    assert find_sources([]) == []


def test_find_sources_errors(tmp_path: Path) -> None:
    touch(tmp_path / "empty/readme.txt")
    with pytest.raises(FileNotFoundError, match=r"empty: no image or video in this folder; expected \.bmp, \.jp2"):
        find_sources([tmp_path / "empty"])
    # what doesn't exist is said by whoever reads it, so that the others go on
    assert find_sources([tmp_path / "nowhere"]) == [tmp_path / "nowhere"]


# --- resize and tiles ------------------------------------------------------------------------------------------------


@given(height=st.integers(1, 40), width=st.integers(1, 40), to=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_resize_shape_range_and_constants(height: int, width: int, to: tuple[int, int]) -> None:
    noise = np.random.default_rng(height).random((height, width), np.float32)
    resized = resize(noise, *to)
    assert resized.shape == to
    assert resized.dtype == np.float32
    assert noise.min() - 1e-6 <= resized.min()
    assert resized.max() <= noise.max() + 1e-6
    np.testing.assert_allclose(resize(np.full((height, width), 0.3, np.float32), *to), np.float32(0.3), rtol=1e-6)


def test_resize_values() -> None:
    frame = np.array([[0, 1]], np.float32)
    # centres of four pixels lie at 0.25, 0.75, 1.25, 1.75 of the source, whose centres are 0.5 and 1.5
    np.testing.assert_allclose(resize(frame, 1, 4), [[0, 0.25, 0.75, 1]], atol=1e-6)
    np.testing.assert_allclose(resize(np.array([[0, 1], [1, 0]], np.float32), 1, 1), [[0.5]], atol=1e-6)


def test_resize_shrinks_by_area() -> None:
    """A lone bright pixel keeps its share of the light, which point sampling would lose or double."""
    frame = np.zeros((64, 64), np.float32)
    frame[37, 22] = 1
    small = resize(frame, 16, 16)
    assert small.sum() == pytest.approx(1 / 16, rel=0.05)


def test_resize_to_its_own_size_changes_nothing() -> None:
    frame = np.random.default_rng(0).random((7, 9), np.float32)
    np.testing.assert_array_equal(resize(frame, 7, 9), frame)


@given(st.data())
def test_tiles(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 5000))
    tile = data.draw(st.integers(1, 1500))
    overlap = data.draw(st.integers(0, tile - 1).filter(lambda o: (length / (tile - o)) < 3000))
    found = list(tiles(length, tile, overlap))
    if length <= tile:
        assert found == [(0, length)]
        return
    assert found[0][0] == 0
    assert found[-1][1] == length
    (side,) = {end - start for start, end in found}
    assert side <= tile
    for (start, end), (next_start, _) in pairwise(found):
        assert next_start > start
        assert end - next_start >= overlap
    # no tile more than needed, and none larger
    assert tile + (len(found) - 2) * (tile - overlap) < length
    smaller = (side - 1) // TILE_STEP * TILE_STEP
    assert smaller <= overlap or smaller + (len(found) - 1) * (smaller - overlap) < length


def test_tiles_known() -> None:
    assert list(tiles(100, 40, 10)) == [(0, 40), (30, 70), (60, 100)]
    assert list(tiles(41, 40, 0)) == [(0, 32), (9, 41)]
    assert list(tiles(2048, 1024, 128)) == [(0, 768), (640, 1408), (1280, 2048)]
    assert list(tiles(3, 1, 0)) == [(0, 1), (1, 2), (2, 3)]


# --- FrameSpec -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": math.nan}, "mean must be finite; got nan"),
        ({"mean": (0.5, math.inf)}, "mean must be finite"),
        ({"std": 0}, "std must be > 0"),
        ({"std": -1.0}, "std must be > 0"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be > 0"),
        ({"std": math.nan}, "std must be > 0"),
        ({"std": math.inf}, "std must be > 0"),
        ({"working_size": 0}, "working_size must lie in 1 to 4096 px, or be None, .* got 0"),
        ({"working_size": 4097}, "working_size must lie in 1 to 4096 px"),
        ({"scale_range": (0, 2)}, r"scale_range must be \(low, high\)"),
        ({"scale_range": (1.1, 2)}, "scale_range must be"),
        ({"scale_range": (0.5, 0.9)}, "scale_range must be"),
        ({"scale_range": (math.nan, 2)}, "scale_range must be"),
        ({"scale_range": (0.5, math.nan)}, "scale_range must be"),
        ({"scale_range": (0.5, 1, 2)}, "scale_range must be"),
        (
            {"working_size": 1025, "scale_range": (0.5, 16.1)},
            r"high <= 16 where .*; got \(0\.5, 16\.1\)",
        ),
        ({"overlap": -1}, "overlap must lie in 0 to 512, half of tile=1024; got -1"),
        ({"tile": 64, "overlap": 33}, "overlap must lie in 0 to 32, half of tile=64; got 33"),
        ({"tile": 31, "overlap": 0}, "tile must lie in 32 to 4096 px; got 31"),
        ({"tile": 5000}, "tile must lie in 32 to 4096 px; got 5000"),
    ],
)
def test_frame_spec_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameSpec(**arguments)


def test_working_shape() -> None:
    assert FrameSpec().working_shape(123, 45) == (123, 45)
    spec = FrameSpec(working_size=256)
    assert spec.working_shape(256, 100) == (256, 100)
    assert spec.working_shape(320, 240) == (256, 192)
    assert spec.working_shape(150, 200) == (192, 256)
    # beyond the limits of the scale range: by 2.5 and by one half
    assert spec.working_shape(100, 80) == (250, 200)
    assert spec.working_shape(2000, 1000) == (1000, 500)
    assert FrameSpec(working_size=10, scale_range=(0.01, 1)).working_shape(1000, 1) == (10, 1)
    assert FrameSpec(working_size=256, scale_range=(1, 1)).working_shape(999, 77) == (999, 77)
    assert FrameSpec(working_size=256, scale_range=[0.1, 10]).working_shape(64, 64) == (256, 256)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), size=st.integers(1, 3000))
def test_working_shape_properties(height: int, width: int, size: int) -> None:
    shape = FrameSpec(working_size=size).working_shape(height, width)
    assert min(shape) >= 1
    for side, scaled in zip((height, width), shape, strict=True):
        assert 0.5 * side - 0.5 <= max(scaled, 0.5 * side) <= 2.5 * side + 0.5
    if max(height, width) / 2 <= size <= 2.5 * max(height, width):
        assert max(shape) == size


def test_normalise_with_one_number() -> None:
    x = torch.rand(2, 1, 3, 4)
    for channels in (1, 3):
        y = FrameSpec(mean=0.4, std=0.2).normalise(x, channels)
        assert y.shape == (2, channels, 3, 4)
        torch.testing.assert_close(y, ((x - 0.4) / 0.2).expand(2, channels, 3, 4))


def test_normalise_per_channel() -> None:
    x = torch.rand(2, 1, 3, 4)
    mean, std = (0.485, 0.456, 0.406), [0.229, 0.224, 0.225]
    y = FrameSpec(mean=mean, std=std).normalise(x, 3)
    assert y.shape == (2, 3, 3, 4)
    for i in range(3):
        torch.testing.assert_close(y[:, i], (x[:, 0] - mean[i]) / std[i])
    with pytest.raises(ValueError, match="broadcast"):
        FrameSpec(mean=mean, std=std).normalise(x, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_normalise_keeps_dtype_and_device(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 1, 2, 2, dtype=dtype)
    y = FrameSpec(mean=(0.5, 0.25, 0), std=0.5).normalise(x, 3)
    assert y.dtype == dtype
    assert y[0, :, 0, 0].tolist() == [-1, -0.5, 0]
    assert FrameSpec().normalise(x.to("meta"), 3).device.type == "meta"


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_8_bit_values_of_another_type_are_8_bit(dtype: type) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read_frame(grey.astype(dtype)), read_frame(grey))
    # but not where they are no whole numbers, or of a 16-bit camera
    assert not np.array_equal(read_frame(grey * dtype(1.5)), read_frame(grey)) or np.issubdtype(dtype, np.integer)
    assert not np.array_equal(read_frame(grey.astype(np.uint16)), read_frame(grey))


@pytest.mark.parametrize("top", [255, 40000])
@pytest.mark.parametrize("kind", ["P2", "P5", "uint16 tiff", "int16 tiff", "big-endian int16 tiff", "png"])
def test_pillow_s_images_of_16_bit_files_have_16_bits(kind: str, top: int, tmp_path: Path) -> None:
    """Pillow hands some on with 32 bits, in which low counts would look like bytes."""
    counts = np.linspace(3, top, 48).astype(np.uint16).reshape(6, 8)
    file = tmp_path / ("f.pgm" if kind.startswith("P") else f"f.{kind.split()[-1]}")
    if kind == "P2":
        file.write_text("P2 8 6 65535\n" + " ".join(map(str, counts.ravel())) + "\n")
    elif kind == "P5":
        file.write_bytes(b"P5 8 6 65535\n" + counts.astype(">u2").tobytes())
    elif "int16 tiff" in kind:
        tifffile = pytest.importorskip("tifffile")
        array = counts if kind.startswith("u") else (counts // 2).astype(np.int16)
        tifffile.imwrite(file, array, byteorder=">" if kind.startswith("big") else "<")
    else:
        Image.fromarray(counts).save(file)
    with Image.open(file) as image:
        np.testing.assert_array_equal(read_frame(image), read_frame(file))


@pytest.mark.parametrize("head", ["P2 2 1 1023\n7 9\n", "P5 2 1 1023\n\0\7\0\x09"])
def test_counts_that_pillow_stretches_are_refused(head: str, tmp_path: Path) -> None:
    (tmp_path / "f.pgm").write_bytes(head.encode("latin1"))
    np.testing.assert_array_equal(decode(tmp_path / "f.pgm"), [[7, 9]])
    with Image.open(tmp_path / "f.pgm") as image, pytest.raises(FrameError, match="Pillow stretches these values"):
        read_frame(image)


@pytest.mark.parametrize("width", [1, 3, 4])
@pytest.mark.parametrize("height", [1, 3, 5])
def test_tensors_with_one_channel_are_of_any_width(height: int, width: int) -> None:
    tensor = torch.rand(1, height, width)
    np.testing.assert_array_equal(read_frame(tensor), read_frame(tensor[0]))


def test_16_bit_colour_is_read_whole(tmp_path: Path) -> None:
    """Pillow drops the low bytes."""

    # it can't write such a file either, so this one is put together by hand
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    counts = np.arange(7000, 7048, dtype=np.uint16).reshape(4, 4, 3)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in counts)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    np.testing.assert_array_equal(decode(tmp_path / "deep.png"), counts)
    with (
        Image.open(tmp_path / "deep.png") as image,
        pytest.raises(
            FrameError, match=r"deep\.png: Pillow drops the low bytes of 16-bit colour; pass the file's path"
        ),
    ):
        read_frame(image)
