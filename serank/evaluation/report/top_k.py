"""Top-k points of a frame: for how many channels of an encoder level each point is among the K largest values.

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

from serank.frames.preparation import tiles
from serank.inference.detector import predict
from serank.layers.attention import SeRankAttention
from serank.models.network import STRIDE
from serank.serankdet import SeRankDet


class TopKLevel(NamedTuple):
    """Top-k points of one encoder level."""

    level: int
    """1 for the finest, as in the paper."""
    counts: NDArray[np.int64]
    """`(h, w)`, channels with each point in their top k, 0 to `channels`; the network's padding at the right and bottom
    is part of the map."""
    channels: int
    k: int
    """Points that each channel takes, at most the number of points of the map."""
    scale: tuple[float, float]
    """Frame pixels for each point of the map, down and across."""


def count_top_k(model: SeRankDet, frame: NDArray[np.float32]) -> list[TopKLevel]:
    """Counts the top-k points at each encoder level whose `SeRankAttention` selects before the attention map.

    The frame is scaled, padded and, where larger than a tile, cut into tiles as in `SeRankDet.detect`. Each tile has
    its own top k; where tiles overlap the larger count is taken, and a tile that starts between two points of a level
    is placed at the first of them. The model is left as it was.

    Args:
        model: run in eval mode on its own device.
        frame: `(H, W)` float32 in [0, 1]; raises ValueError where it isn't finite or has another shape.

    Returns:
        One entry for each such level, finest first; none for `attention="none"` or `"after"`.
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
        TopKLevel(
            level=level + 1,
            counts=_merge_tiles(seen[level], starts, shape, 2**level),
            channels=channels[level],
            k=min(layer.k, seen[level][0].size),
            scale=(2**level * frame.shape[0] / shape[0], 2**level * frame.shape[1] / shape[1]),
        )
        for level, layer in layers.items()
    ]


def _count(layer: SeRankAttention, x: Tensor) -> NDArray[np.int64]:
    """`(1, C, h, w)` -> `(h, w)`, channels with each point in their top k."""
    height, width = x.shape[2:]
    _, index = layer.top_k(x)
    counts: NDArray[np.int64] = torch.bincount(index.flatten(), minlength=height * width).cpu().numpy()
    return counts.reshape(height, width)


def _merge_tiles(
    maps: list[NDArray[np.int64]], starts: list[tuple[int, int]], shape: tuple[int, int], stride: int
) -> NDArray[np.int64]:
    """Merges the maps of all tiles into one map of the padded frame."""
    rows, columns = (-(-side // STRIDE) * STRIDE // stride for side in shape)
    merged = np.zeros((rows, columns), np.int64)
    for counts, (top, left) in zip(maps, starts, strict=True):
        window = merged[top // stride :, left // stride :][: counts.shape[0], : counts.shape[1]]
        np.maximum(window, counts[: window.shape[0], : window.shape[1]], out=window)
    return merged
