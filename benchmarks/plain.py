"""The released graph written plainly: what serank's speed is measured against.

Straight from the description of the authors' released code: two convolutions for a difference convolution, every
concatenation built, NCHW, nothing folded or fused. Entries of its state dict have the released names, so that
`SeRankDet.from_released` reads what it saves.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PlainSeRankDet"]


class DifferenceConv(nn.Module):
    def __init__(self, source: int, channels: int, theta: float = 0.7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(source, channels, 3, padding=1)
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        summed = self.conv.weight.sum((2, 3), keepdim=True)
        plain: Tensor = self.conv(x)
        return plain - self.theta * F.conv2d(x, summed, self.conv.bias)


def step(source: int, channels: int, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(source, channels, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


class Block(nn.Module):
    """Dilated difference convolution with a 3x3 merge."""

    def __init__(self, source: int, channels: int) -> None:
        super().__init__()
        sizes = ((source, source), (source, channels), (channels, channels))
        self.conv_layer = nn.Sequential(*(step(i, o) for i, o in sizes))
        self.cdc_layer = nn.Sequential(DifferenceConv(source, channels), nn.BatchNorm2d(channels), nn.ReLU())
        self.dconv_layer = nn.Sequential(*(step(i, o, d) for (i, o), d in zip(sizes, (2, 4, 2), strict=True)))
        self.final_layer = step(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.conv_layer(x), self.cdc_layer(x), self.dconv_layer(x))
        merged: Tensor = self.final_layer(torch.cat(branches, dim=1))
        return merged


class Table(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        table = torch.zeros(side, side)
        position = torch.arange(side).float()[:, None]
        frequency = torch.exp(-math.log(10000.0) * torch.arange(0, side, 2).float() / side)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pos_enc", table)
        self.pos_enc: Tensor


class Attention(nn.Module):
    """Selective rank-aware attention; each frame normalised by itself."""

    def __init__(self, k: int, side: int) -> None:
        super().__init__()
        self.k = k
        self.fc1 = nn.Linear(k, 2 * k, bias=False)
        self.fc2 = nn.Linear(k, 2 * k, bias=False)
        self.pos_enc = Table(side)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        points = x.view(batch, channels, height * width)
        index = torch.topk(points, self.k, dim=2).indices.sort(dim=2).values
        table = self.pos_enc.pos_enc[:height, :width].reshape(1, 1, -1).expand(batch, channels, -1)
        tokens = points.gather(2, index) + table.gather(2, index)
        scores = self.fc1(tokens) @ self.fc2(tokens).transpose(1, 2)
        centred = scores - scores.mean((1, 2), keepdim=True)
        weights = (centred / (scores.std((1, 2), keepdim=True) + 1e-5)).softmax(dim=2)
        mixed: Tensor = x + (weights @ points).view_as(x)
        return mixed


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.Sequential(upsample, *step(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        raised: Tensor = self.up(x)
        return raised


class Neck(nn.Module):
    """Fusion of skip and decoded map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_squeeze = nn.Conv2d(2, 2, 7, padding=3)
        self.conv = nn.Conv2d(channels, 2 * channels, 1)
        self.gamma = nn.Parameter(torch.full((1,), 0.1))  # starts at 0; not 0, so that outputs depend on all of it

    def forward(self, skip: Tensor, decoded: Tensor) -> Tensor:
        x = torch.cat((skip, decoded), dim=1)
        pooled = torch.cat((x.mean(1, keepdim=True), x.max(1, keepdim=True).values), dim=1)
        gates = self.conv_squeeze(pooled).sigmoid()
        weights: Tensor = self.conv(skip * gates[:, :1] + decoded * gates[:, 1:])
        return x + self.gamma * (x * weights)


class Refine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *step(2 * channels, channels),
            *(DifferenceConv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU()),
            *step(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = self.conv(x)
        return refined


class PlainSeRankDet(nn.Module):
    """`(B, 3, H, W)`, sides multiples of 16 and at most `side` -> six logit maps `(B, 1, H, W)`, the final one last.

    `side` is that of the first level's table, 512 in the authors' code.
    """

    def __init__(self, width: int = 64, side: int = 512) -> None:
        super().__init__()
        channels = [width * 2**i for i in range(5)]
        for i, (source, c) in enumerate(zip([3, *channels], channels, strict=False), start=1):
            k = 2 ** int(math.log2(c) + 3 - 2 * (i - 1))
            self.add_module(f"Conv{i}", Block(source, c))
            self.add_module(f"max_channel{i}", Attention(k, side // 2 ** (i - 1)))
            self.add_module(f"conv{i}", nn.Conv2d(c, 1, 3, padding=1))
        for i, c in enumerate(channels[:-1], start=2):
            self.add_module(f"Up{i}", Up(c))
            self.add_module(f"neck{i}", Neck(c))
            self.add_module(f"Up_conv{i}", Refine(c))
        self.Conv = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        part = self.get_submodule
        size = x.shape[2:]
        skips = []
        for i in range(1, 6):
            x = part(f"max_channel{i}")(part(f"Conv{i}")(F.max_pool2d(x, 2) if i > 1 else x))
            skips.append(x)
        maps = [x]
        for i in range(5, 1, -1):
            raised = part(f"Up{i}")(maps[-1])
            maps.append(part(f"Up_conv{i}")(part(f"neck{i}")(skips[i - 2], raised)))
        sides = [part(f"conv{i}")(m) for i, m in enumerate(reversed(maps), start=1)]
        raised = [F.interpolate(s, size=size, mode="bilinear", align_corners=False) for s in sides]
        return [*raised, self.Conv(maps[-1])]
