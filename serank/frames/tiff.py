"""TIFF files: the pages and stacks in them, and their pixels as the tags say, or a reason why not.

The tags are read here, not by Pillow, which scrambles pages of orientation 5 to 8, inverts 16-bit grey, takes unsigned
32 bits for signed and 8 signed for unsigned, and walks every page to find the first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.held import MAX_PIXELS, HeldFile, check_pixel_count
from serank.frames.orientation import upright
from serank.frames.tiff_segments import JPEG, Segment, unpack_segment
from serank.frames.tiff_tags import Directory, Tag, TiffTags

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, OPACITY, CMYK, YCBCR = range(7)
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
DTYPES = {(bits, UNSIGNED): f"u{bits // 8}" for bits in (8, 16, 32, 64)}
DTYPES |= {(bits, SIGNED): f"i{bits // 8}" for bits in (8, 16, 32, 64)}
DTYPES |= {(bits, FLOAT): f"f{bits // 8}" for bits in (16, 32, 64)}
MAX_PIXEL_BYTES = 24
"""Three float64 samples."""


@dataclass(frozen=True)
class _Page:
    """What a page's tags say."""

    width: int
    height: int
    samples: int
    bits: int
    format: int
    photometric: int
    compression: int
    planar: bool
    predictor: int
    fill_order: int
    orientation: int


def read_tiff(held: HeldFile) -> Iterator[tuple[int | None, NDArray[Any]]]:
    """The frames of a TIFF file, one after the other; smaller copies and masks of opacity are left out.

    Yields:
        The page's number from 0, or the frame's in a stack that has the tags of its first frame alone (ImageJ,
        tifffile); `None` where the file holds one. Pixels `(H, W)` or `(H, W, 3)`, upright, of the type that the tags
        say; 1 to 8 bits as uint8, fewer than 8 stretched to 0 to 255, and 9 to 16 as uint16.

    Raises:
        FrameError: a damaged page or one of a kind that can't be read, after those before it.
    """
    alone = _holds_one_page(held)
    for number, directory in _frame_pages(held):
        page = _page(directory, held.name)
        if not alone:
            yield number, _pixels(directory, page, held.name)
            continue
        count = _stack_size(directory, page, held)
        for i in range(count):
            yield (i if count > 1 else None), _pixels(directory, page, held.name, plane=i)


def count_tiff_frames(held: HeldFile) -> int:
    """How many frames `read_tiff` gives, without decoding any.

    Raises:
        FrameError: the chain of pages is damaged.
    """
    if not _holds_one_page(held):
        return sum(1 for _ in _frame_pages(held))
    _, directory = next(_frame_pages(held))
    return _stack_size(directory, _page(directory, held.name), held)


def _frame_pages(held: HeldFile) -> Iterator[tuple[int, Directory]]:
    """The pages that are frames, with their numbers; the first one is, whatever its tags say."""
    for number, directory in enumerate(TiffTags(held)):
        if not (number and directory.is_preview):
            yield number, directory


def _holds_one_page(held: HeldFile) -> bool:
    """Whether the first page alone is a frame; looks no further than the second one that is."""
    try:
        return sum(1 for _ in islice(_frame_pages(held), 2)) == 1
    except FrameError:  # what is damaged may be another page
        return False


