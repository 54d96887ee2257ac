"""Selective rank-aware attention (SeRank) of SeRankDet.

Dai et al., "Pick of the Bunch", IEEE TGRS 2024, equations 1 to 8.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.layers.ranking import first_largest, top_k_in_spatial_order
from serank.layers.tracing import exporting, exporting_to_onnx
from serank.utils.checks import check_count, check_map
from serank.utils.dtypes import at_least_float32

DEEPEST = 8
"""Encoder level whose points are 128 px apart; a larger number is hardly meant as a level."""


def rank_size(channels: int, level: int, offset: int = 3) -> int:
    """How many points a channel keeps at an encoder level (equation 2).

    `K = 2 ** floor(log2(channels) + offset - 2 * (level - 1))`, at least 1.

    Args:
        channels: channels of the map at this level, >= 1.
        level: encoder level, 1 for the finest, at most `DEEPEST`; the paper has 5.
        offset: the paper's o, 3 by default; its ablation goes from 1 to 5.

    Returns:
        K, a power of two. For 64, 128, 256, 512, 1024 channels at levels 1 to 5: 512, 256, 128, 64, 32.

    Raises:
        ValueError: `channels` is below 1, or `level` is not in 1 to `DEEPEST`.
    """
    if channels < 1:
        raise ValueError(f"channels must be >= 1; got {channels}")
    if not 1 <= level <= DEEPEST:
        raise ValueError(
            f"level must be 1 to {DEEPEST}, counted from the finest; got {level}; "
            "the order is rank_size(channels, level)"
        )
    # bit_length gives floor(log2) exactly, where math.log2 may round up just below a power of two
    return int(2 ** max(0, channels.bit_length() - 1 + offset - 2 * (level - 1)))


def positional_values(index: Tensor, width: int, table_width: int, dtype: torch.dtype) -> Tensor:
    """Entries of the sinusoidal table at flat positions `index` of a map of the given width.

    The table is `E[row, 0::2] = sin(row * d)`, `E[row, 1::2] = cos(row * d)` with
    `d = exp(-log(10000) * arange(0, table_width, 2) / table_width)`. Only the ranked points are read, so they are
    computed from their rows and columns and no table is built.

    Args:
        index: `(...)` int64, `row * width + column`.
        width: columns of the map.
        table_width: columns of the table, which sets the frequencies.
        dtype: floating dtype to compute in.

    Returns:
        `(...)` of `dtype`, in [-1, 1].
    """
    row = index // width
    column = index - row * width  # torch.onnx has no % by a width that it doesn't know
    odd = column % 2
    angle = row.to(dtype) * torch.exp((column - odd).to(dtype) * (-math.log(10000.0) / table_width))
    return torch.where(odd == 0, angle.sin(), angle.cos())


class SeRankAttention(nn.Module):
    """Selective rank-aware attention: channels attend to each other through their K strongest points.

    Per channel the K largest values (of equal ones the first), kept in spatial order, form F `(C, K)`; P are the values
    of a sinusoidal table at those points; T = F + P. With Q = T Wq and K = T Wk, the matrix A = Q K^T `(C, C)` is
    normalised by its own mean and (unbiased) standard deviation, per sample, passed through softmax over its last axis,
    and the output is `(1 + A) X`, 1 the identity. The ranking, A and its softmax are computed in float32 under autocast
    too.

    Args:
        k: points kept per channel, see `rank_size`. A map with fewer points pads the ranked vector with zeros.
        positional_encoding: add P (`False` for the paper's ablation).
        table_width: columns of the positional table. `None` means the map's own width (paper); the released code has
            a fixed table of 512, 256, 128, 64, 32 by level.
        select: `"before"` ranks the map as above. `"after"` is the ablation that ranks after the attention map:
            A = X X^T over all points, the k largest entries of each row of A kept, no projection or encoding.

    Attributes:
        query: Wq, called with tokens `(B, C, K)`, so that hooks and adapters put around it take effect.
        key: Wk, likewise. Of a half-precision module these two layers compute in its dtype, all the rest in float32.

    Shape: `(B, C, H, W) -> (B, C, H, W)`, any C, H, W >= 1, floating dtype and memory format kept.

    Raises:
        ValueError: `k` or `table_width` below 1, or an unknown `select`; in `forward`, an x that is no dense floating
            map of four axes.
    """

    def __init__(
        self,
        k: int,
        *,
        positional_encoding: bool = True,
        table_width: int | None = None,
        select: str = "before",
    ) -> None:
        super().__init__()
        k = check_count(k, "k")
        table_width = None if table_width is None else check_count(table_width, "table_width")
        if select not in ("before", "after"):
            raise ValueError(f'select must be "before" or "after"; got {select!r}')
        self.k = k
        self.positional_encoding = positional_encoding
        self.table_width = table_width
        self.select = select
        if select == "before":
            self.query = nn.Linear(k, 2 * k, bias=False)
            self.key = nn.Linear(k, 2 * k, bias=False)

    def extra_repr(self) -> str:
        """Arguments shown by `print(module)`."""
        return f"k={self.k}, positional_encoding={self.positional_encoding}, select={self.select!r}"

    def top_k(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The K largest values of each channel, of equal ones the first, in spatial order.

        Args:
            x: `(B, C, H, W)`.

        Returns:
            Values `(B, C, min(K, H * W))` in x's dtype, and their flat positions, int64.
        """
        return top_k_in_spatial_order(x, self.k)

    def attention(self, x: Tensor) -> Tensor:
        """The softmax-normalised channel attention A, `(B, C, H, W) -> (B, C, C)` float32 (float64 for float64)."""
        if self.select == "after":
            points = at_least_float32(x).flatten(2)
            scores = _standardise(points @ points.transpose(1, 2))
            if self.k < scores.shape[2]:
                kept = scores.topk(self.k, dim=2).indices if exporting_to_onnx() else first_largest(scores, self.k)
                scores = scores.masked_fill(
                    torch.ones_like(scores, dtype=torch.bool).scatter(2, kept, False), -math.inf
                )
            return scores.softmax(2)
        values, index = self.top_k(x)
        tokens = at_least_float32(values)
        if self.positional_encoding:
            width = x.shape[3]
            tokens = tokens + positional_values(index, width, self.table_width or width, tokens.dtype)
        if exporting_to_onnx():  # already K of them
            tokens = tokens.masked_fill(index >= x.shape[2] * x.shape[3], 0)
        elif exporting() or tokens.shape[2] < self.k:
            tokens = F.pad(tokens, (0, self.k - tokens.shape[2]))
        query, key = _project(self.query, tokens), _project(self.key, tokens)
        return _standardise(query @ key.transpose(1, 2)).softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W) -> (B, C, H, W)`.

        Raises:
            TypeError: x is no tensor.
            ValueError: x has another number of axes, is not floating, or is sparse.
        """
        check_map(x)
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            mix = self.attention(x)
            mix = (mix + torch.eye(x.shape[1], dtype=mix.dtype, device=mix.device)).to(x.dtype)
            if x.is_contiguous(memory_format=torch.channels_last):
                # (H * W, C) rows are contiguous here, and the product keeps the format
                rows = x.permute(0, 2, 3, 1).flatten(1, 2)
                return (rows @ mix.transpose(1, 2)).reshape(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
            return (mix @ x.flatten(2)).reshape(x.shape)


def _project(layer: nn.Module, tokens: Tensor) -> Tensor:
    """`(B, C, K) -> (B, C, 2 K)` in the tokens' dtype, whatever that of the layer's parameters."""
    # no `next` with a default, which torch.compile and torch.export of PyTorch 2.6 can't trace; the weight beside the
    # parameters, which the replicas of DataParallel don't have
    weights = [w for w in (getattr(layer, "weight", None), *layer.parameters()) if isinstance(w, Tensor)]
    dtype = [*(w.dtype for w in weights if w.is_floating_point()), tokens.dtype][0]
    projected: Tensor = layer(tokens.to(dtype))
    return projected.to(tokens.dtype)


def _standardise(scores: Tensor) -> Tensor:
    """`(B, C, C)` minus its mean over its unbiased standard deviation, per sample."""
    empty = not (exporting() or torch.compiler.is_compiling()) and scores.shape[0] == 0
    if scores.shape[1] == 1 or empty:  # the deviation of one value, or none, is undefined; what is left of it is 0
        return torch.zeros_like(scores) * scores
    deviation = scores.std((1, 2), keepdim=True)
    return (scores - scores.mean((1, 2), keepdim=True)) / (deviation + 1e-5)
