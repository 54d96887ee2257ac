"""A file whose every read is checked against its size, so that a header's promises cost no memory or time."""

from __future__ import annotations

import os
from typing import BinaryIO

from serank.errors import FrameError

MAX_PIXELS = 2**27
"""Largest frame that is decoded, such as 16384 x 8192: a file that claims more is refused as a decompression bomb."""


class HeldFile:
    """A binary stream of known size.

    Args:
        stream: seekable; stays open.
        name: what errors call it.

    Attributes:
        size: bytes in it.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.name = stream, name
        self.size = stream.seek(0, os.SEEK_END)

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes from `offset`.

        Raises:
            FrameError: they end beyond the file's end.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise FrameError(
                f"{self.name}: truncated or corrupt (declares {count} bytes at {offset}, holds {self.size} in all)"
            )
        self.stream.seek(offset)
        data = self.stream.read(count)
        if len(data) != count:
            raise FrameError(f"{self.name}: truncated or corrupt (it shrank while it was read)")
        return data

    def head(self, count: int) -> bytes:
        """The first bytes, at most `count`."""
        return self.read(0, min(count, self.size))

    def all(self) -> bytes:
        """The whole content."""
        return self.read(0, self.size)


def check_pixel_count(width: int, height: int, name: str) -> None:
    """Raises `FrameError` for an empty side or more than `MAX_PIXELS`."""
    if width < 1 or height < 1:
        raise FrameError(f"{name}: truncated or corrupt (declares {width}x{height} pixels)")
    if width * height > MAX_PIXELS:
        raise FrameError(f"{name}: {width}x{height} is more than {MAX_PIXELS} pixels; crop or tile it first")
