"""Files of rare kinds, written here byte by byte as their standards say, and what reading large ones costs."""

from __future__ import annotations

import ctypes
import gc
import re
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.frame import FramePreparer
from serank.frames.preparation import FrameSpec
from serank.frames.reading import decode
from serank.frames.sources import read_sources

tifffile = pytest.importorskip("tifffile", reason="writes what Pillow can't")

Array = NDArray[Any]
DEFLATE = 8


def test_three_frames_that_are_tagged_as_colours_are_warned_of(tmp_path: Path) -> None:
    """What tifffile makes of a stack of three, unless it is told."""
    counts = np.random.default_rng(0).normal(7000, 30, (3, 48, 64)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="rgb", planarconfig="separate")
    with pytest.warns(UserWarning, match=r"three channels of uint16 that differ.*photometric=\"minisblack\""):
        FramePreparer(FrameSpec())(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="minisblack")
    assert len(list(read_sources([tmp_path / "a.tif"]))) == 3


def numbers(code: str, *shape: int, bits: int | None = None) -> Array:
    rng = np.random.default_rng(11)
    if np.dtype(code).kind == "f":
        return rng.normal(290, 20, shape).astype(code)
    return rng.integers(0, 2 ** (bits or 8 * np.dtype(code).itemsize), shape, dtype=code)


def tiff(shape: tuple[int, ...], data: bytes, tags: Mapping[int, int], order: str = "<") -> bytes:
    """A TIFF file of one strip, compressed by deflate."""
    height, width, *samples = shape
    strip = zlib.compress(data)
    fields = {256: width, 257: height, 258: 8, 259: DEFLATE, 262: 2 if samples == [3] else 1, 273: 8}
    fields |= {277: samples[0] if samples else 1, 278: height, 279: len(strip), **tags}
    strip += b"\0" * (len(strip) % 2)
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(strip))
    return start + strip + struct.pack(order + "H", len(fields)) + entries + b"\0\0\0\0"


def float_predicted(array: Array) -> bytes:
    """Rows of all first bytes, then all second ones and so on, as differences; Adobe, TIFF Technical Note 3."""
    samples = array.shape[2] if array.ndim == 3 else 1
    rows = []
    for row in array:
        values = np.frombuffer(row.astype(array.dtype.newbyteorder(">")).tobytes(), np.uint8)
        planes = values.reshape(-1, array.dtype.itemsize).T.reshape(-1)
        differences = planes.copy()
        differences[samples:] = planes[samples:] - planes[:-samples]
        rows.append(differences.tobytes())
    return b"".join(rows)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3)])
def test_tiff_of_predicted_floats(tmp_path: Path, code: str, shape: tuple[int, ...], order: str) -> None:
    stored = numbers(code, *shape)
    file = tmp_path / "kelvin.tif"
    tags = {258: 8 * stored.itemsize, 317: 3, 339: 3}
    file.write_bytes(tiff(shape, float_predicted(stored), tags, order))
    found = decode(file)
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)
    file.write_bytes(tiff(shape, float_predicted(stored), tags | {339: 1}, order))  # the same of integers
    with pytest.raises(FrameError, match=r"kelvin\.tif: "):
        decode(file)


