"""The tags of TIFF files and of EXIF data, page by page, read only as far as they are asked for.

TIFF 6.0 (Adobe, 1992) and BigTIFF. Every offset and count is checked against the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.held import HeldFile

TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4"}
TYPES |= {16: "u8", 17: "i8", 18: "u8"}
"""NumPy's codes of the types of tags; rationals are left out, since no tag that matters here has them."""
MAX_TEXT = 2**16


class Tag(IntEnum):
    """Numbers of tags, by their names in TIFF 6.0; JPEGTables is of its second technical note, ImageDepth of SGI."""

    NEW_SUBFILE_TYPE = 254
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC_INTERPRETATION = 262
    FILL_ORDER = 266
    IMAGE_DESCRIPTION = 270
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    PLANAR_CONFIGURATION = 284
    T4_OPTIONS = 292
    T6_OPTIONS = 293
    SOFTWARE = 305
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    IMAGE_DEPTH = 32997


class Directory:
    """The tags of a page.

    Attributes:
        next: offset of the next directory, 0 after the last.
    """

    def __init__(self, held: HeldFile, order: str, offset: int, *, big: bool) -> None:
        self.held, self.order, self._big = held, order, big
        width, code = (8, "Q") if big else (2, "H")
        (count,) = struct.unpack(order + code, held.read(offset, width))
        self._start = offset + width
        self._size = 20 if big else 12
        link = 8 if big else 4
        raw = held.read(self._start, count * self._size + link)
        self._raw = raw[:-link]
        (self.next,) = struct.unpack(order + ("Q" if big else "I"), raw[-link:])

    @property
    def is_preview(self) -> bool:
        """Whether the page is a smaller copy of another one or its mask of opacity."""
        if not self._raw or struct.unpack_from(f"{self.order}H", self._raw)[0] > Tag.NEW_SUBFILE_TYPE:
            return False  # tags are in ascending order; this is the first of them
        return bool(self.number(Tag.NEW_SUBFILE_TYPE, 0) & 0b101)

    @cached_property
    def _entries(self) -> dict[int, tuple[int, int, int]]:
        """For each tag its type, its count and the offset of its first value."""
        found: dict[int, tuple[int, int, int]] = {}
        layout = struct.Struct(self.order + ("HHQ8s" if self._big else "HHI4s"))
        for i, (tag, kind, count, value) in enumerate(layout.iter_unpack(self._raw)):
            inline = count * np.dtype(TYPES.get(kind, "u1")).itemsize <= len(value)
            at = self._start + (i + 1) * self._size - len(value)
            found[tag] = (
                kind,
                count,
                at if inline else struct.unpack(self.order + ("Q" if self._big else "I"), value)[0],
            )
        return found

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def numbers(self, tag: int) -> NDArray[Any]:
        """All values of a tag, empty where it isn't there.

        Raises:
            FrameError: they lie beyond the file's end, or are no numbers.
        """
        if tag not in self._entries:
            return np.zeros(0, np.int64)
        kind, count, at = self._entries[tag]
        if kind not in TYPES:
            raise FrameError(f"{self.held.name}: truncated or corrupt (tag {tag} has the unknown type {kind})")
        dtype = np.dtype(TYPES[kind]).newbyteorder("<" if self.order == "<" else ">")
        return np.frombuffer(self.held.read(at, count * dtype.itemsize), dtype)

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag as an integer."""
        values = self.numbers(tag)
        return int(values[0]) if len(values) else default

    def text(self, tag: int) -> str:
        """The beginning of a text, empty where it isn't there."""
        if tag not in self._entries or self._entries[tag][0] not in (1, 2, 7):
            return ""
        _, count, at = self._entries[tag]
        return self.held.read(at, min(count, MAX_TEXT)).rstrip(b"\0").decode("utf-8", "replace")


class TiffTags:
    """The directories of a TIFF file, one after the other.

    Raises:
        FrameError: it doesn't begin as TIFF does.
    """

    def __init__(self, held: HeldFile) -> None:
        self.held = held
        self.order = {b"II": "<", b"MM": ">"}.get(held.head(2), "")
        if not self.order:
            raise FrameError(f"{held.name}: truncated or corrupt (no TIFF header)")
        (version,) = struct.unpack(self.order + "H", held.read(2, 2))
        self.big = version == 43
        self._first: int = (
            struct.unpack(self.order + "Q", held.read(8, 8))[0]
            if self.big
            else struct.unpack(self.order + "I", held.read(4, 4))[0]
        )

    def __iter__(self) -> Iterator[Directory]:
        """Raises `FrameError` where the chain leaves the file or comes back to itself."""
        offset, seen = self._first, set[int]()
        if not offset:
            raise FrameError(f"{self.held.name}: truncated or corrupt (a TIFF file without pages)")
        while offset:
            if offset in seen:
                raise FrameError(f"{self.held.name}: truncated or corrupt (its pages form a loop)")
            seen.add(offset)
            try:
                directory = Directory(self.held, self.order, offset, big=self.big)
            except FrameError:
                raise FrameError(
                    f"{self.held.name}: truncated or corrupt (the tags of page {len(seen)} are cut off)"
                ) from None
            yield directory
            offset = directory.next
