"""MATLAB files up to v7, unpacked piece by piece before they are read, so that a small file can't fill the memory."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.held import MAX_PIXELS, HeldFile
from serank.frames.reading import open_held

COMPRESSED = 15
HEADER = 128
NUMERIC = {"double", "single", "logical"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
BYTES_PER_VALUE = 16
SLACK = 2**20
"""Bytes for names, tags and small variables."""


def load_mat(file: Path) -> NDArray[Any]:
    """The one two-dimensional numeric variable in a MAT file; single numbers don't count.

    Raises:
        FrameError: a damaged file, MATLAB v7.3, no or several such variables, or one larger than a frame may be.
    """
    from scipy.io import loadmat, whosmat

    try:
        variables = whosmat(file)
        named = ", ".join(f"{name} {kind} {shape}" for name, shape, kind in variables) or "none"
        maps = [v for v in variables if len(v[1]) == 2 and math.prod(v[1]) > 1 and v[2] in NUMERIC]
        if len(maps) != 1:
            raise FrameError(f"{file}: expected exactly one two-dimensional numeric variable; found {named}")
        if math.prod(maps[0][1]) > MAX_PIXELS:
            raise FrameError(f"{file}: {named} is more than {MAX_PIXELS} pixels; crop or tile it first")
        with open_held(file) as held:
            _check_unpacked(held, BYTES_PER_VALUE * sum(math.prod(shape) for _, shape, _ in variables) + SLACK)
        # mat_dtype: MATLAB stores doubles that happen to be whole as 8-bit integers, which would look like 8-bit maps
        values = loadmat(file, mat_dtype=True, variable_names=[maps[0][0]])[maps[0][0]]
    except FrameError:
        raise
    except NotImplementedError:
        raise FrameError(
            f"{file}: a MATLAB v7.3 file (HDF5), which can't be read; save it with save(name, 'map', '-v7')"
        ) from None
    except Exception as error:  # damaged files raise many kinds
        raise FrameError(f"{file}: truncated, corrupt or no MAT file ({error})") from error
    array: NDArray[Any] = np.asarray(values)
    return array


def _check_unpacked(held: HeldFile, most: int) -> None:
    """Unpacks each compressed variable of a v5 file, kept nowhere, up to `most` bytes in all."""
    mark = held.head(HEADER)[126:]
    if mark not in (b"IM", b"MI"):
        return  # v4, which knows no compression
    order = "<" if mark == b"IM" else ">"
    at, total = HEADER, 0
    while at + 8 <= held.size:
        kind, count = struct.unpack(order + "II", held.read(at, 8))
        if kind == COMPRESSED:
            inflate = zlib.decompressobj()
            rest = held.read(at + 8, count)
            while rest and not inflate.eof:
                total += len(inflate.decompress(rest, SLACK))
                rest = inflate.unconsumed_tail
                if total > most:
                    raise FrameError(f"{held.name}: truncated or corrupt (unpacks to more than its variables need)")
        at += 8 + count
