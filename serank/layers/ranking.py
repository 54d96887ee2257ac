"""The K largest values of each channel of a map, exactly, and where they are.

Of equal values the first in spatial order (rows from the top, each from the left) are taken: on every device, in every
dtype and memory format, in a batch or alone, in exported programs and ONNX files. After a ReLU many channels have fewer
than K values above zero and fill up with zeros, each of which brings its own positional code, so that an open choice
among them, as `torch.topk` leaves it, would give other results from one device to the next.

NaN counts as larger than any number and as equal to NaN, and -0.0 as equal to 0.0, as in `torch.topk`. In an ONNX file,
whose operators say nothing of NaN, the runtime decides about it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from serank.layers.tracing import exporting, exporting_to_onnx, traced

SPARSE = 16
"""From this many points for each one taken, looking at blocks first is faster on a CPU, see docs/speed.md."""
SHORT, LONG = 8, 16
"""Points of a block; the long one from `LONG ** 2` points for each one taken. Fewer blocks hold more candidates, and
the square root balances the two."""
FEW = 32
"""Up to so many channels, the maxima of a channels_last map's blocks are found by halves: `amax` is slow where the
channels of a point don't fill its vectors (2.8 ms against 0.4 for 8 channels of 512 x 512 px in bfloat16)."""
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
"""Integers as wide as each floating dtype whose values fit in a key beside their position."""


def top_k_in_spatial_order(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The K largest values of each channel, of equal ones the first, in spatial order.

    Args:
        x: `(B, C, H, W)`, floating.
        k: how many, >= 1.

    Returns:
        Values `(B, C, min(k, H * W))` in x's dtype, and their flat positions, int64, ascending. In a graph for ONNX
        there are always k of them, the missing ones minus infinity at positions from H * W on.
    """
    if exporting_to_onnx():
        return _with_constant_k(x.flatten(2), k)
    if not (exporting() or torch.compiler.is_compiling()) and _sparse(x, k):
        return _by_blocks(x, k, LONG if _count(x) >= LONG**2 * k else SHORT)
    points = x.flatten(2)
    # not within no_grad, which PyTorch 2.6 exports as a graph of its own and can't save
    index = first_largest(points.detach(), min(k, points.shape[2]))
    return points.gather(2, index), index


def _sparse(x: Tensor, k: int) -> bool:
    return x.device.type == "cpu" and _count(x) >= SPARSE * k


def _count(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]


def first_largest(points: Tensor, k: int) -> Tensor:
    """Positions of the k <= N largest of `(B, C, N)`, of equal ones the first, `(B, C, k)` int64, ascending.

    Value and position go into one integer, the key. No two keys are equal, so that any way of finding the largest finds
    the same ones; nothing waits for the device.
    """
    # 64 bits leave no room for the position, and torch.jit.trace knows no view of floats as integers
    if points.dtype not in BITS or traced():
        return points.sort(dim=2, descending=True, stable=True).indices[..., :k].sort(dim=2).values
    last = points.shape[2] - 1
    # a traced graph is for maps of any size
    narrow = BITS[points.dtype] == torch.int16 and not exporting() and last < 2**16
    key, half = (torch.int32, 16) if narrow else (torch.int64, 32)
    # the earlier the larger
    countdown = torch.arange(last, -1, -1, dtype=key, device=points.device)
    keys = _ordered(points).to(key).bitwise_left_shift_(half).bitwise_or_(countdown)
    return keys.topk(k, dim=2, sorted=False).indices.sort(dim=2).values


def _ordered(points: Tensor) -> Tensor:
    """Integers in the order of the floats: equal for equal values, both zeros and any two NaN, which come last."""
    kind = BITS[points.dtype]
    bits = points.view(kind)  # sign and magnitude
    least, most = torch.iinfo(kind).min, torch.iinfo(kind).max
    return torch.where(bits < 0, least - bits, bits).masked_fill_(points.isnan(), most)


def _by_blocks(x: Tensor, k: int, side: int) -> tuple[Tensor, Tensor]:
    """In two stages: the K blocks of highest maximum hold the K largest values.

    Of blocks with the same maximum, too, the first are taken. So a block that is left out has K blocks of at least its
    maximum before it or of a higher one, and whichever of its values could tie, K others are taken first.

    A channels_last map is read as it lies; bringing each channel together would take longer than the ranking.
    """
    batch, channels, count = *x.shape[:2], _count(x)
    whole = count // side * side
    rows = None
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C), a view
    with torch.no_grad():
        if rows is None:
            highest = x.flatten(2)[..., :whole].reshape(batch, channels, whole // side, side).amax(3)
        else:
            stacked = rows[:, :whole].reshape(batch, whole // side, side, channels)
            highest = _highest(stacked).transpose(1, 2).contiguous()
        blocks = first_largest(highest, k)
        places = (side * blocks[..., None] + torch.arange(side)).flatten(2)
        if whole < count:  # the points that fill no block are candidates anyway, and last
            places = torch.cat((places, torch.arange(whole, count).expand(batch, channels, -1)), dim=2)
        index = places.gather(2, first_largest(_take(x, rows, places).contiguous(), k))
    return _take(x, rows, index), index


def _highest(blocks: Tensor) -> Tensor:
    """`(B, N, side, C) -> (B, N, C)`, the maximum of each block, whose side is a power of two."""
    if blocks.shape[3] > FEW:
        return blocks.amax(2)
    side = blocks.shape[2]
    while side > 1:
        side //= 2
        blocks = torch.maximum(blocks[:, :, :side], blocks[:, :, side:])
    return blocks[:, :, 0]


def _take(x: Tensor, rows: Tensor | None, places: Tensor) -> Tensor:
    """Values of each channel at flat positions `(B, C, N)`, read from the rows of a channels_last map."""
    if rows is None:
        return x.flatten(2).gather(2, places)
    return rows.gather(1, places.transpose(1, 2)).transpose(1, 2)


def _with_constant_k(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of `(B, C, H * W)`, with a K that does not depend on the map's size, as ONNX graphs need.

    ONNX's TopK takes the first of equal values. Where there are fewer points, the positions past the last one stand
    for none; their values are minus infinity.
    """
    points = F.pad(points, (0, k - 1), value=-math.inf)
    index = points.topk(k, dim=2, sorted=False).indices
    index = index.topk(k, dim=2, largest=False).values  # a sort, which torch.onnx would write with a K of its own
    return points.gather(2, index), index
