"""Frames of video files, grey or in colours, upright, with the values that the video stores."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.palettes import COLOURED_SHARE, has_colours
from serank.frames.preparation import luminance
from serank.frames.scaling import Array

if TYPE_CHECKING:
    import av

ENDS_EARLY = 0.1
"""Share of a video without frames at its end from which it may be cut off."""
LAST_FRAMES = 4
"""Frames that may be missing there in any case: containers round their duration."""
GREY_DEPTHS = (9, 10, 12, 14)
"""Bits of FFmpeg's grey formats between 8 and 16."""
CHROMA_STEP = 4
"""Distance of both chroma samples from neutral, of 255, up to which no two channels of a pixel differ by more than
`serank.frames.palettes.COLOURED`; by the coefficients of ITU-R BT.601 and BT.709."""


def read_video(file: Path) -> Iterator[Array]:
    """The frames of a video's first stream, turned as its display matrix says.

    Yields:
        Frames without colours, whatever they are stored as: `(H, W)` uint8, or uint16 with the stored number of bits
        (0 to 1023 for 10). Limited range becomes the full one. Frames in colours: `(H, W, 3)` uint8, or uint16
        stretched to 16 bits where the video has more than 8. RGB of 8 bits is always `(H, W, 3)`.

    Warns:
        UserWarning: the last frame ends long before the container says, as in Matroska files that are cut off. Frames
            that the decoder mends without saying so are given as it gives them.

    Raises:
        ImportError: the extra that reads videos isn't installed.
        FileNotFoundError: no such file.
        FrameError: no video, or one that can't be decoded; also for a frame after the first.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(f"{file}: videos need PyAV; pip install 'serank[video]'") from error
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise FrameError(f"{file}: holds no video")
            end = 0.0
            for frame in container.decode(video=0):
                if frame.time is not None and frame.time_base is not None:
                    end = frame.time + float((frame.duration or 0) * frame.time_base)
                yield _upright(_pixels(frame), frame)
            _warn_of_an_early_end(file, container, end)
    except av.error.FFmpegError as error:
        raise FrameError(f"{file}: can't be decoded: {error.strerror or error}") from error


def _warn_of_an_early_end(file: Path, container: av.container.InputContainer, end: float) -> None:
    """Warns where the last frame ends long before the container says that the video does: the file may be cut off.

    Args:
        file: for the warning.
        container: of which all frames are decoded.
        end: of the last frame, in seconds.
    """
    stream = container.streams.video[0]
    if not container.duration or not stream.average_rate or len(container.streams) > 1:  # sound may be longer
        return
    duration = container.duration / 1e6  # of microseconds
    # Matroska's duration counts from 0, that of others from the first frame
    begins = 0.0 if "matroska" in container.format.name else (container.start_time or 0) / 1e6
    if duration - (end - begins) > max(ENDS_EARLY * duration, LAST_FRAMES / float(stream.average_rate)):
        warnings.warn(
            f"{file}: the last frame ends at {end - begins:.2f} s of {duration:.2f} s; the file may be cut off",
            stacklevel=2,
        )


def _pixels(frame: av.VideoFrame) -> Array:
    bits = min(max(component.bits for component in frame.format.components), 16)
    if _is_grey(frame):
        return _grey(frame, bits)
    if bits <= 8:
        return frame.to_ndarray(format="rgb24")
    rgb = frame.to_ndarray(format="rgb48le")
    return rgb if has_colours(rgb) else luminance(rgb) >> (16 - bits)


def _grey(frame: av.VideoFrame, bits: int) -> Array:
    if bits <= 8:
        return frame.to_ndarray(format="gray")
    if bits not in GREY_DEPTHS:
        return frame.to_ndarray(format="gray16le")
    # a format of as many bits, since values stretched to 16 would no longer be the camera's counts
    frame = frame.reformat(format=f"gray{bits}le")
    return _samples(frame.planes[0], frame.height, frame.width, np.dtype("<u2")).copy()


def _is_grey(frame: av.VideoFrame) -> bool:
    """Whether a frame is sure to have no colours, by its format or its chroma; RGB is not looked at."""
    kind = frame.format
    if kind.is_rgb or kind.has_palette or kind.name.startswith("xyz"):
        return False
    if len(kind.components) < 3:
        return True
    # chroma side by side with other samples, or shifted within its words, is brought to planes of its own
    if not kind.is_planar or len(frame.planes) < 3 or "msb" in kind.name:
        frame = frame.reformat(format="yuv420p")
        kind = frame.format
    blue, red = kind.components[1:3]
    dtype = np.dtype(np.uint8 if blue.bits == 8 else ">u2" if kind.is_big_endian else "<u2")
    neutral, step = 1 << (blue.bits - 1), CHROMA_STEP << (blue.bits - 8)
    off = np.zeros((blue.height, blue.width), np.bool_)
    for component in (blue, red):
        chroma = _samples(frame.planes[component.plane], component.height, component.width, dtype)
        # unsigned: what lies below wraps around
        off |= chroma - chroma.dtype.type(neutral - step) > 2 * step
    return bool(np.count_nonzero(off) <= COLOURED_SHARE * off.size)


def _samples(plane: Any, height: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The samples of a plane, `(height, width)`, without the padding of its lines."""
    lines: NDArray[Any] = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    samples: NDArray[Any] = lines[:height, :width].astype(dtype.newbyteorder("="), copy=False)
    return samples


def _upright(pixels: Array, frame: av.VideoFrame) -> Array:
    """Turns and mirrors a frame as its display matrix says, by the nearest quarter turn.

    The matrix, 9 integers `a b u c d v x y w`, shows the pixel (x, y) at (ax + cy, bx + dy); see `libavutil/display.h`
    of FFmpeg.
    """
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.swapaxes(0, 1)
        across, down = c, b
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
