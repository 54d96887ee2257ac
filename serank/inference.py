"""A copy of a network for inference alone: the same outputs with fewer operations and less memory.

Batch norm is folded into the convolutions, a difference convolution becomes one plain kernel, ReLU runs inside the
convolution where the CPU's library can, and what the network concatenates only to convolve is convolved part by part
into one sum. Side heads are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.detect import Detector
from serank.layers.ddc import DDC, DifferenceConv2d
from serank.layers.lsff import spread
from serank.network import DecoderStep, SeRankDet, pad, take

__all__ = ["InferenceNetwork"]

PACKED_FOR = 64
"""Height and width for which weights are laid out; the layout that oneDNN picks hardly depends on it."""


class FusedConv(nn.Module):
    """Convolution, batch norm and ReLU in one, over the concatenation of one or several maps that is never built.

    Args:
        block: convolution, batch norm in eval mode, ReLU.
        dtype: to run in.
        inputs: maps of equal channels that the convolution takes.
        packed: lay the weights out for oneDNN and let it run the ReLU; CPU alone.

    Shape: each map `(B, in_channels / inputs, H, W)` -> `(B, out_channels, H, W)`.
    """

    def __init__(self, block: nn.Sequential, dtype: torch.dtype, *, inputs: int = 1, packed: bool = False) -> None:
        super().__init__()
        conv = cast(nn.Conv2d, block[0])
        weight, bias = folded(conv, cast(nn.BatchNorm2d, block[1]))
        self.padding = [int(v) for v in cast(tuple[int, ...], conv.padding)]
        self.dilation = list(conv.dilation)
        self.packed = packed
        self.bias = nn.Buffer(bias.to(dtype), persistent=False)
        parts = weight.to(dtype).chunk(inputs, dim=1)
        if packed:
            self.weights = [self._pack(part) for part in parts]
        else:
            self.weights = [part.contiguous(memory_format=torch.channels_last) for part in parts]

    def _pack(self, weight: Tensor) -> Tensor:
        size = [1, weight.shape[1], PACKED_FOR, PACKED_FOR]
        weight = weight.contiguous()
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, [1, 1], self.dilation, 1, size
        )
        return packed

    def forward(self, x: Tensor) -> Tensor:
        """Of one map that is all of the input."""
        return self.add(x, 0, None)

    def add(self, x: Tensor, part: int, total: Tensor | None) -> Tensor:
        """Adds the share of one part of the input to `total`, in place; parts come in order, `None` before the first.

        After the last part, ReLU is applied.
        """
        last = part == len(self.weights) - 1
        bias = self.bias if part == 0 else None
        if not self.packed:
            y = F.conv2d(x, self.weights[part], bias, 1, self.padding, self.dilation)
            y = y if total is None else total.add_(y)
            return y.relu_() if last else y
        place: list[Any] = [self.weights[part], bias, self.padding, [1, 1], self.dilation, 1]
        if total is None:
            once: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *place, "relu" if last else "none", [], "")
            return once
        both: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, *place, "add", 1.0, "relu" if last else None, [], ""
        )
        return both


class FusedDDC(nn.Module):
    """`DDC` whose merge takes each branch as it comes."""

    def __init__(self, block: DDC, dtype: torch.dtype, packed: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(fused(branch, dtype, packed) for branch in block.branches.values())
        self.merge = FusedConv(block.merge, dtype, inputs=len(self.branches), packed=packed)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W) -> (B, out_channels, H, W)`."""
        total = None
        for part, branch in enumerate(self.branches):
            total = self.merge.add(branch(x), part, total)
        return cast(Tensor, total)


