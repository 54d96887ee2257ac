"""Frames: files to arrays, and arrays to what a network takes."""

from serank.frames.preparation import FrameSpec
from serank.frames.reading import FrameLike, read_frame

__all__ = ["FrameLike", "FrameSpec", "read_frame"]
