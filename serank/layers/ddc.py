"""Dilated difference convolution (DDC), the encoder block of SeRankDet.

Dai et al., "Pick of the Bunch: Detecting Infrared Small Targets Beyond Hit-Miss Trade-Offs via Selective
Rank-Aware Attention", IEEE TGRS 2024, section III-B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.utils.checks import check_count, check_map

BRANCHES = ("vanilla", "difference", "dilated")
"""Names of the parallel branches of `DDC`, in the order in which they are concatenated."""


class DifferenceConv2d(nn.Conv2d):
    """3x3 central difference convolution, run as one ordinary convolution.

    `conv(x, W) - theta * conv(x, sum of W over its window)`, with the bias counted in both terms. Both terms are
    linear in the same window, so they equal one convolution whose centre tap is `w_c - theta * sum(w)` and whose
    bias is `(1 - theta) * b`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        theta: weight of the difference term; 0 is an ordinary convolution. The paper uses 0.7.
        bias: learn a bias.

    Shape: `(B, in_channels, H, W) -> (B, out_channels, H, W)`, any floating dtype.
    """

    def __init__(self, in_channels: int, out_channels: int, theta: float = 0.7, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.theta = theta

    def kernel(self) -> tuple[Tensor, Tensor | None]:
        """Weight `(out, in, 3, 3)` and bias `(out,)` of the one convolution that this layer equals."""
        # clone keeps the weight's memory format, which for one input channel arithmetic would lose
        weight = self.weight.clone()
        weight[:, :, 1, 1] -= self.theta * self.weight.sum((2, 3))
        return weight, None if self.bias is None else self.bias * (1 - self.theta)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W) -> (B, out_channels, H, W)`."""
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, padding=1)


def conv_bn_relu(conv: nn.Conv2d) -> nn.Sequential:
    """`conv` followed by batch norm over its output channels and ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))


class DDC(nn.Module):
    """Dilated difference convolution: a drop-in 3x3 block with three parallel branches and one merge.

    - vanilla: three 3x3 convolutions,
    - difference: one central difference convolution,
    - dilated: three 3x3 convolutions of dilation 2, 4, 2,

    each convolution with batch norm and ReLU; the branches are concatenated and merged by one more.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels between the first and second convolution of the vanilla and dilated branches.
            `None`, as in the paper, means `in_channels`. Where the input has few channels, as a one-channel frame,
            that squeezes both branches through them: pass `out_channels` there.
        branches: which of `BRANCHES` to build (paper's ablation), in any order, at least one.
        merge_kernel: side of the merging convolution: 1 in the paper's text, 3 in the released code.
        theta: weight of the difference term.
        bias: give every convolution a bias, as the released code does. Batch norm makes it redundant.

    Shape: `(B, in_channels, H, W) -> (B, out_channels, H, W)`, H and W >= 1, any floating dtype.

    Raises:
        ValueError: a number of channels below 1; `branches` is empty, repeats or names an unknown branch;
            `merge_kernel` is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int | None = None,
        branches: Sequence[str] = BRANCHES,
        merge_kernel: int = 1,
        theta: float = 0.7,
        bias: bool = False,
    ) -> None:
        super().__init__()
        in_channels, out_channels = check_count(in_channels, "in_channels"), check_count(out_channels, "out_channels")
        hidden = in_channels if hidden_channels is None else check_count(hidden_channels, "hidden_channels")
        if isinstance(branches, str):
            raise ValueError(f"branches must be a sequence of names; got {branches!r}; pass [{branches!r}]")
        if not branches or len(set(branches)) != len(branches) or not set(branches) <= set(BRANCHES):
            raise ValueError(f"branches must be distinct names out of {BRANCHES}, at least one; got {branches!r}")
        if check_count(merge_kernel, "merge_kernel") % 2 == 0:
            raise ValueError(f"merge_kernel must be odd, so that the map keeps its size; got {merge_kernel}")
        self.in_channels = in_channels

        def chain(dilations: Sequence[int]) -> nn.Sequential:
            widths = (in_channels, hidden, out_channels, out_channels)
            return nn.Sequential(
                *(
                    conv_bn_relu(nn.Conv2d(i, o, 3, padding=d, dilation=d, bias=bias))
                    for i, o, d in zip(widths, widths[1:], dilations, strict=False)
                )
            )

        self.branches = nn.ModuleDict()
        for name in BRANCHES:
            if name not in branches:
                continue
            if name == "difference":
                self.branches[name] = conv_bn_relu(DifferenceConv2d(in_channels, out_channels, theta, bias))
            else:
                self.branches[name] = chain((1, 1, 1) if name == "vanilla" else (2, 4, 2))
        self.merge = conv_bn_relu(
            nn.Conv2d(
                len(self.branches) * out_channels,
                out_channels,
                merge_kernel,
                padding=merge_kernel // 2,
                bias=bias,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W) -> (B, out_channels, H, W)`.

        Raises:
            TypeError: x is no tensor.
            ValueError: x has another number of axes or channels, is not floating, or is sparse.
        """
        check_map(x, self.in_channels)
        merged: Tensor = self.merge(torch.cat([branch(x) for branch in self.branches.values()], dim=1))
        return merged
