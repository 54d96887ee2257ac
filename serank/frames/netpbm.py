"""Grey netpbm files (.pgm), of text and of bytes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.held import HeldFile, check_pixel_count

PGM_STARTS = (b"P2", b"P5")
_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P[25]" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})\s")
MAX_HEADER = 2**12


def read_pgm(held: HeldFile) -> NDArray[Any]:
    """The pixels of a PGM file.

    Returns:
        `(H, W)` uint8, a largest value below 255 stretched to 255; uint16 as stored where it is above.

    Raises:
        FrameError: a damaged file, fewer or more values than it declares, or too many pixels.
    """
    name, head = held.name, held.head(MAX_HEADER)
    found = _HEADER.match(head)
    if found is None:
        raise FrameError(f"{name}: truncated or corrupt (its header makes no sense)")
    width, height, top = map(int, found.groups())
    check_pixel_count(width, height, name)
    if not 0 < top <= 65535:
        raise FrameError(f"{name}: truncated or corrupt (a largest value of {top})")
    deep = top > 255
    if head.startswith(b"P5"):
        size = width * height * (2 if deep else 1)
        values = np.frombuffer(held.read(found.end(), size), ">u2" if deep else "u1")
        if held.read(found.end() + size, held.size - found.end() - size).strip():
            raise FrameError(f"{name}: holds more than one picture; save each in a file of its own")
    else:
        text = held.read(found.end(), held.size - found.end())
        if not text[-1:].isspace():
            raise FrameError(f"{name}: truncated or corrupt (its last number may be cut off: no line break follows)")
        words = text.split(None, width * height)
        if len(words) != width * height or not all(word.isdigit() and len(word) < 6 for word in words):
            raise FrameError(f"{name}: truncated or corrupt (expected {width * height} numbers)")
        values = np.array(words).astype(np.uint32)
    if values.max() > top:
        raise FrameError(f"{name}: truncated or corrupt (values above the {top} that it declares)")
    pixels = values.reshape(height, width)
    if deep:
        return pixels.astype(np.uint16)
    return pixels.astype(np.uint8) if top == 255 else (pixels * np.float32(255 / top)).round().astype(np.uint8)
