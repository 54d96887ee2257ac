"""Convolution, batch norm and ReLU as one operation, for inference.

Batch norm in eval mode is linear, so that it becomes part of the convolution before it. On a CPU, oneDNN runs ReLU, a
sum and a product inside the convolution; on CUDA, cuDNN runs bias, ReLU and a sum inside it. Both turn NaN into 0
there, unlike PyTorch's own ReLU.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.layers.attention import SeRankAttention
from serank.layers.ddc import DDC, DifferenceConv2d
from serank.layers.lsff import LSFF
from serank.models.network import DecoderStep, PlainBlock
from serank.utils.cuda_graph import recording

LOGGER = logging.getLogger("serank.inference")

KNOWN = (
    *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *(DifferenceConv2d, DDC, LSFF, SeRankAttention, PlainBlock, DecoderStep),
)
"""Modules whose forward pass is known here; a subclass may do something else."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PACKED_FOR = 64
"""Height and width for which weights are laid out; the layout that oneDNN picks hardly depends on them."""


class FusedConv(nn.Module):
    """Convolution of stride 1 of one map, or of the concatenation of several, which is never built.

    Args:
        weight: `(out_channels, in_channels, h, w)`.
        bias: `(out_channels,)`.
        padding: rows and columns of zeros.
        dilation: by row and column.
        dtype: to run in.
        packed: lay the weights out for oneDNN and let it do what follows the convolution, see `can_pack`.
        parts: maps of equal channels that make the input.
        relu: apply ReLU to the sum of all parts.

    Shape: each map `(B, in_channels / parts, H, W)` -> `(B, out_channels, H, W)`.

    Raises:
        ValueError: a weight or bias is not finite in `dtype`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        padding: Sequence[int],
        dilation: Sequence[int] = (1, 1),
        dtype: torch.dtype,
        packed: bool,
        parts: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.padding, self.dilation = list(padding), list(dilation)
        self.packed = packed
        self.parts = parts
        self.relu = relu
        weight, bias = weight.detach().to(dtype), bias.detach().to(dtype)
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"weights leave the range of {dtype} once batch norm is folded in; use float32")
        self.cudnn = not packed and can_run_cudnn(weight.device, dtype)
        self.bias = nn.Buffer(bias, persistent=False)
        for number, part in enumerate(weight.chunk(parts, dim=1)):
            value = _pack(part, self.padding, self.dilation) if packed else _channels_last(part)
            self.register_buffer(f"weight{number}", value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of one map that is all of the input."""
        return self.add(x, 0, None)

    def add(self, x: Tensor, part: int, total: Tensor | None) -> Tensor:
        """Adds the share of one part to `total`, in place; parts come in order, the first with `None`."""
        last = part == self.parts - 1
        relu = self.relu and last
        if not self.packed:
            # the bias comes last, where cuDNN adds it in the same kernel
            bias = self.bias if last else None
            if relu and self.cudnn and not torch.compiler.is_compiling():
                y = self._cudnn(x, part, total)
                if y is not None:
                    return y
            y = self._convolve(x, part, bias)
            y = y if total is None else total.add_(y)
            return y.relu_() if relu else y
        bias = self.bias if part == 0 else None
        after = "relu" if relu else "none"
        if total is None:
            return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, *self._place(part, bias), after, [], ""))
        return cast(
            Tensor,
            torch.ops.mkldnn._convolution_pointwise_.binary(
                total, x, *self._place(part, bias), "add", 1.0, "relu" if relu else None, [], ""
            ),
        )

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The convolution of `x`, which is all of the input, times `factor` `(B, out_channels, H, W)`, without ReLU."""
        if not self.packed:
            return self._convolve(x, 0, self.bias).mul_(factor)
        place = self._place(0, self.bias)
        return cast(
            Tensor, torch.ops.mkldnn._convolution_pointwise.binary(x, factor, *place, "mul", None, None, [], "")
        )

    def _convolve(self, x: Tensor, part: int, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, self.get_buffer(f"weight{part}"), bias, 1, self.padding, self.dilation)

    def _cudnn(self, x: Tensor, part: int, total: Tensor | None) -> Tensor | None:
        """The last part with bias, ReLU and what came before, in one kernel; `None` where cuDNN has none for it."""
        weight = self.get_buffer(f"weight{part}")
        place = (self.bias, [1, 1], self.padding, self.dilation, 1)
        try:
            if total is None:
                return torch.cudnn_convolution_relu(x, weight, *place)
            return torch.cudnn_convolution_add_relu(x, weight, total, 1.0, *place)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or recording(x.device):
                raise
            LOGGER.info("cuDNN doesn't fuse this convolution, it runs without: %s", error)
            self.cudnn = False
            return None

    def _place(self, part: int, bias: Tensor | None) -> list[Any]:
        return [self.get_buffer(f"weight{part}"), bias, self.padding, [1, 1], self.dilation, 1]


def can_fuse(module: nn.Module) -> bool:
    """Whether `module` and its submodules are of classes known here and run their own forward pass, without hooks."""
    return all(type(m) in KNOWN and is_unhooked(m) for m in module.modules())


def is_unhooked(module: nn.Module) -> bool:
    """Whether a call of `module` runs its class's forward pass and nothing else."""
    own = vars(module)
    return not any(own[hooks] for hooks in HOOKS) and "forward" not in own and module._compiled_call_impl is None


