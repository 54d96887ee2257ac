"""The network's graph.

Dai et al., "Pick of the Bunch: Detecting Infrared Small Targets Beyond Hit-Miss Trade-Offs via Selective
Rank-Aware Attention", IEEE TGRS 2024. Five encoder levels of `DDC` and `SeRankAttention`, four decoder steps with
`LSFF` skips, and six logit maps for deep supervision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.layers.attention import SeRankAttention, rank_size
from serank.layers.ddc import DDC, DifferenceConv2d, conv_bn_relu
from serank.layers.lsff import LSFF
from serank.models.config import SeRankConfig
from serank.utils.checkpointing import recomputed
from serank.utils.checks import check_map

LEVELS = 5
STRIDE = 2 ** (LEVELS - 1)
"""Sides are padded to a multiple of this inside the network and cropped back."""
PRIOR_LOGIT = -4.6
"""Log-odds of a target pixel, about a hundredth, with which untrained heads begin: Lin et al., "Focal Loss for Dense
Object Detection", ICCV 2017, section 3.3. From 0 the background turns all weights of a head negative for good."""


class PlainBlock(nn.Sequential):
    """Two 3x3 convolutions with batch norm and ReLU: what DDC is compared with in the paper's ablation.

    Shape: `(B, in_channels, H, W) -> (B, out_channels, H, W)`.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(
            conv_bn_relu(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)),
            conv_bn_relu(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)),
        )


class DecoderStep(nn.Module):
    """Upsample, match the skip's channels, fuse, refine.

    Shape: skip `(B, C, H, W)`, deeper `(B, 2C, H/2, W/2)` -> `(B, C, H, W)`.
    """

    def __init__(self, channels: int, *, fusion: str, fusion_maps: int, theta: float, bias: bool) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(nn.Conv2d(2 * channels, channels, 3, padding=1, bias=bias))
        self.fuse = LSFF(channels, mode=fusion, maps=fusion_maps)
        self.refine = nn.Sequential(
            conv_bn_relu(nn.Conv2d(self.fuse.out_channels, channels, 3, padding=1, bias=bias)),
            conv_bn_relu(DifferenceConv2d(channels, channels, theta, bias)),
            conv_bn_relu(nn.Conv2d(channels, channels, 3, padding=1, bias=bias)),
        )

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        """Skip `(B, C, H, W)`, deeper `(B, 2C, H/2, W/2)` -> `(B, C, H, W)`."""
        decoded = self.reduce(F.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=False))
        refined: Tensor = self.refine(self.fuse(skip, decoded))
        return refined


class SeRankNet(nn.Module):
    """The graph: six logit maps of `(B, in_channels, H, W)` frames, the last of them the result.

    Args:
        config: its settings; those that prepare frames and choose a threshold have no effect here.

    Attributes:
        in_channels: channels of the input.
        checkpointing: keep only the inputs and outputs of each block for the backward pass and compute the rest again
            there: less memory, more time, the same gradients. `False` unless it is set.
    """

    checkpointing = False

    def __init__(self, config: SeRankConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        channels = [config.width * 2**level for level in range(LEVELS)]
        maps = channels if config.per_channel_fusion else [1] * LEVELS
        self.encoder = nn.ModuleList(
            _encoder_block(config, level, source, out)
            for level, (source, out) in enumerate(zip((config.in_channels, *channels), channels, strict=False))
        )
        self.attention = nn.ModuleList(_attention(config, level, c) for level, c in enumerate(channels))
        self.decoder = nn.ModuleList(
            DecoderStep(c, fusion=config.fusion, fusion_maps=n, theta=config.theta, bias=config.bias)
            for c, n in zip(channels[:-1], maps, strict=False)
        )
        self.head = nn.Conv2d(config.width, 1, 1)
        self.side_heads = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in channels)
        for head in (self.head, *self.side_heads):
            nn.init.constant_(head.get_parameter("bias"), PRIOR_LOGIT)

    def decode(self, x: Tensor) -> list[Tensor]:
        """Decoder maps d2, d3, d4, d5 and the deepest encoder map e5, finest first.

        Args:
            x: `(B, in_channels, H, W)`, H and W multiples of `STRIDE`.

        Returns:
            Five maps; the i-th is `(B, width * 2 ** i, H / 2 ** i, W / 2 ** i)`.
        """
        call = recomputed if self.checkpointing and torch.is_grad_enabled() else _call
        skips: list[Tensor] = []
        for level, (block, attend) in enumerate(zip(self.encoder, self.attention, strict=True)):
            x = call(attend, call(block, F.max_pool2d(x, 2) if level else x))
            skips.append(x)
        maps = [skips.pop()]
        for step, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            maps.append(call(step, skip, maps[-1]))
        return maps[::-1]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel.

        Args:
            x: `(B, in_channels, H, W)` float, B >= 0, H and W >= 1, normalised as the checkpoint expects.

        Returns:
            `(B, 1, H, W)` logits; sigmoid gives target probability.

        Raises:
            TypeError: `x` is no tensor.
            ValueError: wrong dimensions, channels or an empty side, or a sparse tensor.
        """
        logits: Tensor = self.head(self.decode(pad_to_stride(x, self.in_channels))[0])
        return crop_or_pad(logits, *x.shape[2:])

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        """The six logit maps of deep supervision.

        Args:
            x: as for `forward`.

        Returns:
            Six `(B, 1, H, W)` maps: the side outputs of d2, d3, d4, d5 and e5, upsampled bilinearly to the input's
            size, then the final one.

        Raises:
            ValueError: as `forward`.
        """
        maps = self.decode(pad_to_stride(x, self.in_channels))
        outputs = [head(m) for head, m in zip(self.side_heads, maps, strict=True)]
        outputs[1:] = [
            F.interpolate(o, scale_factor=2.0**level, mode="bilinear", align_corners=False)
            for level, o in enumerate(outputs[1:], start=1)
        ]
        outputs.append(self.head(maps[0]))
        return [crop_or_pad(o, *x.shape[2:]) for o in outputs]


