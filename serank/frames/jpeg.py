"""JPEG files, walked marker by marker before Pillow's codec decodes them.

The codec fills what the file doesn't hold with grey and says nothing. Whether it did is found by giving it more data at
the end of the first scan: where the file is whole they change nothing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.held import HeldFile, check_pixel_count
from serank.frames.orientation import exif_orientation, upright

EOI, SOS, DRI, APP1 = 0xD9, 0xDA, 0xDD, 0xE1
FRAMES = {0xC0, 0xC1, 0xC2}
"""Start of a frame: baseline, extended and progressive, with Huffman codes."""
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
PADDING = bytes((73 * i * i + 29 * i + 11) % 251 for i in range(256))
"""Any codes but the byte 255."""


@dataclass
class _Structure:
    width: int = 0
    height: int = 0
    sampling: list[tuple[int, int]] = field(default_factory=list)
    restart_interval: int = 0
    restarts: list[int] = field(default_factory=list)
    """Restart markers in each scan."""
    scan_components: list[int] = field(default_factory=list)
    first_scan_end: int = 0
    end: int = 0
    """After the marker that ends the picture."""
    exif: bytes | None = None


def read_jpeg(held: HeldFile) -> NDArray[Any]:
    """The pixels, upright.

    Returns:
        `(H, W)` or `(H, W, 3)` uint8.

    Raises:
        FrameError: a damaged or unfinished file, one that holds fewer rows than it declares, another number of bits
            than 8, or too many pixels.
    """
    data = held.all()
    return upright(decode_jpeg(data, held.name), exif_orientation(_walk(data, held.name).exif))


def decode_jpeg(data: bytes, name: str, colours: str = "") -> NDArray[Any]:
    """The pixels of a JPEG stream as they are stored; see `read_jpeg`.

    Args:
        data: the stream.
        name: what errors call it.
        colours: `"RGB"` or `"YCbCr"`, what three components are; `"RGBA"` takes four as they are stored; empty leaves
            it to the stream's own marks, by which four are CMYK.

    Returns:
        `(H, W)` or `(H, W, 3)` uint8; `(H, W, 4)` of `"RGBA"`.
    """
    structure = _walk(data, name)
    check_pixel_count(structure.width, structure.height, name)
    _check_restarts(structure, name)
    pixels = _codec(structure, data[: structure.end], colours)
    corner = pixels[-8:, -8:]
    if (corner == corner[:1, :1]).all():  # as filled blocks are; no need to look twice at others
        at = structure.first_scan_end
        padded = _codec(structure, data[:at] + PADDING + data[at : structure.end], colours)
        if not np.array_equal(padded, pixels):
            raise FrameError(f"{name}: truncated or corrupt (holds fewer rows than the {structure.height} it declares)")
    return pixels


def _walk(data: bytes, name: str) -> _Structure:
    found, at = _Structure(), 2
    while True:
        if at + 2 > len(data) or data[at] != 0xFF:
            raise FrameError(f"{name}: truncated or corrupt (a marker is missing at byte {at})")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == EOI:
            found.end = at + 2
            break
        (length,) = struct.unpack_from(">H", data, at + 2) if at + 4 <= len(data) else (0,)
        content = data[at + 4 : at + 2 + length]
        if length < 2 or len(content) != length - 2:
            raise FrameError(f"{name}: truncated or corrupt (cut off at byte {at})")
        at += 2 + length
        if marker in OTHER_FRAMES:
            raise FrameError(f"{name}: JPEG of a rare kind (arithmetic, lossless or hierarchical); save it as PNG")
        if marker in FRAMES and len(content) >= 6:
            _frame(found, content, name)
        elif marker == DRI and len(content) == 2:
            (found.restart_interval,) = struct.unpack(">H", content)
        elif marker == APP1 and content.startswith(b"Exif\0\0") and found.exif is None:
            found.exif = content
        elif marker == SOS and content:
            end = _MARKER.search(data, at)
            if end is None:
                raise FrameError(f"{name}: truncated or corrupt (its pixels don't end)")
            found.restarts.append(len(_RESTART.findall(data, at, end.start())))
            found.scan_components.append(content[0])
            at = end.start()
            found.first_scan_end = found.first_scan_end or at
    if not found.sampling or not found.scan_components:
        raise FrameError(f"{name}: truncated or corrupt (no pixels)")
    return found


def _frame(found: _Structure, content: bytes, name: str) -> None:
    bits, found.height, found.width, count = struct.unpack_from(">BHHB", content)
    if bits != 8:
        raise FrameError(f"{name}: JPEG of {bits} bits; save it as 16-bit PNG or TIFF")
    if count not in (1, 3, 4) or len(content) < 6 + 3 * count or found.sampling:
        raise FrameError(f"{name}: truncated or corrupt (its frame header makes no sense)")
    found.sampling = [(content[7 + 3 * i] >> 4, content[7 + 3 * i] & 15) for i in range(count)]
    if not all(across and down for across, down in found.sampling):
        raise FrameError(f"{name}: truncated or corrupt (its frame header makes no sense)")


def _check_restarts(structure: _Structure, name: str) -> None:
    """Where all components lie in one scan, the number of its restart markers follows from the size."""
    interval = structure.restart_interval
    if not interval or len(structure.restarts) > 1 or structure.scan_components[0] != len(structure.sampling):
        return
    single = len(structure.sampling) == 1
    across, down = (1, 1) if single else (max(s[i] for s in structure.sampling) for i in (0, 1))
    units = -(-structure.width // (8 * across)) * -(-structure.height // (8 * down))
    if structure.restarts[0] != (expected := (units - 1) // interval):
        raise FrameError(
            f"{name}: truncated or corrupt (holds {structure.restarts[0]} restart marks, its size needs {expected})"
        )


def _codec(structure: _Structure, data: bytes, colours: str) -> NDArray[Any]:
    mode, raw = {1: ("L", "L"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK;I")}[len(structure.sampling)]
    stored = mode == "CMYK" and colours == "RGBA"
    raw, colours = ("CMYK", "CMYK") if stored else (raw, colours)  # the codec's name of four that it leaves as they are
    image = Image.frombytes(mode, (structure.width, structure.height), data, "jpeg", raw, colours)
    return np.asarray(image.convert("RGB") if mode == "CMYK" and not stored else image)
