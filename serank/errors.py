"""Errors that serank raises beside Python's own."""

from __future__ import annotations

__all__ = ["CheckpointError", "FrameError"]


class FrameError(ValueError):
    """A frame or mask that can't be read or used; the message names the file and the reason."""


class CheckpointError(ValueError):
    """A checkpoint that can't be read or doesn't fit; the message names the file and what differs."""
