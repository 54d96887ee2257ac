"""The network with nothing fused: what serank's speed is measured against.

Straight from the description of the authors' released code: two convolutions for a difference convolution, every
concatenation built, NCHW, nothing folded or fused. Entries of its state dict have the released names, so that
`SeRankDet.from_released` reads what it saves. `unfused_form` writes the paper's graph in the same way.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank import SeRankDet
from serank.checkpoints.released import released_name

__all__ = ["UnfusedSeRankDet", "unfused_form"]


class DifferenceConv(nn.Module):
    def __init__(self, source: int, channels: int, bias: bool, theta: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(source, channels, 3, padding=1, bias=bias)
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        summed = self.conv.weight.sum((2, 3), keepdim=True)
        vanilla: Tensor = self.conv(x)
        return vanilla - self.theta * F.conv2d(x, summed, self.conv.bias)


def step(source: int, channels: int, bias: bool, dilation: int = 1, side: int = 3) -> nn.Sequential:
    padding = dilation * (side // 2)
    conv = nn.Conv2d(source, channels, side, padding=padding, dilation=dilation, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


class Block(nn.Module):
    """Dilated difference convolution."""

    def __init__(self, source: int, hidden: int, channels: int, merge: int, bias: bool, theta: float) -> None:
        super().__init__()
        sizes = ((source, hidden), (hidden, channels), (channels, channels))
        self.conv_layer = nn.Sequential(*(step(i, o, bias) for i, o in sizes))
        difference = DifferenceConv(source, channels, bias, theta)
        self.cdc_layer = nn.Sequential(difference, nn.BatchNorm2d(channels), nn.ReLU())
        self.dconv_layer = nn.Sequential(*(step(i, o, bias, d) for (i, o), d in zip(sizes, (2, 4, 2), strict=True)))
        self.final_layer = step(3 * channels, channels, bias, side=merge)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.conv_layer(x), self.cdc_layer(x), self.dconv_layer(x))
        merged: Tensor = self.final_layer(torch.cat(branches, dim=1))
        return merged


def table(height: int, width: int) -> Tensor:
    """Sinusoidal, `(height, width)`."""
    values = torch.zeros(height, width)
    position = torch.arange(height).float()[:, None]
    frequency = torch.exp(-math.log(10000.0) * torch.arange(0, width, 2).float() / width)
    values[:, 0::2] = torch.sin(position * frequency)
    values[:, 1::2] = torch.cos(position * frequency[: width // 2])
    return values


class Table(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.register_buffer("pos_enc", table(side, side))
        self.pos_enc: Tensor


class Attention(nn.Module):
    """Selective rank-aware attention; each frame normalised by itself."""

    def __init__(self, k: int, side: int | None) -> None:
        super().__init__()
        self.k = k
        self.fc1 = nn.Linear(k, 2 * k, bias=False)
        self.fc2 = nn.Linear(k, 2 * k, bias=False)
        self.pos_enc = None if side is None else Table(side)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        points = x.view(batch, channels, height * width)
        k = min(self.k, height * width)
        index = torch.topk(points, k, dim=2).indices.sort(dim=2).values
        values = table(height, width).to(x) if self.pos_enc is None else self.pos_enc.pos_enc[:height, :width]
        tokens = points.gather(2, index) + values.reshape(1, 1, -1).expand(batch, channels, -1).gather(2, index)
        tokens = F.pad(tokens, (0, self.k - k))
        scores = self.fc1(tokens) @ self.fc2(tokens).transpose(1, 2)
        centred = scores - scores.mean((1, 2), keepdim=True)
        weights = (centred / (scores.std((1, 2), keepdim=True) + 1e-5)).softmax(dim=2)
        mixed: Tensor = x + (weights @ points).view_as(x)
        return mixed


class Up(nn.Module):
    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.Sequential(upsample, *step(2 * channels, channels, bias))

    def forward(self, x: Tensor) -> Tensor:
        raised: Tensor = self.up(x)
        return raised


class Neck(nn.Module):
    """Fusion of skip and decoded map: the released code's (`gated`, 2C channels) or the paper's (C channels)."""

    def __init__(self, channels: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.conv_squeeze = nn.Conv2d(2, 2 if gated else 1, 7, padding=3)
        if gated:
            self.conv = nn.Conv2d(channels, 2 * channels, 1)
            self.gamma = nn.Parameter(torch.full((1,), 0.1))  # starts at 0; not 0, so that outputs depend on all of it

    def forward(self, skip: Tensor, decoded: Tensor) -> Tensor:
        x = torch.cat((skip, decoded), dim=1)
        pooled = torch.cat((x.mean(1, keepdim=True), x.max(1, keepdim=True).values), dim=1)
        gates = self.conv_squeeze(pooled).sigmoid()
        if not self.gated:
            selected: Tensor = skip * gates + decoded * (1 - gates)
            return selected
        weights: Tensor = self.conv(skip * gates[:, :1] + decoded * gates[:, 1:])
        return x + self.gamma * (x * weights)


class Refine(nn.Module):
    def __init__(self, source: int, channels: int, bias: bool, theta: float) -> None:
        super().__init__()
        difference = DifferenceConv(channels, channels, bias, theta)
        self.conv = nn.Sequential(
            *step(source, channels, bias),
            *(difference, nn.BatchNorm2d(channels), nn.ReLU()),
            *step(channels, channels, bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = self.conv(x)
        return refined


class UnfusedSeRankDet(nn.Module):
    """`(B, in_channels, H, W)`, sides multiples of 16 -> six logit maps `(B, 1, H, W)`, the final one last.

    The defaults are the authors' code. `side` is that of the first level's table, which frames may not exceed; `None`
    takes each map's own size. `stem` are the hidden channels of the first block, `None` those of the frame.
    """

    def __init__(
        self,
        width: int = 64,
        *,
        in_channels: int = 3,
        stem: int | None = None,
        merge: int = 3,
        gated: bool = True,
        bias: bool = True,
        side: int | None = 512,
        theta: float = 0.7,
    ) -> None:
        super().__init__()
        channels = [width * 2**i for i in range(5)]
        for i, (source, c) in enumerate(zip([in_channels, *channels], channels, strict=False), start=1):
            k = 2 ** max(0, int(math.log2(c) + 3 - 2 * (i - 1)))
            hidden = stem if stem is not None and i == 1 else source
            self.add_module(f"Conv{i}", Block(source, hidden, c, merge, bias, theta))
            self.add_module(f"max_channel{i}", Attention(k, None if side is None else side // 2 ** (i - 1)))
            self.add_module(f"conv{i}", nn.Conv2d(c, 1, 3, padding=1))
        for i, c in enumerate(channels[:-1], start=2):
            self.add_module(f"Up{i}", Up(c, bias))
            self.add_module(f"neck{i}", Neck(c, gated))
            self.add_module(f"Up_conv{i}", Refine(2 * c if gated else c, c, bias, theta))
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


def unfused_form(model: SeRankDet) -> UnfusedSeRankDet:
    """The unfused network of the same graph, weights and device; of the paper's graph or the released one."""
    config = model.config
    network = UnfusedSeRankDet(
        config["width"],
        in_channels=config["in_channels"],
        stem=config["width"] if config["stem_channels"] is None else config["stem_channels"],
        merge=config["merge_kernel"],
        gated=config["fusion"] == "gated",
        bias=config["bias"],
        side=config["table_size"],
        theta=config["theta"],
    )
    tables = {name: value for name, value in network.state_dict().items() if name.endswith("pos_enc")}
    network.load_state_dict(tables | {released_name(name): value for name, value in model.state_dict().items()})
    return network.to(model.head.weight.device).eval()
