"""JPEG 2000 files: the codestream is walked tile by tile, since the codec takes what is cut off for empty."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import features

from serank.errors import FrameError
from serank.frames.held import HeldFile, check_pixel_count
from serank.frames.pillow_images import image_pixels

CODESTREAM = b"\xff\x4f\xff\x51"
JP2_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", CODESTREAM)
SOT, EOC = 0xFF90, 0xFFD9


def read_jpeg2000(held: HeldFile) -> NDArray[Any]:
    """The pixels, `(H, W)` uint8 or uint16 as stored, or `(H, W, 3)` uint8.

    Raises:
        FrameError: a damaged file, tiles that are missing, signed values, colour of more than 8 bits, or too many
            pixels.
    """
    name = held.name
    if not features.check("jpg_2000"):
        raise FrameError(
            f"{name}: this Pillow is built without JPEG 2000; install one with it, or save the file as PNG"
        )
    start = _codestream(held)
    size = held.read(start + 6, 36)
    _, right, bottom, left, top, wide, high, tile_left, tile_top, count = struct.unpack(">H8IH", size)
    check_pixel_count(right - left, bottom - top, name)
    depths = {held.read(start + 42 + 3 * i, 1)[0] for i in range(count)}
    bits = max(depths) + 1
    if bits > 128:
        raise FrameError(f"{name}: JPEG 2000 of signed values can't be read; save it as TIFF")
    if bits > 16 or len(depths) > 1 or (count > 2 and bits > 8):
        raise FrameError(
            f"{name}: JPEG 2000 colour or values of {bits} bits can't be read without loss; save it as grey"
        )
    if not wide or not high:
        raise FrameError(f"{name}: truncated or corrupt (tiles without a size)")
    tiles = -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high)
    _check_tiles(held, start, tiles)
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    held.stream.seek(0)
    with Jpeg2KImageFile(held.stream) as image:
        pixels = np.array(image_pixels(image, name))
    # the codec stretches values to whole bytes by shifting them
    return pixels >> (16 - bits if pixels.dtype == np.uint16 else 0)


def _codestream(held: HeldFile) -> int:
    """Where the codestream begins: at once, or in the box that holds it."""
    if held.head(4) == CODESTREAM:
        return 0
    at = 0
    while True:
        length, kind = struct.unpack(">I4s", held.read(at, 8))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", held.read(at + 8, 8))
            head = 16
        if kind == b"jp2c":
            if length:
                held.read(at + length - 1, 1)
            return at + head
        if length < head:
            raise FrameError(f"{held.name}: truncated or corrupt (a box of {length} bytes)")
        at += length


def _check_tiles(held: HeldFile, start: int, tiles: int) -> None:
    """Walks from tile part to tile part up to the mark of the end; every tile must have come."""
    at, seen = start + 2, set[int]()
    while True:
        marker, length = struct.unpack(">HH", held.read(at, 4)) if at + 4 <= held.size else (held.read(at, 2), 0)
        if marker in (EOC, b"\xff\xd9"):
            break
        if marker == SOT:
            tile, size = struct.unpack(">HI", held.read(at + 4, 6))
            seen.add(tile)
            if size == 0:  # the last part, up to the end of the codestream
                if held.read(held.size - 2, 2) != b"\xff\xd9":
                    raise FrameError(f"{held.name}: truncated or corrupt (its pixels don't end)")
                break
            if size < 12:
                raise FrameError(f"{held.name}: truncated or corrupt (a tile of {size} bytes)")
            at += size
        elif length < 2 or seen:
            raise FrameError(f"{held.name}: truncated or corrupt (a marker is missing at byte {at})")
        else:
            at += 2 + length
    if len(seen) != tiles:
        raise FrameError(f"{held.name}: truncated or corrupt (holds {len(seen)} tiles of the {tiles} it declares)")
