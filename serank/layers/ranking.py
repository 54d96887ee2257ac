"""The K largest values of each channel of a map, exactly, and where they are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from serank.layers.tracing import exporting, exporting_to_onnx

__all__ = ["rank"]

SPARSE = 16
"""From this many points for each one ranked, looking at blocks first is faster on a CPU, see docs/speed.md."""
SHORT, LONG = 8, 16
"""Points of a block; the long one from `LONG ** 2` points for each one ranked. Fewer blocks hold more candidates, and
the square root balances the two."""


def rank(x: Tensor, k: int, *, stable: bool = False) -> tuple[Tensor, Tensor]:
    """The K largest values of each channel in spatial order.

    Args:
        x: `(B, C, H, W)`.
        k: how many, >= 1.
        stable: of equal values, take those first in spatial order; otherwise which of them is undefined.

    Returns:
        Values `(B, C, min(k, H * W))` in x's dtype, and their flat positions, int64, ascending.
    """
    if exporting_to_onnx():
        return _with_constant_k(x.flatten(2), k)
    if not (stable or exporting() or torch.compiler.is_compiling()) and _sparse(x, k):
        return _by_blocks(x, k, LONG if _count(x) >= LONG**2 * k else SHORT)
    points = x.flatten(2)
    k = min(k, points.shape[2])
    if stable:
        index = points.sort(dim=2, descending=True, stable=True).indices[..., :k]
    else:
        index = points.topk(k, dim=2, sorted=False).indices
    index = index.sort(dim=2).values
    return points.gather(2, index), index


def _sparse(x: Tensor, k: int) -> bool:
    return x.device.type == "cpu" and _count(x) >= SPARSE * k


def _count(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]


def _by_blocks(x: Tensor, k: int, side: int) -> tuple[Tensor, Tensor]:
    """In two stages: the K blocks of highest maximum hold the K largest values, or as many equal to them.

    A channels_last map is read as it lies; bringing each channel together would take longer than the ranking. Of equal
    values it takes those that `torch.topk` takes, but in half precision, where most channels have some.
    """
    batch, channels, count = *x.shape[:2], _count(x)
    whole = count // side * side
    rows = None
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C), a view
    with torch.no_grad():
        if rows is None:
            highest = x.flatten(2)[..., :whole].reshape(batch, channels, -1, side).amax(3)
        else:
            highest = rows[:, :whole].reshape(batch, -1, side, channels).amax(2).transpose(1, 2).contiguous()
        least, blocks = highest.topk(k, dim=2, sorted=False)
        places = (side * blocks.sort(dim=2).values[..., None] + torch.arange(side)).flatten(2)
        if whole < count:  # the points that fill no block are candidates anyway
            places = torch.cat((places, torch.arange(whole, count).expand(batch, channels, -1)), dim=2)
        candidates = _take(x, rows, places)
        found, index = candidates.topk(k, dim=2, sorted=False)
        index = places.gather(2, index)
        if x.dtype in (torch.float32, torch.float64):
            kth = found.amin(2, keepdim=True)
            # values equal to the K-th that were not taken: of a block that was left out they are its maximum
            tied = ((candidates == kth).sum(2) > (found == kth).sum(2)) | (
                (highest == kth).sum(2) > (least == kth).sum(2)
            )
            if tied.any():
                index[tied] = x[tied].flatten(1).topk(k, dim=1, sorted=False).indices
        index = index.sort(dim=2).values
    return _take(x, rows, index), index


def _take(x: Tensor, rows: Tensor | None, places: Tensor) -> Tensor:
    """Values of each channel at flat positions `(B, C, N)`, read from the rows of a channels_last map."""
    if rows is None:
        return x.flatten(2).gather(2, places)
    return rows.gather(1, places.transpose(1, 2)).transpose(1, 2)


def _with_constant_k(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of `(B, C, H * W)`, with a K that does not depend on the map's size, as ONNX graphs need.

    Where there are fewer points, the positions past the last one stand for none; their values are minus infinity.
    """
    points = F.pad(points, (0, k - 1), value=-math.inf)
    index = points.topk(k, dim=2, sorted=False).indices
    index = index.topk(k, dim=2, largest=False).values  # a sort, which torch.onnx would write with a K of its own
    return points.gather(2, index), index