@pytest.mark.parametrize("code", ["u1", "u2", "f4"])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 4}, {"tile": (16, 16)}, {"compression": "zlib"}])
def test_planar_tiff(tmp_path: Path, code: str, options: dict[str, Any]) -> None:
    planes = numbers(code, 3, 21, 34)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", metadata=None, **options)
    found = decode(tmp_path / "a.tif")
    assert found.dtype == planes.dtype
    np.testing.assert_array_equal(found, planes.transpose(1, 2, 0))


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("width", [8, 13])
def test_tiff_of_odd_bits(tmp_path: Path, bits: int, width: int) -> None:
    """Values follow each other bit by bit, the highest first; each row begins at a whole byte."""
    stored = numbers("u2", 7, width, bits=bits)
    digits = (stored[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(digits.reshape(7, -1).astype(np.uint8), axis=1).tobytes()
    (tmp_path / "counts.tif").write_bytes(tiff(stored.shape, packed, {258: bits}))
    found = decode(tmp_path / "counts.tif")
    if bits > 8:
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, stored)
    else:  # a share of the largest value
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, stored * 255 // (2**bits - 1))
    (tmp_path / "counts.tif").write_bytes(tiff((8, width), packed, {258: bits}))  # a row more than it holds
    with pytest.raises(FrameError, match=r"counts\.tif: truncated or corrupt"):
        decode(tmp_path / "counts.tif")


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, step of rows and columns of each pass; PNG specification, section 8.2."""


def interlaced(array: Array, colour: int) -> bytes:
    """A PNG file in seven passes, rows unfiltered."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    passes = [array[top::down, left::across] for top, left, down, across in ADAM7]
    wide = array.dtype.newbyteorder(">")
    stream = b"".join(b"\0" + row.astype(wide).tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 8 * array.itemsize, colour, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(stream)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("code", ["u1", "u2"])
@pytest.mark.parametrize("colour", [0, 2, 4, 6])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (13, 21)])
def test_interlaced_png(tmp_path: Path, code: str, colour: int, size: tuple[int, int]) -> None:
    channels = {0: (), 2: (3,), 4: (2,), 6: (4,)}[colour]
    stored = numbers(code, *size, *channels)
    (tmp_path / "frame.png").write_bytes(interlaced(stored, colour))
    found = decode(tmp_path / "frame.png")
    seen = {0: stored, 2: stored, 4: stored[..., 0] if channels else stored, 6: stored[..., :3]}[colour]
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, seen)


def memory(entry: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most since the last reset."""
    found = re.search(rf"^{entry}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def bytes_a_pixel(file: Path, read: Callable[[Path], Array]) -> float:
    """What reading adds to the memory of this process at its peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, or it would be used again uncounted
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    height, width = read(file).shape[:2]
    return float((memory("VmHWM") - before) / (height * width))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs the GNU C library")
@pytest.mark.parametrize("kind", ["page.tif", "deflate.tif", "grey.png", "colour.png", "deep.png", "counts.npy"])
def test_memory_of_reading(tmp_path: Path, kind: str) -> None:
    """At most 16 bytes a pixel, the file among them: 16384 x 8192 px take 2 GB."""
    rng = np.random.default_rng(0)
    deep = rng.integers(7000, 7064, (2000, 2000), np.uint16)
    file = tmp_path / kind
    if kind.endswith("tif"):  # one strip of all rows
        compression = "zlib" if kind == "deflate.tif" else None
        tifffile.imwrite(file, deep, photometric="minisblack", metadata=None, compression=compression)
    elif kind == "deep.png":
        Image.fromarray(deep).save(file, compress_level=1)
    elif kind == "counts.npy":
        np.save(file, deep)
    else:
        grey = (deep - 7000).astype(np.uint8)
        channels = np.stack([grey, grey + np.uint8(1), grey], axis=2)
        Image.fromarray(channels if kind == "colour.png" else grey).save(file, compress_level=1)
    del deep
    found = bytes_a_pixel(file, decode)
    print(f"{kind}: {found:.1f} bytes a pixel")
    assert 0.5 < found < 16


@pytest.mark.parametrize("big", [False, True])
def test_page_one_of_20001(tmp_path: Path, big: bool) -> None:
    """Found without walking all pages: the others may be damaged."""
    file = tmp_path / "clip.tif"
    page = numbers("u1", 8, 8)
    with tifffile.TiffWriter(file, bigtiff=big) as writer:
        writer.write(np.broadcast_to(page, (20_001, 8, 8)), photometric="minisblack", metadata=None)
    start = time.process_time()
    with pytest.warns(UserWarning, match=r"clip\.tif: frame 1 of 20001 is read"):
        np.testing.assert_array_equal(decode(file), page)
    assert time.process_time() - start < 1.5