def can_fold(block: nn.Module) -> bool:
    """Whether `block` is a convolution of stride 1, batch norm with running statistics, and ReLU."""
    if not isinstance(block, nn.Sequential) or not can_fuse(block) or len(block) != 3:
        return False
    conv, norm, relu = block
    return (
        isinstance(conv, nn.Conv2d)
        and (conv.groups, conv.stride, conv.padding_mode) == (1, (1, 1), "zeros")
        and not isinstance(conv.padding, str)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.affine
        and norm.running_mean is not None
        and norm.num_features == conv.out_channels
        and isinstance(relu, nn.ReLU)
    )


def fold_batch_norm(block: nn.Module, *, dtype: torch.dtype, packed: bool, parts: int = 1) -> FusedConv:
    """Convolution, batch norm in eval mode and ReLU as one operation.

    Args:
        block: one for which `can_fold` holds.
        dtype: to run in.
        packed: as of `FusedConv`.
        parts: as of `FusedConv`.
    """
    conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(cast(nn.Sequential, block))[:2])
    weight, bias = conv.kernel() if isinstance(conv, DifferenceConv2d) else (conv.weight, conv.bias)
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    shift = norm.bias.double() - mean * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    # at least in float32, whatever the network's dtype
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return FusedConv(
        weight * scale.to(weight.dtype)[:, None, None, None],
        shift,
        padding=cast(tuple[int, int], conv.padding),
        dilation=conv.dilation,
        dtype=dtype,
        packed=packed,
        parts=parts,
    )


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused convolutions run `dtype` on `device`."""
    return device.type == "cpu" and bool(torch.backends.mkldnn.enabled) and _can_pack(dtype)


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    # tried, since builds of PyTorch and processors differ in what they have
    x, weight, expected = _example(torch.device("cpu"), dtype)
    try:
        conv = FusedConv(weight, torch.zeros(8), padding=(1, 1), dtype=dtype, packed=True)
        twice = FusedConv(
            torch.cat((weight, weight), 1), torch.zeros(8), padding=(1, 1), dtype=dtype, packed=True, parts=2
        )
        found = (twice.add(x, 1, twice.add(x, 0, None)), conv.times(x, conv(x)))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return _close(found, ((2 * expected).relu(), expected * expected.relu()))


def can_run_cudnn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether cuDNN's fused convolutions run `dtype` on `device`."""
    return device.type == "cuda" and bool(torch.backends.cudnn.enabled) and _can_run_cudnn(device, dtype)


@cache
def _can_run_cudnn(device: torch.device, dtype: torch.dtype) -> bool:
    # tried, as oneDNN's
    x, weight, expected = _example(device, dtype)
    kernel, bias, place = _channels_last(weight.to(dtype)), x.new_zeros(8), ([1, 1], [1, 1], [1, 1], 1)
    try:
        once = torch.cudnn_convolution_relu(x, kernel, bias, *place)
        twice = torch.cudnn_convolution_add_relu(x, kernel, expected.to(dtype), 1.0, None, *place)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return _close((once, twice), (expected.relu(), (2 * expected).relu()))


def _example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """An input, a weight `(8, 8, 3, 3)` in float32, and the convolution of both in float32."""
    x = torch.linspace(-1, 1, 8 * 8 * 8, device=device).reshape(1, 8, 8, 8)
    x = x.to(dtype, memory_format=torch.channels_last)
    weight = torch.linspace(-0.3, 0.3, 8 * 8 * 9, device=device).reshape(8, 8, 3, 3)
    return x, weight, F.conv2d(x.float(), weight, padding=1)


def _close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.allclose(f.float(), e, rtol=0.05, atol=0.2) for f, e in zip(found, expected, strict=True))


def _pack(weight: Tensor, padding: list[int], dilation: list[int]) -> Tensor:
    size = [1, weight.shape[1], PACKED_FOR, PACKED_FOR]
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight.contiguous(), padding, [1, 1], dilation, 1, size
    )
    return packed


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)
