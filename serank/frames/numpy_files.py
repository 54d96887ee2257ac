"""NPY and NPZ files, checked by their header before anything is read, and never unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.held import MAX_PIXELS, HeldFile

NPY_START, NPZ_START = b"\x93NUMPY", b"PK\x03\x04"
MAX_BYTES = 16 * MAX_PIXELS


def read_array(held: HeldFile) -> NDArray[Any]:
    """The one array in a file.

    Returns:
        Of any shape and type of number.

    Raises:
        FrameError: a damaged file, objects in it, more than one array, or more than 16 bytes for each of `MAX_PIXELS`.
    """
    held.stream.seek(0)
    if not held.head(4).startswith(NPZ_START):
        return _read(held.stream, held.name, held.size)
    with zipfile.ZipFile(held.stream) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if len(members) != 1:
            names = ", ".join(info.filename.removesuffix(".npy") for info in members[:5]) or "none"
            raise FrameError(
                f"{held.name}: expected one array; found {len(members)} ({names}). Save one with numpy.save"
            )
        with archive.open(members[0]) as stream:
            return _read(stream, held.name, members[0].file_size)


def _read(stream: IO[bytes], name: str, size: int) -> NDArray[Any]:
    stream.seek(0)
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.kind not in "buif":
        raise FrameError(f"{name}: holds {dtype} of shape {shape}; expected numbers or bool")
    count = math.prod(shape)
    if count * dtype.itemsize > MAX_BYTES or count < 0:
        raise FrameError(f"{name}: shape {shape} is more than {MAX_PIXELS} pixels; crop or tile it first")
    if count * dtype.itemsize > size:
        raise FrameError(f"{name}: truncated or corrupt (declares shape {shape} of {dtype}, holds {size} bytes)")
    data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise FrameError(f"{name}: truncated or corrupt (declares shape {shape} of {dtype})")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="))


def split_frames(array: NDArray[Any], name: str) -> Iterator[tuple[int | None, NDArray[Any]]]:
    """The frames in an array: `(H, W)`, `(H, W, 1)` and `(H, W, 3)` are one, other `(N, H, W)` are N.

    Yields:
        The frame's number, `None` where there is one, and its pixels.

    Raises:
        FrameError: another shape, or a side of 0.
    """
    if not array.size or array.ndim not in (2, 3):
        raise FrameError(f"{name}: shape {array.shape} is no frame; expected (H, W), (H, W, 3) or (N, H, W)")
    stack = [array] if array.ndim == 2 or array.shape[2] in (1, 3) else array
    if math.prod(stack[0].shape[:2]) > MAX_PIXELS:
        raise FrameError(f"{name}: shape {array.shape} is more than {MAX_PIXELS} pixels; crop or tile it first")
    for number, frame in enumerate(stack):
        yield (number if len(stack) > 1 else None), frame
