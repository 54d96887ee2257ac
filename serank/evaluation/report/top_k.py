"""Which points of a frame SeRank ranked: how often each point of an encoder level was among the K of a channel.

Dai et al., "Pick of the Bunch", IEEE TGRS 2024, equation 1: per channel, the K largest values of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serank.frames.reading import tiles
from serank.inference.detector import predict
from serank.layers.attention import SeRankAttention
from serank.models.network import STRIDE, SeRankDet

__all__ = ["RankedLevel", "ranked_points"]


class RankedLevel(NamedTuple):
    """The ranked points of one encoder level."""

    level: int
    """1 for the finest, as in the paper."""
    counts: NDArray[np.int64]
    """`(h, w)`, how many channels ranked each point, 0 to `channels`; the network's own padding at the right and
    bottom is part of the map."""
    channels: int
    k: int
    """Points ranked by each channel of a map, at most its number of points."""
    scale: tuple[float, float]
    """Frame pixels for each point of the map, down and across."""


def ranked_points(model: SeRankDet, frame: NDArray[np.float32]) -> list[RankedLevel]:
    """How often each point was ranked, at each encoder level with a `SeRankAttention` that ranks before the map.

    The frame is scaled, padded and, where larger than a tile, cut into tiles as `SeRankDet.detect` does it. Each tile
    ranks its own points; where tiles overlap, the larger count is kept, and a tile that starts between two points of a
    level is counted at the first of them. The model is left as it was.

    Args:
        model: run in eval mode on its own device.
        frame: `(H, W)` float32 in [0, 1].

    Returns:
        One entry for each such level, finest first; none for a network without them (`attention="none"` or
        `"after"`).

    Raises:
        ValueError: `frame` is not a finite two-dimensional array.
    """
    if frame.ndim != 2 or frame.size == 0 or not np.isfinite(frame).all():
        raise ValueError(f"frame must be finite, of shape (H, W) with H and W >= 1; got shape {frame.shape}")
    layers = {
        level: layer
        for level, layer in enumerate(model.attention)
        if isinstance(layer, SeRankAttention) and layer.select == "before"
    }
    seen: dict[int, list[NDArray[np.int64]]] = {level: [] for level in layers}
    channels: dict[int, int] = {}

    def watch(level: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x: Tensor = inputs[0]
            channels[level] = x.shape[1]
            seen[level].append(_count(layers[level], x))

        return hook

    if not layers:
        return []
    handles = [layer.register_forward_pre_hook(watch(level)) for level, layer in layers.items()]
    try:
        predict(model, [frame.astype(np.float32, copy=False)], model.frame_spec, channels=model.in_channels)
    finally:
        for handle in handles:
            handle.remove()
    shape = model.frame_spec.working_shape(*frame.shape)
    spec = model.frame_spec
    # in the order in which predict runs them; a frame that fits is one tile
    starts = [(top, left) for (top, _), (left, _) in product(*(tiles(side, spec.tile, spec.overlap) for side in shape))]
    return [
        RankedLevel(
            level=level + 1,
            counts=_joined(seen[level], starts, shape, 2**level),
            channels=channels[level],
            k=min(layer.k, seen[level][0].size),
            scale=(2**level * frame.shape[0] / shape[0], 2**level * frame.shape[1] / shape[1]),
        )
        for level, layer in layers.items()
    ]


def _count(layer: SeRankAttention, x: Tensor) -> NDArray[np.int64]:
    """`(1, C, h, w)` -> `(h, w)`, channels that rank each point."""
    height, width = x.shape[2:]
    _, index = layer.top_k(x)
    counts: NDArray[np.int64] = torch.bincount(index.flatten(), minlength=height * width).cpu().numpy()
    return counts.reshape(height, width)


def _joined(
    maps: list[NDArray[np.int64]], starts: list[tuple[int, int]], shape: tuple[int, int], stride: int
) -> NDArray[np.int64]:
    """The maps of all tiles in one map of the padded frame."""
    rows, columns = (-(-side // STRIDE) * STRIDE // stride for side in shape)
    joined = np.zeros((rows, columns), np.int64)
    for counts, (top, left) in zip(maps, starts, strict=True):
        place = joined[top // stride :, left // stride :][: counts.shape[0], : counts.shape[1]]
        np.maximum(place, counts[: place.shape[0], : place.shape[1]], out=place)
    return joined