def _call(block: nn.Module, *inputs: Tensor) -> Tensor:
    result: Tensor = block(*inputs)
    return result


def _encoder_block(config: SeRankConfig, level: int, in_channels: int, out_channels: int) -> nn.Module:
    if config.encoder == "plain":
        return PlainBlock(in_channels, out_channels, config.bias)
    stem = config.width if config.stem_channels is None else config.stem_channels
    return DDC(
        in_channels,
        out_channels,
        hidden_channels=None if level else stem,
        branches=config.branches,
        merge_kernel=config.merge_kernel,
        theta=config.theta,
        bias=config.bias,
    )


def _attention(config: SeRankConfig, level: int, channels: int) -> nn.Module:
    if config.attention == "none":
        return nn.Identity()
    return SeRankAttention(
        rank_size(channels, level + 1, config.rank_offset),
        positional_encoding=config.positional_encoding,
        table_width=None if config.table_size is None else max(1, config.table_size // 2**level),
        select="before" if config.attention == "serank" else "after",
    )


def pad_to_stride(x: Tensor, channels: int) -> Tensor:
    """The input `(B, channels, H, W)`, checked and padded up to sides that are multiples of `STRIDE`."""
    check_map(x, channels)
    height, width = x.shape[2:]
    if height < 1 or width < 1:
        raise ValueError(f"x must have H and W >= 1; got {height}x{width}")
    return crop_or_pad(x, *((side + STRIDE - 1) // STRIDE * STRIDE for side in (height, width)))


def crop_or_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Crops `(B, C, H, W)` to `(height, width)`, or pads it by replicating the last row and column.

    By index and not by F.pad and slices, whose sizes torch.export can't prove to fit.
    """
    for axis, side in ((2, height), (3, width)):
        if torch.compiler.is_compiling() or x.shape[axis] != side:  # a graph must hold for any size
            x = x.index_select(axis, torch.arange(side, device=x.device).clamp(max=x.shape[axis] - 1))
    return x
