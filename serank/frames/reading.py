"""Image files, PIL images, arrays and tensors to frames."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from serank.errors import FrameError
from serank.frames.bmp import read_bmp
from serank.frames.held import HeldFile
from serank.frames.jpeg import read_jpeg
from serank.frames.jpeg2000 import JP2_STARTS, read_jpeg2000
from serank.frames.netpbm import PGM_STARTS, read_pgm
from serank.frames.numpy_files import NPY_START, NPZ_START, read_array, split_frames
from serank.frames.pillow_images import image_pixels
from serank.frames.png import PNG_START, read_png
from serank.frames.preparation import unit_frame
from serank.frames.scaling import Array
from serank.frames.tiff import TIFF_STARTS, count_tiff_frames, read_tiff
from serank.frames.webp import read_webp

FRAME_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".webp", ".jp2", ".pgm", ".npy", ".npz"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".webm", ".wmv"})
SINGLE_READERS = (
    ((PNG_START,), read_png),
    ((b"\xff\xd8\xff",), read_jpeg),
    ((b"BM",), read_bmp),
    (PGM_STARTS, read_pgm),
    (JP2_STARTS, read_jpeg2000),
    ((b"RIFF",), read_webp),
)
"""How files begin, and what reads those of one frame."""
LFS_START = b"version https://git-lfs"

FrameLike: TypeAlias = "str | os.PathLike[str] | Image.Image | Array | torch.Tensor"


def decode(source: str | os.PathLike[str] | Image.Image) -> Array:
    """Decodes an image file or a PIL image, values as stored.

    Of a file of several frames the first is read, with a warning (`UserWarning`) that says of how many, or that the
    file is damaged after it.

    Args:
        source: PNG, TIFF, BMP, JPEG, JPEG 2000, WebP, PGM, NPY or NPZ file, told by its content, or a PIL image, which
            is taken as it is. Files are turned upright as their Orientation tag says.

    Returns:
        `(H, W)` or `(H, W, 3)`, in the machine's byte order. Palettes are looked up, alpha is dropped.

    Raises:
        FileNotFoundError: no such file.
        FrameError: the file is no image, is truncated or corrupt, is of a kind that can't be read as it is meant, or
            claims more than `MAX_PIXELS`.
    """
    if isinstance(source, Image.Image):
        name = os.fspath(getattr(source, "filename", "")) or "the image"
        with _reading(name):
            return image_pixels(source, name)
    name = os.fspath(source)
    with open_held(name) as held:
        index, pixels = next(_frames(held))
        more = "" if index is None else _more_frames(held)
    if more:
        warnings.warn(f"{name}: frame 1 of {more}", stacklevel=2)
    return pixels


def decode_pages(file: str | os.PathLike[str]) -> Iterator[tuple[int | None, Array]]:
    """Decodes the frames in an image file one after the other: pages of TIFF files and stacks; of others there is one.

    Smaller copies of a page that a TIFF file holds for previews are left out.

    Args:
        file: as for `decode`.

    Yields:
        The frame's number from 0, `None` where the file holds one, and its pixels as `decode` gives them.

    Raises:
        FileNotFoundError: as `decode`.
        FrameError: as `decode`, also for a frame after the first.
    """
    with open_held(file) as held:
        yield from _frames(held)


def count_pages(file: str | os.PathLike[str]) -> int:
    """Frames that `decode_pages` gives, previews not among them, without decoding any; 1 for what can't be read."""
    try:
        with open_held(file) as held:
            return _count(held)
    except (FrameError, FileNotFoundError):
        return 1