class FusedStep(nn.Module):
    """`DecoderStep` without concatenations."""

    def __init__(self, step: DecoderStep, dtype: torch.dtype, packed: bool) -> None:
        super().__init__()
        self.reduce = fused(step.reduce, dtype, packed)
        self.fuse = step.fuse.to(dtype)
        inputs = 1 if step.fuse.mode == "select" else 2
        self.first = FusedConv(cast(nn.Sequential, step.refine[0]), dtype, inputs=inputs, packed=packed)
        self.rest = nn.Sequential(*(fused(block, dtype, packed) for block in list(step.refine)[1:]))

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        """Skip `(B, C, H, W)`, deeper `(B, 2C, H/2, W/2)` -> `(B, C, H, W)`."""
        decoded = self.reduce(F.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=False))
        total = None
        for part, x in enumerate(self._fuse(skip, decoded)):
            total = self.first.add(x, part, total)
        refined: Tensor = self.rest(total)
        return refined

    def _fuse(self, skip: Tensor, decoded: Tensor) -> Iterator[Tensor]:
        """LSFF's output, in two halves where it concatenates."""
        fuse = self.fuse
        if fuse.mode == "concat":
            yield from (skip, decoded)
            return
        gate = fuse.gate(skip, decoded)
        if fuse.mode == "select":
            yield torch.lerp(decoded, skip, spread(gate, decoded))
            return
        weighted = (skip * gate[:, :1]).add_(decoded * gate[:, 1:])
        for x, weight, bias in zip(
            (skip, decoded), fuse.expand.weight.chunk(2), cast(Tensor, fuse.expand.bias).chunk(2), strict=True
        ):
            factor = F.conv2d(weighted, weight, bias).mul_(fuse.gamma).add_(1)
            yield factor.mul_(x)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `conv` followed by `norm` in eval mode; computed in float64."""
    weight, bias = conv.kernel() if isinstance(conv, DifferenceConv2d) else (conv.weight, conv.bias)
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    shift = norm.bias.double() - mean * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    return (weight.double() * scale[:, None, None, None]).detach(), shift.detach()


def fused(block: nn.Module, dtype: torch.dtype, packed: bool) -> nn.Module:
    """`block` for inference: a chain of convolutions, or one of them."""
    children = list(block.children())
    if len(children) == 3 and isinstance(children[1], nn.BatchNorm2d):
        return FusedConv(cast(nn.Sequential, block), dtype, packed=packed)
    return nn.Sequential(*(fused(child, dtype, packed) for child in children))


class InferenceNetwork(nn.Module, Detector):
    """What `SeRankDet.optimize` gives: `forward` and `detect`, nothing to train or to save.

    Args:
        network: is left as it is; later changes of its weights don't reach this copy.
        dtype: to run in, float32, bfloat16 or float16.
        compile: let `torch.compile` fuse further at first use, which takes minutes.

    Attributes:
        dtype: what it runs in; inputs are converted, logits are of this dtype.

    Raises:
        ValueError: a `dtype` that is none of the three.
    """

    def __init__(self, network: SeRankDet, dtype: torch.dtype = torch.float32, *, compile: bool = False) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype must be torch.float32, torch.bfloat16 or torch.float16; got {dtype}")
        self.dtype = dtype
        self.in_channels, self.frame_spec, self.threshold = network.in_channels, network.frame_spec, network.threshold
        device = network.head.weight.device
        packed = not compile and device.type == "cpu" and _packs(dtype)
        with torch.no_grad():
            source = copy.deepcopy(network).eval()
            self.encoder = nn.ModuleList(
                FusedDDC(block, dtype, packed) if isinstance(block, DDC) else fused(block, dtype, packed)
                for block in source.encoder
            )
            self.attention = source.attention.to(dtype)
            self.decoder = nn.ModuleList(FusedStep(cast(DecoderStep, step), dtype, packed) for step in source.decoder)
            self.head = source.head.to(dtype)
        self.requires_grad_(False).eval()
        self.run = torch.compile(self._run) if compile else self._run

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel, as `SeRankDet.forward`.

        Args:
            x: `(B, in_channels, H, W)` float, H and W >= 1, normalised as the checkpoint expects.

        Returns:
            `(B, 1, H, W)` logits.

        Raises:
            ValueError: wrong dimensions, channels or an empty side.
        """
        height, width = x.shape[-2:]
        with torch.inference_mode():
            x = pad(x, self.in_channels).to(self.dtype, memory_format=torch.channels_last)
            return take(self.run(x), height, width)

    def _run(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, (block, attend) in enumerate(zip(self.encoder, self.attention, strict=True)):
            x = attend(block(F.max_pool2d(x, 2) if level else x))
            skips.append(x)
        x = skips.pop()
        for step in reversed(self.decoder):
            x = step(skips.pop(), x)
        return cast(Tensor, self.head(x))

    def _apply(self, *_: Any, **__: Any) -> InferenceNetwork:
        raise TypeError("an inference network stays where and what it is; move or convert the SeRankDet, then optimize")


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and runs `dtype`."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
