"""Strips and tiles of TIFF files to values: compression, packed bits, byte order and predictors."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from serank.errors import FrameError
from serank.frames.jpeg import decode_jpeg
from serank.frames.tiff_tags import Directory, Tag

NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 7, 8, 32946, 32773
FAX = (2, 3, 4)
NAMES = {6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}
REVERSED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)
ROWS = 256
"""Rows of packed bits that are unpacked at once, which takes a byte for each bit."""


@dataclass(frozen=True)
class Segment:
    """A strip or tile."""

    rows: int
    width: int
    samples: int
    bits: int
    code: str
    """NumPy's type of the values, without byte order."""
    compression: int
    predictor: int
    fill_order: int

    @property
    def row_size(self) -> int:
        """Bytes of a row."""
        return -(-self.width * self.samples * self.bits // 8)

    @property
    def packed_size(self) -> int:
        """Bytes without compression."""
        return self.row_size * self.rows


def unpack_segment(directory: Directory, segment: Segment, offset: int, count: int) -> NDArray[Any]:
    """The values of a strip or tile.

    Args:
        directory: of its page.
        segment: its size and type.
        offset: of its first byte.
        count: bytes that the file has for it.

    Returns:
        `(rows, width, samples)` of `segment.code`.

    Raises:
        FrameError: it holds fewer bytes than its size needs, is damaged, or of a kind that can't be read.
    """
    name = directory.held.name
    if segment.compression == JPEG:
        return _jpeg(directory, segment, directory.held.read(offset, count))
    packed = _packed(directory, segment, offset, count)
    if len(packed) < segment.packed_size:
        raise FrameError(
            f"{name}: truncated or corrupt (a strip or tile of {len(packed)} bytes, its size needs "
            f"{segment.packed_size})"
        )
    if segment.bits not in (8, 16, 32, 64):
        if segment.predictor != 1:
            raise FrameError(f"{name}: a predictor with {segment.bits}-bit values can't be read; save it without")
        return _unpack_bits(packed, segment)
    shape = segment.rows, segment.width, segment.samples
    if segment.predictor == 3:
        return _floating(packed, segment, name)
    values: NDArray[Any] = np.frombuffer(packed, directory.order + segment.code, count=int(np.prod(shape)))
    values = values.reshape(shape).astype(segment.code, copy=False)
    if segment.predictor == 2:
        whole = values.view(f"u{values.itemsize}")  # differences of floats are those of their bits
        return np.cumsum(whole, axis=1, dtype=whole.dtype).view(segment.code)
    if segment.predictor != 1:
        raise FrameError(f"{name}: predictor {segment.predictor} can't be read; save it without")
    return values


def _packed(directory: Directory, segment: Segment, offset: int, count: int) -> bytes:
    held = directory.held
    size = segment.packed_size
    if segment.compression == NONE:
        data = held.read(offset, min(count, size))
        if segment.fill_order == 2 and segment.bits < 8:
            return REVERSED[np.frombuffer(data, np.uint8)].tobytes()
        return data
    data = held.read(offset, count)
    if segment.compression in (DEFLATE, OLD_DEFLATE):
        inflate = zlib.decompressobj()
        unpacked = inflate.decompress(data, size)
        inflate.decompress(inflate.unconsumed_tail, 64)  # reads on to the checksum, which it compares
        return unpacked
    if segment.compression in (LZW, PACKBITS) or (segment.compression in FAX and segment.bits * segment.samples == 1):
        return _libtiff(directory, segment, data)
    kind = NAMES.get(segment.compression, f"number {segment.compression}")
    raise FrameError(f"{held.name}: TIFF compression {kind} can't be read; save it uncompressed, as LZW or as deflate")


def _libtiff(directory: Directory, segment: Segment, data: bytes) -> bytes:
    """Unpacks bytes by libtiff, as the one strip of a file of 8 bits grey, or of 1 bit for fax, made for it."""
    fax = segment.compression in FAX
    fields = [
        (Tag.IMAGE_WIDTH, segment.width if fax else segment.row_size),
        (Tag.IMAGE_LENGTH, segment.rows),
        (Tag.BITS_PER_SAMPLE, 1 if fax else 8),
        (Tag.COMPRESSION, segment.compression),
        (Tag.PHOTOMETRIC_INTERPRETATION, 1),
        (Tag.FILL_ORDER, segment.fill_order),
        (Tag.STRIP_OFFSETS, 8),
        (Tag.SAMPLES_PER_PIXEL, 1),
        (Tag.ROWS_PER_STRIP, segment.rows),
        (Tag.STRIP_BYTE_COUNTS, len(data)),
    ]
    fields += [(tag, directory.number(tag, 0)) for tag in (Tag.T4_OPTIONS, Tag.T6_OPTIONS) if fax and tag in directory]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    body = data + b"\0" * (len(data) % 2)
    file = struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body
    file += struct.pack("<H", len(fields)) + entries + b"\0\0\0\0"
    with TiffImagePlugin.TiffImageFile(io.BytesIO(file)) as image:
        pixels = np.asarray(image)
    return np.packbits(pixels, axis=1).tobytes() if fax else pixels.tobytes()


def _jpeg(directory: Directory, segment: Segment, data: bytes) -> NDArray[Any]:
    name = directory.held.name
    colours = {2: "RGB", 6: "YCbCr"}.get(directory.number(Tag.PHOTOMETRIC_INTERPRETATION, 1), "")
    if segment.samples == 4 and colours == "RGB":
        colours = "RGBA"
    elif segment.samples not in (1, 3):
        raise FrameError(f"{name}: JPEG of {segment.samples} samples can't be read; save it uncompressed or as LZW")
    tables = directory.numbers(Tag.JPEG_TABLES).tobytes()
    if tables:
        data = tables[:-2] + data[2:]
    pixels = decode_jpeg(data, name, colours)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if segment.bits != 8 or pixels.shape[2] != segment.samples:
        raise FrameError(f"{name}: JPEG within TIFF of this kind can't be read; save it uncompressed or as LZW")
    if pixels.shape[0] < segment.rows or pixels.shape[1] < segment.width:
        raise FrameError(f"{name}: truncated or corrupt (a strip or tile of {pixels.shape[0]} x {pixels.shape[1]})")
    return pixels[: segment.rows, : segment.width]


def _unpack_bits(packed: bytes, segment: Segment) -> NDArray[Any]:
    """Values of any number of bits up to 16; rows begin at whole bytes."""
    rows = np.frombuffer(packed, np.uint8, count=segment.packed_size).reshape(segment.rows, segment.row_size)
    out = np.zeros((segment.rows, segment.width * segment.samples), segment.code)
    for top in range(0, segment.rows, ROWS):
        bits = np.unpackbits(rows[top : top + ROWS], axis=1)[:, : segment.width * segment.samples * segment.bits]
        part = out[top : top + ROWS]
        for i in range(segment.bits):
            part |= bits[:, i :: segment.bits].astype(segment.code) << (segment.bits - 1 - i)
    return out.reshape(segment.rows, segment.width, segment.samples)


def _floating(packed: bytes, segment: Segment, name: str) -> NDArray[Any]:
    """Undoes predictor 3: rows of all high bytes, then all lower ones, as differences of bytes."""
    size = int(segment.code[1:])
    if segment.code[0] != "f":
        raise FrameError(f"{name}: truncated or corrupt (a predictor of floats for {segment.code})")
    rows = np.frombuffer(packed, np.uint8, count=segment.packed_size).reshape(segment.rows, -1, segment.samples)
    planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(segment.rows, size, -1)
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
    return values.astype(segment.code).reshape(segment.rows, segment.width, segment.samples)