def _page(directory: Directory, name: str) -> _Page:
    def number(tag: int, default: int) -> int:
        return directory.number(tag, default)

    samples = number(Tag.SAMPLES_PER_PIXEL, 1)
    bits = {int(b) for b in directory.numbers(Tag.BITS_PER_SAMPLE)} or {1}
    formats = {int(f) for f in directory.numbers(Tag.SAMPLE_FORMAT)} or {UNSIGNED}
    page = _Page(
        width=number(Tag.IMAGE_WIDTH, 0),
        height=number(Tag.IMAGE_LENGTH, 0),
        samples=samples,
        bits=min(bits),
        format=UNSIGNED if formats == {UNDEFINED} else min(formats),
        photometric=number(Tag.PHOTOMETRIC_INTERPRETATION, RGB if samples >= 3 else BLACK_IS_ZERO),
        compression=number(Tag.COMPRESSION, 1),
        planar=number(Tag.PLANAR_CONFIGURATION, 1) == 2 and samples > 1,
        predictor=number(Tag.PREDICTOR, 1),
        fill_order=number(Tag.FILL_ORDER, 1),
        orientation=number(Tag.ORIENTATION, 1),
    )
    check_pixel_count(page.width, page.height, name)
    if len(bits) > 1 or len(formats) > 1:
        raise FrameError(f"{name}: TIFF whose samples differ in type can't be read; save it as grey")
    odd = page.format == UNSIGNED and 1 <= page.bits <= 16
    if not odd and (page.bits, page.format) not in DTYPES:
        kind = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "floating-point"}.get(page.format, "complex or unknown")
        raise FrameError(
            f"{name}: TIFF of {page.bits}-bit {kind} values can't be read; save it with 8 or 16 bits or as float32"
        )
    if number(Tag.IMAGE_DEPTH, 1) > 1:
        raise FrameError(f"{name}: a TIFF volume can't be read; save it as pages")
    if samples < 1 or samples * page.bits > 8 * MAX_PIXEL_BYTES:
        raise FrameError(f"{name}: TIFF of {samples} samples a pixel is no frame; save it as grey")
    _check_meaning(page, directory, name)
    return page


def _check_meaning(page: _Page, directory: Directory, name: str) -> None:
    """Refuses pages whose samples can't be told to be grey or colour."""
    kinds = {WHITE_IS_ZERO: "grey", BLACK_IS_ZERO: "grey", RGB: "colour", PALETTE: "palette", OPACITY: "grey"}
    kinds |= {YCBCR: "colour"} if page.compression == JPEG else {}
    kind = kinds.get(page.photometric)
    if kind is None:
        raise FrameError(
            f"{name}: TIFF of photometric interpretation {page.photometric} can't be read; save it as grey"
        )
    if kind == "colour" and page.samples < 3:
        raise FrameError(f"{name}: truncated or corrupt (colour of {page.samples} samples)")
    alpha = page.samples == 2 and (directory.number(Tag.EXTRA_SAMPLES, 2) in (1, 2))
    if kind in ("grey", "palette") and page.samples > 1 and not alpha:
        raise FrameError(f"{name}: {page.samples} grey samples a pixel; save one of them, or the bands as pages")
    if page.photometric == WHITE_IS_ZERO and page.format != UNSIGNED:
        raise FrameError(
            f"{name}: white is zero (photometric interpretation 0), but the values are no unsigned integers, so that "
            "none of them is known as black; save it with black as zero"
        )
    if kind == "palette" and (page.format != UNSIGNED or page.bits > 8):
        raise FrameError(f"{name}: a palette of {page.bits}-bit values can't be read; save it as grey")


