"""The background between neighbouring targets, which a pixel loss may weigh more."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from serank.metrics.components import label_components

__all__ = ["gaps"]

REACH = 4
"""Pixels from a target to which its surroundings reach, rounded to a disk."""
_OFFSETS = np.arange(-REACH, REACH + 1)
_DISK = _OFFSETS[:, None] ** 2 + _OFFSETS**2 <= (REACH + 0.5) ** 2


def gaps(target: Tensor) -> Tensor:
    """Where background lies within 4 px of two targets or more.

    Args:
        target: `(B, 1, H, W)` on any device, target where above 0.5; targets are 8-connected.

    Returns:
        Float32 of the shape and device of `target`, 1 in such gaps and 0 elsewhere.
    """
    found = np.zeros(target.shape, np.float32)
    for gap, mask in zip(found[:, 0], target[:, 0].detach().float().cpu().numpy() > 0.5, strict=True):
        labels, count = label_components(mask)
        if count < 2:
            continue
        around = np.zeros(mask.shape, np.int32)
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            part = tuple(slice(max(0, s.start - REACH), s.stop + REACH) for s in (rows, columns))
            around[part] += ndimage.binary_dilation(labels[part] == label, _DISK)
        gap[(around > 1) & ~mask] = 1
    return torch.from_numpy(found).to(target.device)
