"""Batch normalisation: PyTorch's own, faster to train on a CPU, and over several processes on any device."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["BatchNorm2d", "synchronise"]

ROW = 512
"""Values to which short rows of channels are widened; PyTorch's kernels for channels_last maps run along a row."""
FEW = 16
"""Maps of fewer channels, and of at least `LARGE` values, were faster so where this was measured; others slower."""
LARGE = 1 << 18


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`: same arguments, parameters and results.

    Two things differ, both in training mode only. A large channels_last map of few channels is normalised
    several pixels at a time on a CPU, where PyTorch's kernel is slow for so short rows.
    After `synchronise` the statistics are those of all processes of `torch.distributed`, on a CPU too, which
    `torch.nn.SyncBatchNorm` refuses.

    Shape: `(B, C, H, W) -> (B, C, H, W)`, dtype and memory format kept.
    """

    synchronised = False

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W) -> (B, C, H, W)`."""
        processes = dist.get_world_size() if self.synchronised and dist.is_initialized() else 1
        if not self.training or not self.affine:
            return super().forward(x)
        if processes == 1 and (torch.compiler.is_compiling() or not _slow(x)):
            return super().forward(x)
        self._check_input_dim(x)
        with torch.no_grad():
            rows = _rows(x)
            mean, variance = _moments(rows, self.weight, self.eps)
            total = x.numel() // x.shape[1] * processes
            if processes > 1:
                mean, variance = _pooled(mean, variance, processes)
            if total < 2:
                raise ValueError(f"x must have more than one value a channel in training; got shape {tuple(x.shape)}")
            self._track(mean, variance * (total / (total - 1)))
        return cast(
            "Tensor",
            _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps, processes),  # type: ignore[no-untyped-call]
        )

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards those of this batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def synchronise(network: nn.Module, synchronised: bool = True) -> None:
    """Lets every `BatchNorm2d` of this file within `network` take its statistics over all processes, or no longer."""
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.synchronised = synchronised


class _Normalise(torch.autograd.Function):
    """`(x - mean) / deviation * weight + bias`, mean and deviation being those of x over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, processes: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inverse := (variance + eps).rsqrt())
        ctx.processes = processes
        scale = weight * inverse
        return _affine(_rows(x), scale, bias - mean * scale, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        rows = _rows(x)
        # its rows must lie as those of x do
        gradient = gradient.contiguous(memory_format=_format(x))
        by_weight, by_bias = _parameter_gradients(rows, _rows(gradient), mean, inverse)
        sums = torch.stack((by_weight, by_bias))
        if ctx.processes > 1:
            dist.all_reduce(sums)
        total = x.numel() // x.shape[1] * ctx.processes
        scale = weight * inverse
        along, level = sums[0] * scale * inverse / total, sums[1] * scale / total
        by_x = _affine(_rows(gradient), scale, -level, x)
        by_x = by_x.add_(_affine(rows, -along, along * mean, x))
        return by_x, by_weight, by_bias, None, None, None, None


def _slow(x: Tensor) -> bool:
    """Whether PyTorch's kernel is the slower one: on a CPU, for large channels_last maps of few channels."""
    few = x.ndim == 4 and x.shape[1] < FEW and x.numel() >= LARGE
    return few and x.device.type == "cpu" and _format(x) == torch.channels_last and _group(x) > 1


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _group(x: Tensor) -> int:
    """Neighbouring pixels of a channels_last map that make one row."""
    return math.gcd(x.numel() // x.shape[1], max(1, ROW // x.shape[1]))


def _rows(x: Tensor) -> Tensor:
    """`x` as `(rows, pixels * C)` without a copy if it is channels_last, else as `(B, C, H * W)`."""
    if _format(x) == torch.channels_last:
        return x.permute(0, 2, 3, 1).reshape(-1, _group(x) * x.shape[1])
    return x.contiguous().flatten(2)


def _moments(rows: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel, `(C,)` of the dtype of `weight`."""
    channels = weight.numel()
    one = torch.ones_like(weight).repeat(rows.shape[1] // channels)
    # without parameters of their own dtype the statistics of a bfloat16 map would come in bfloat16
    _, mean, inverse = torch.native_batch_norm(rows, one, one, one.clone(), one.clone(), True, 0.0, eps)
    mean, variance = mean.view(-1, channels), inverse.view(-1, channels).pow(-2) - eps
    # each place in a row is a sample of its own, all of one size
    return mean.mean(0), variance.mean(0) + mean.var(0, correction=0)


def _pooled(mean: Tensor, variance: Tensor, processes: int) -> tuple[Tensor, Tensor]:
    """Mean and variance over all processes, which hold equally many values."""
    mine = torch.stack((mean, variance))
    parts = [torch.empty_like(mine) for _ in range(processes)]
    dist.all_gather(parts, mine)
    means, variances = torch.stack(parts).unbind(1)
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def _affine(rows: Tensor, scale: Tensor, shift: Tensor, like: Tensor) -> Tensor:
    """`rows * scale + shift` by channel, in the shape and memory format of `like`; computed in the scale's dtype."""
    repeat = rows.shape[1] // scale.numel()
    zero, one = torch.zeros_like(scale).repeat(repeat), torch.ones_like(scale).repeat(repeat)
    # written into a tensor that is no view, since a ReLU in place may follow
    result, unused = torch.empty_like(like, memory_format=_format(like)), torch.empty_like(zero)
    torch.ops.aten.native_batch_norm.out(
        rows,
        scale.repeat(repeat),
        shift.repeat(repeat),
        zero,
        one,
        False,
        0.0,
        0.0,
        out=_rows(result),
        save_mean=unused,
        save_invstd=unused.clone(),
    )
    return result


def _parameter_gradients(rows: Tensor, gradient: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over each channel of `gradient * normalised x` and of `gradient`, `(C,)`."""
    repeat = rows.shape[1] // mean.numel()
    mean, inverse = mean.repeat(repeat), inverse.repeat(repeat)
    one = torch.ones_like(mean)
    _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
        gradient, rows, one, mean, one, mean, inverse, True, 0.0, [False, True, True]
    )
    return by_weight.view(repeat, -1).sum(0), by_bias.view(repeat, -1).sum(0)