def _stack_size(directory: Directory, page: _Page, held: HeldFile) -> int:
    """Frames that lie one after the other behind the tags of the first."""
    text = directory.text(Tag.IMAGE_DESCRIPTION)
    count = 1
    if text.startswith("ImageJ="):
        found = re.search(r"^images=(\d{1,12})\s*$", text, re.MULTILINE)
        count = int(found[1]) if found else 1
    elif text.startswith('{"shape":'):
        try:
            written = json.loads(text)
            values = math.prod(int(side) for side in written["shape"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return 1
        count = values // (page.width * page.height * page.samples) if written.get("truncated") else 1
    if count <= 1:
        return 1
    if page.compression != 1 or page.planar:
        raise FrameError(f"{held.name}: a compressed stack with the tags of one page; save it as pages")
    offsets = directory.numbers(Tag.STRIP_OFFSETS)
    size = -(-page.width * page.samples * page.bits // 8) * page.height
    if not len(offsets) or int(offsets[0]) + count * size > held.size:
        raise FrameError(f"{held.name}: truncated or corrupt (declares a stack of {count} frames, holds fewer)")
    return count


def _pixels(directory: Directory, page: _Page, name: str, plane: int = 0) -> NDArray[Any]:
    samples = _samples(directory, page, name, plane)
    if page.photometric == YCBCR or page.photometric == RGB:
        pixels = samples[..., :3]
    elif page.photometric == PALETTE:
        pixels = _look_up(samples[..., 0], directory, page, name)
    else:
        pixels = samples[..., 0]
        if page.bits < 8:  # a grey value of n bits is a share of their largest
            pixels = (pixels.astype(np.uint16) * 255 // (2**page.bits - 1)).astype(np.uint8)
        # tifffile marks arrays of bool so, but writes true as 1
        as_stored = page.bits == 1 and directory.text(Tag.SOFTWARE).startswith("tifffile")
        if page.photometric == WHITE_IS_ZERO and not as_stored:
            top = 2 ** (8 if page.bits < 8 else page.bits) - 1
            pixels = pixels.dtype.type(top) - pixels
    return upright(pixels, page.orientation)


def _look_up(indices: NDArray[Any], directory: Directory, page: _Page, name: str) -> NDArray[np.uint8]:
    colours = directory.numbers(Tag.COLOR_MAP)
    if len(colours) != 3 * 2**page.bits:
        raise FrameError(f"{name}: truncated or corrupt (a palette of {len(colours)} values)")
    # 16 bits by the standard; some programs write 8
    table = (colours // 256 if colours.max() > 255 else colours).astype(np.uint8).reshape(3, -1)
    looked_up: NDArray[np.uint8] = np.ascontiguousarray(table.T)[indices]
    return looked_up


def _samples(directory: Directory, page: _Page, name: str, plane: int) -> NDArray[Any]:
    """`(H, W, samples)` of the stored type, in the machine's byte order."""
    tiled = Tag.TILE_WIDTH in directory
    if tiled:
        high, wide = directory.number(Tag.TILE_LENGTH, 0), directory.number(Tag.TILE_WIDTH, 0)
    else:
        high, wide = min(directory.number(Tag.ROWS_PER_STRIP, page.height), page.height), page.width
    if high < 1 or wide < 1 or (tiled and (high * wide > MAX_PIXELS or high % 16 or wide % 16)):
        raise FrameError(f"{name}: truncated or corrupt (tiles or strips of {high} x {wide})")
    offsets = directory.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS)
    counts = directory.numbers(Tag.TILE_BYTE_COUNTS if tiled else Tag.STRIP_BYTE_COUNTS)
    down, across = -(-page.height // high), -(-page.width // wide)
    together = 1 if page.planar else page.samples
    parts = page.samples // together
    if len(offsets) != parts * down * across or (len(counts) and len(counts) != len(offsets)):
        raise FrameError(
            f"{name}: truncated or corrupt (holds {len(offsets)} strips or tiles, its size needs "
            f"{parts * down * across})"
        )
    if plane and not _contiguous(offsets, counts, parts):
        raise FrameError(f"{name}: a stack whose frames don't lie one after the other; save it as pages")
    code = DTYPES.get((page.bits, page.format), "u1" if page.bits <= 8 else "u2")
    out = np.empty((page.height, page.width, page.samples), code)
    skipped = plane * page.height * -(-page.width * page.samples * page.bits // 8)
    for i, offset in enumerate(offsets):
        part, rest = divmod(i, down * across)
        top, left = rest // across * high, rest % across * wide
        rows = high if tiled else min(high, page.height - top)
        segment = Segment(rows, wide, together, page.bits, code, page.compression, page.predictor, page.fill_order)
        count = int(counts[i]) if len(counts) else segment.packed_size
        values = unpack_segment(directory, segment, int(offset) + skipped, count)
        bottom, right = min(top + rows, page.height), min(left + wide, page.width)
        chosen = slice(part, part + 1) if page.planar else slice(None)
        out[top:bottom, left:right, chosen] = values[: bottom - top, : right - left]
    return out


def _contiguous(offsets: NDArray[Any], counts: NDArray[Any], parts: int) -> bool:
    starts = offsets.astype(np.int64)
    return parts == 1 and (len(starts) == 1 or bool((np.diff(starts) == counts[:-1].astype(np.int64)).all()))
