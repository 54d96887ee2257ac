"""Frames: files to arrays, and arrays to what a network takes."""

from serank.frames.defects import repair_defects
from serank.frames.frame import Frame, FramePreparer
from serank.frames.options import FrameOptions
from serank.frames.preparation import FrameSpec
from serank.frames.reading import FrameLike, read_frame

__all__ = ["Frame", "FrameLike", "FrameOptions", "FramePreparer", "FrameSpec", "read_frame", "repair_defects"]
