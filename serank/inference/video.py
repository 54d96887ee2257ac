"""Video files of detections, written through PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.utils.files import replacing

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

CONTAINERS = (".mp4", ".mkv", ".mov", ".avi")
CODECS = ("libx264", "mpeg4")
"""The first that PyAV's FFmpeg has: H.264, which browsers play, else MPEG-4 part 2."""
QUALITY = {"libx264": {"crf": "18", "preset": "fast"}, "mpeg4": {"qscale": "2"}}
"""Fine enough for targets of a few pixels to stay visible."""
DEFAULT_RATE = Fraction(25)
"""Frames a second where the source has no rate of its own."""


def check_video(path: str | os.PathLike[str]) -> Path:
    """The path of a video to be written.

    Raises:
        ValueError: its suffix is none of a video that can be written.
        FileNotFoundError: its folder doesn't exist.
        ImportError: PyAV isn't installed.
    """
    target = Path(path)
    if target.suffix.lower() not in CONTAINERS:
        raise ValueError(f"video {str(target)!r} has no suffix that can be written; use {', '.join(CONTAINERS)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: its folder doesn't exist; make it first")
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{target}: videos need PyAV; pip install 'serank[video]'") from error
    return target


def frame_rate(path: Path) -> Fraction:
    """Frames a second of a video; `DEFAULT_RATE` where it doesn't say, or can't be read."""
    import av

    try:
        with av.open(str(path)) as container:
            streams = container.streams.video
            return (streams[0].average_rate if streams else None) or DEFAULT_RATE
    except (av.error.FFmpegError, OSError):
        return DEFAULT_RATE


class VideoWriter:
    """Encodes pictures of one size; made by `video_writer`.

    Args:
        container: open for writing.
        codec: name of FFmpeg's encoder.
        rate: frames a second.
    """

    def __init__(self, container: OutputContainer, codec: str, rate: Fraction) -> None:
        self._container = container
        self._codec = codec
        self._rate = rate
        self._stream: VideoStream | None = None
        self._size = (0, 0)

    def add(self, picture: Image.Image) -> None:
        """Encodes the next picture; odd sides, which the codecs refuse, get one more row or column of the edge.

        Raises:
            ValueError: it has another size than the first one.
        """
        import av

        if self._stream is None:
            self._size = picture.size
            self._stream = self._new_stream()
        if picture.size != self._size:
            raise ValueError(
                f"a video has frames of one size: this one is {picture.width}x{picture.height}, the first was "
                f"{self._size[0]}x{self._size[1]}; write a video for each size"
            )
        pixels: NDArray[Any] = np.asarray(picture.convert("RGB"))
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))

    def _new_stream(self) -> VideoStream:
        import av

        stream = self._container.add_stream(self._codec, rate=self._rate, options=QUALITY[self._codec])
        assert isinstance(stream, av.VideoStream)
        width, height = self._size
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"  # the one that every player takes
        return stream

    def finish(self) -> bool:
        """Encodes what the codec still holds back; whether there is any frame."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        return self._stream is not None


@contextmanager
def video_writer(path: str | os.PathLike[str], rate: Fraction = DEFAULT_RATE) -> Iterator[VideoWriter]:
    """A writer of a video that appears at `path` when it is finished.

    After Ctrl-C the video holds the frames that were added; after an error there is none, and an earlier file stays.
    Without a frame there is none either.

    Args:
        path: its suffix, `.mp4`, `.mkv`, `.mov` or `.avi`, sets the container.
        rate: frames a second.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: the folder of `path` doesn't exist.
        ImportError: PyAV isn't installed.
        OSError: it can't be written.
    """
    target = check_video(path)
    import av

    codec = next(name for name in CODECS if _has_encoder(name))
    interrupted: KeyboardInterrupt | None = None
    with suppress(_NoFramesError), replacing(target) as temporary:
        try:
            with av.open(str(temporary), "w") as container:
                writer = VideoWriter(container, codec, rate)
                try:
                    yield writer
                except KeyboardInterrupt as error:
                    interrupted = error
                if not writer.finish():
                    raise _NoFramesError
        except av.error.FFmpegError as error:
            raise OSError(f"{target}: the video can't be written: {error.strerror or error}") from error
    if interrupted is not None:
        raise interrupted


class _NoFramesError(Exception):
    """Ends a video without frames, so that its temporary file goes."""


def _has_encoder(name: str) -> bool:
    import av

    try:
        av.codec.Codec(name, "w")
    except ValueError:  # av.codec.codec.UnknownCodecError is one
        return False
    return True
