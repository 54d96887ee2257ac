"""PNG files, checked chunk by chunk before Pillow's codec decodes the pixels.

Pillow leaves rows that the file doesn't hold at 0 and, if another library has set `LOAD_TRUNCATED_IMAGES`, damaged ones
too; its `frombytes` takes the pixel data alone, and that setting doesn't reach it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.held import HeldFile, check_pixel_count
from serank.frames.orientation import exif_orientation, upright
from serank.frames.pillow_images import look_up

PNG_START = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel of each colour type: grey, colour, palette, grey with alpha, colour with alpha."""
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced file: first column and row, step of columns and rows."""
BLOCK = 2**20


def read_png(held: HeldFile) -> NDArray[Any]:
    """The pixels, alpha dropped and palettes looked up.

    Returns:
        `(H, W)` or `(H, W, 3)`, uint8 (1, 2 and 4 bits of grey stretched to it) or uint16.

    Raises:
        FrameError: a damaged file, one that holds fewer rows than it declares, an animation, or too many pixels.
    """
    name, header, palette, exif, data = held.name, b"", b"", None, []
    for kind, content in _chunks(held):
        if kind == b"IHDR":
            header = content
        elif kind == b"PLTE":
            palette = content
        elif kind == b"eXIf":
            exif = content
        elif kind == b"tEXt" and content.startswith(b"Raw profile type exif\0"):
            exif = _raw_profile(content)
        elif kind == b"acTL" and int.from_bytes(content[:4], "big") > 1:
            raise FrameError(f"{name}: an animation; save its frames as single files, a TIFF file or a video")
        elif kind == b"IDAT":
            data.append(content)
    if len(header) != 13:
        raise FrameError(f"{name}: truncated or corrupt (no header)")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise FrameError(f"{name}: truncated or corrupt (its header makes no sense)")
    check_pixel_count(width, height, name)
    stream = b"".join(data)
    del data
    bits = depth * CHANNELS[colour]
    _check_held(stream, _expected(width, height, bits, interlaced=bool(interlace)), name)
    pixels = _decode(stream, (width, height), depth, colour, interlace)
    if colour == 3:
        colours = np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)
        pixels = look_up(pixels, colours, name)
    return upright(pixels, exif_orientation(exif))


def _chunks(held: HeldFile) -> Iterator[tuple[bytes, bytes]]:
    offset = len(PNG_START)
    while True:
        length, kind = struct.unpack(">I4s", held.read(offset, 8))
        content = held.read(offset + 8, length)
        (crc,) = struct.unpack(">I", held.read(offset + 8 + length, 4))
        if zlib.crc32(content, zlib.crc32(kind)) != crc:
            raise FrameError(f"{held.name}: truncated or corrupt (checksum of {kind!r})")
        if kind == b"IEND":
            return
        yield kind, content
        offset += 12 + length


def _raw_profile(content: bytes) -> bytes | None:
    """EXIF as ImageMagick writes it: lines of hexadecimal digits after three of text."""
    try:
        return bytes.fromhex("".join(content.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return None


def _expected(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Bytes of the unpacked stream: of every row one for its filter and its pixels."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    return total


def _check_held(stream: bytes, expected: int, name: str) -> None:
    """Unpacks the stream piece by piece, kept nowhere: it must be whole and hold what the header declares."""
    inflate, count = zlib.decompressobj(), 0
    rest = stream
    while not inflate.eof and count <= expected:
        piece = inflate.decompress(rest, BLOCK)
        rest = inflate.unconsumed_tail
        count += len(piece)
        if not piece and not rest:
            break
    if count < expected or not inflate.eof:
        raise FrameError(f"{name}: truncated or corrupt (declares {expected} bytes of pixels, holds {count})")


def _decode(stream: bytes, size: tuple[int, int], depth: int, colour: int, interlace: int) -> NDArray[Any]:
    def codec(mode: str, raw: str) -> NDArray[Any]:
        return np.asarray(Image.frombytes(mode, size, stream, "zip", raw, interlace))

    if colour == 3:
        return codec("P", "P" if depth == 8 else f"P;{depth}")
    if colour == 0:
        if depth == 1:
            return codec("1", "1").astype(np.uint8) * np.uint8(255)
        return (
            codec("I;16", "I;16B").astype(np.uint16) if depth == 16 else codec("L", "L" if depth == 8 else f"L;{depth}")
        )
    if depth == 8:
        pixels = codec({2: "RGB", 4: "LA", 6: "RGBA"}[colour], {2: "RGB", 4: "LA", 6: "RGBA"}[colour])
        grey_or_colour: NDArray[Any] = pixels[..., 0] if colour == 4 else pixels[..., :3]
        return grey_or_colour
    # Pillow has no 16-bit colour: the high bytes are read as one picture and the low ones as another
    if colour == 4:
        four = codec("RGBA", "RGBA")
        high, low = four[..., 0], four[..., 1]
    else:
        mode = "RGB" if colour == 2 else "RGBA"
        high, low = (codec(mode, f"{mode};16{order}")[..., :3] for order in "BL")
    whole: NDArray[Any] = (high.astype(np.uint16) << 8) | low
    return whole
