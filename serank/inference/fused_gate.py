"""LSFF's gates for inference on CUDA, in fewer kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.layers.lsff import LSFF


class FusedGate(nn.Module):
    """`LSFF.gate`, whose mean of two means is part of the 7x7 convolution.

    That takes three maps then: the means of both inputs, and the maximum.

    Args:
        fusion: of mode `"select"` or `"gated"`.
        dtype: to run in.

    Shape: two maps `(B, C, H, W)` -> gates `(B, N, H, W)` in [0, 1].
    """

    def __init__(self, fusion: LSFF, dtype: torch.dtype) -> None:
        super().__init__()
        mean, peak = fusion.squeeze.weight.detach().chunk(2, dim=1)
        weight = torch.cat((mean / 2, mean / 2, peak), dim=1)
        self.weight = nn.Buffer(weight.to(dtype, memory_format=torch.channels_last), persistent=False)
        self.bias = nn.Buffer(fusion.squeeze.bias.detach().to(dtype, copy=True), persistent=False)  # type: ignore[union-attr]

    def forward(self, skip: Tensor, decoded: Tensor) -> Tensor:
        """Two maps of one shape -> the gates s."""
        peak = torch.maximum(skip.amax(1, keepdim=True), decoded.amax(1, keepdim=True))
        maps = torch.cat((skip.mean(1, keepdim=True), decoded.mean(1, keepdim=True), peak), dim=1)
        return F.conv2d(maps, self.weight, self.bias, padding=3).sigmoid_()