@contextmanager
def open_held(file: str | os.PathLike[str]) -> Iterator[HeldFile]:
    """Opens a file; what goes wrong while it is read becomes a `FrameError` that names it."""
    name = os.fspath(file)
    with _reading(name):
        if Path(name).suffix.lower() in VIDEO_SUFFIXES and Path(name).is_file():
            raise FrameError(
                f"{name}: is a video, expected an image file; `serank detect` and serank.inference.detect_files take "
                "its frames"
            )
        with Path(name).open("rb") as stream:
            held = HeldFile(stream, name)
            if not held.size:
                raise FrameError(f"{name}: is empty (0 bytes); copy or save it again")
            if held.head(len(LFS_START)) == LFS_START:
                raise FrameError(f"{name}: is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
            yield held


def _frames(held: HeldFile) -> Iterator[tuple[int | None, Array]]:
    start = held.head(16)
    if start.startswith(TIFF_STARTS):
        yield from read_tiff(held)
    elif start.startswith((NPY_START, NPZ_START)):
        yield from split_frames(read_array(held), held.name)
    else:
        for starts, read in SINGLE_READERS:
            if start.startswith(starts) and (read is not read_webp or start[8:12] == b"WEBP"):
                yield None, read(held)
                return
        raise FrameError(f"{held.name}: not an image that can be read; expected {', '.join(sorted(FRAME_SUFFIXES))}")


def _more_frames(held: HeldFile) -> str:
    """How many frames a file holds and what reads them, or that those after the first are damaged; empty for one."""
    try:
        count = _count(held)
    except FrameError as error:
        why = str(error).removeprefix(f"{held.name}: ")
        return f"several is read; those after it are damaged: {why}"
    take = "`serank detect` and serank.inference.detect_files take all of them"
    return f"{count} is read; {take}" if count > 1 else ""


def _count(held: HeldFile) -> int:
    start = held.head(16)
    if start.startswith(TIFF_STARTS):
        return count_tiff_frames(held)
    if start.startswith((NPY_START, NPZ_START)):
        return sum(1 for _ in split_frames(read_array(held), held.name))
    return 1


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns what decoders raise into our errors."""
    try:
        yield
    except FileNotFoundError:
        why = "a broken link" if os.path.islink(name) else "no such file"  # noqa: PTH114
        raise FileNotFoundError(f"{name}: {why}") from None
    except (FrameError, GeneratorExit):
        raise
    except IsADirectoryError:
        raise FrameError(
            f"{name}: is a folder, expected an image file; pass a list of its files, or the folder to `serank detect` "
            "or serank.inference.detect_files"
        ) from None
    # decoders raise many kinds for damaged files, struct.error and zlib.error among them
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise FrameError(f"{name}: can't be read: {error.strerror}") from error
        raise FrameError(f"{name}: truncated or corrupt ({error or type(error).__name__})") from error


def read_frame(source: FrameLike) -> NDArray[np.float32]:
    """Reads anything that stands for a frame as grey values in [0, 1].

    Args:
        source: path of an image file (see `decode`), PIL image, array or tensor. Arrays and tensors are `(H, W)`,
            `(H, W, 1)` or `(H, W, 3)`, tensors also `(1, H, W)`, or `(3, H, W)` of one grey frame three times; see
            `unit_frame` for their types.

    Returns:
        `(H, W)` float32 in [0, 1].

    Raises:
        FileNotFoundError: no such file.
        FrameError: not a frame; the message names the file and the reason.
        TypeError: `source` is none of the above.
    """
    return unit_frame(*read_pixels(source))


def read_pixels(source: FrameLike) -> tuple[Array, str]:
    """The pixel values of anything that stands for a frame, and what messages call it.

    Args:
        source: as for `read_frame`.

    Raises:
        FileNotFoundError: no such file.
        FrameError: a file that can't be read.
        TypeError: `source` is none of the above.
    """
    if isinstance(source, (str, os.PathLike)):
        return decode(source), os.fspath(source)
    if isinstance(source, Image.Image):
        return decode(source), "the frame"
    if isinstance(source, torch.Tensor):
        return _tensor_pixels(source), "the frame"
    if isinstance(source, np.ndarray):
        return source, "the frame"
    raise TypeError(
        f"a frame is a path, PIL image, array or tensor; got {type(source).__name__} (lists of frames go to detect)"
    )


def _tensor_pixels(tensor: torch.Tensor) -> Array:
    if tensor.layout != torch.strided:
        raise TypeError(f"the frame: a sparse tensor ({tensor.layout}); convert it with tensor.to_dense()")
    known = (torch.float16, torch.float32, torch.float64)
    if tensor.is_floating_point() and tensor.dtype not in known:
        tensor = tensor.float()
    array: Array = tensor.numpy(force=True)
    if array.ndim != 3 or array.shape[0] not in (1, 3) or (array.shape[0] == 3 and array.shape[2] in (1, 3)):
        return array
    if array.shape[0] == 3 and array.size and not np.array_equal(array, array[:1].repeat(3, 0), equal_nan=True):
        raise FrameError(
            f"the frame: a tensor of shape {array.shape} is one colour frame or three grey ones; pass list(tensor) for "
            "three frames, tensor.permute(1, 2, 0) for one in colour"
        )
    return array.transpose(1, 2, 0)
