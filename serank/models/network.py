"""SeRankDet, the network.

Dai et al., "Pick of the Bunch: Detecting Infrared Small Targets Beyond Hit-Miss Trade-Offs via Selective
Rank-Aware Attention", IEEE TGRS 2024. Five encoder levels of `DDC` and `SeRankAttention`, four decoder steps with
`LSFF` skips, and six logit maps for deep supervision.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.checkpoints.pretrained import Pretrained
from serank.checkpoints.released import IMAGENET_MEAN, IMAGENET_STD, load_released
from serank.frames.preparation import FrameSpec
from serank.frames.reading import FrameLike
from serank.inference.detector import Detector
from serank.inference.kept import KeepsCopy
from serank.layers.attention import SeRankAttention, rank_size
from serank.layers.ddc import BRANCHES, DDC, DifferenceConv2d, conv_bn_relu
from serank.layers.lsff import LSFF
from serank.models.config import check_arguments, plain
from serank.utils.checkpointing import recomputed
from serank.utils.checks import check_threshold

if TYPE_CHECKING:
    from serank.inference.fused_network import InferenceNetwork

__all__ = ["STRIDE", "SeRankDet"]

LEVELS = 5
STRIDE = 2 ** (LEVELS - 1)
"""Sides are padded to a multiple of this inside the network and cropped back."""


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
        decoded = self.reduce(F.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=False))
        refined: Tensor = self.refine(self.fuse(skip, decoded))
        return refined


class SeRankDet(KeepsCopy, Detector, Pretrained):
    """Selective rank-aware detection network for infrared small targets.

    `SeRankDet.from_pretrained("sirst")` gives a trained one, `detect` runs it on frames. Building one touches neither
    network nor disk, and `config` holds the arguments that build it again.

    The defaults are the paper's graph, but for the stem: the first DDC's vanilla and dilated branches go from the
    frame's channels straight to `width`, where the paper's in -> in convolutions would squeeze a one-channel frame
    through a single channel. `stem_channels=in_channels` gives the paper's stem.

    Args:
        in_channels: channels of the input, 1 for grey frames.
        width: channels of the finest level; level i has `width * 2 ** (i - 1)`. The paper uses 64.
        stem_channels: hidden channels of the first DDC; `None` means `width`.
        rank_offset: o of equation 2, which sets K of each level's attention.
        encoder: `"ddc"` or `"plain"` (two 3x3 convolutions, ablation).
        branches: branches of each DDC, see `serank.layers.ddc.BRANCHES` (ablation).
        merge_kernel: side of DDC's merging convolution, 1 (paper) or 3 (released code).
        theta: weight of the difference term in every difference convolution.
        attention: `"serank"`, `"after"` (rank after the attention map, ablation) or `"none"` (ablation).
        positional_encoding: add the sinusoidal encoding to the ranked points.
        table_size: columns of the positional table at level 1, halved by level; `None` means the map's own width
            (paper), 512 is the released code's.
        fusion: mode of `LSFF`: `"select"` (paper), `"gated"` (released code) or `"concat"` (ablation).
        per_channel_fusion: one gate for each channel in mode `"select"` instead of one for all.
        bias: give every convolution a bias, as the released code does.
        mean: subtracted from grey values in [0, 1] before the network; a number, or one for each input channel.
        std: divides the result; like `mean`.
        working_size: longest side in pixels to which `detect` scales a frame; `None` leaves its size.
        scale_range: least and largest factor of that scaling.
        tile: largest side of the tiles into which `detect` cuts larger frames, in scaled pixels.
        overlap: pixels that neighbouring tiles share.
        threshold: probability above which `detect` takes a pixel as target, unless it is told another.

    Attributes:
        config: the arguments above, JSON-able.
        frame_spec: how frames are prepared, `serank.frames.FrameSpec`.
        checkpointing: whether training keeps the ends of each block alone and computes what is between them again in
            the backward pass: less memory, more time, the same gradients. `False` unless it is set.

    Raises:
        ValueError: an argument is of a wrong type or out of its range; the message names it.
    """

    checkpointing = False

    def __init__(
        self,
        *,
        in_channels: int = 1,
        width: int = 64,
        stem_channels: int | None = None,
        rank_offset: int = 3,
        encoder: str = "ddc",
        branches: Sequence[str] = BRANCHES,
        merge_kernel: int = 1,
        theta: float = 0.7,
        attention: str = "serank",
        positional_encoding: bool = True,
        table_size: int | None = None,
        fusion: str = "select",
        per_channel_fusion: bool = False,
        bias: bool = False,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
        working_size: int | None = None,
        scale_range: Sequence[float] = (0.5, 2.5),
        tile: int = 1024,
        overlap: int = 128,
        threshold: float = 0.5,
    ) -> None:
        arguments = locals()
        super().__init__()
        self.config: dict[str, Any] = {
            name: plain(value) for name, value in arguments.items() if name not in ("self", "__class__")
        }
        check_arguments(self.config)
        self.frame_spec = FrameSpec(mean, std, working_size, scale_range, tile, overlap)
        self.threshold = check_threshold(threshold)
        if encoder not in ("ddc", "plain"):
            raise ValueError(f'encoder must be "ddc" or "plain"; got {encoder!r}')
        if attention not in ("serank", "after", "none"):
            raise ValueError(f'attention must be "serank", "after" or "none"; got {attention!r}')
        self.in_channels = in_channels
        channels = [width * 2**level for level in range(LEVELS)]

        def block(level: int) -> nn.Module:
            source = channels[level - 1] if level else in_channels
            if encoder == "plain":
                return PlainBlock(source, channels[level], bias)
            stem = width if stem_channels is None else stem_channels
            return DDC(
                source,
                channels[level],
                hidden_channels=None if level else stem,
                branches=branches,
                merge_kernel=merge_kernel,
                theta=theta,
                bias=bias,
            )

        def attend(level: int) -> nn.Module:
            if attention == "none":
                return nn.Identity()
            return SeRankAttention(
                rank_size(channels[level], level + 1, rank_offset),
                positional_encoding=positional_encoding,
                table_width=None if table_size is None else max(1, table_size // 2**level),
                select="before" if attention == "serank" else "after",
            )

        self.encoder = nn.ModuleList(block(level) for level in range(LEVELS))
        self.attention = nn.ModuleList(attend(level) for level in range(LEVELS))
        self.decoder = nn.ModuleList(
            DecoderStep(c, fusion=fusion, fusion_maps=c if per_channel_fusion else 1, theta=theta, bias=bias)
            for c in channels[:-1]
        )
        self.head = nn.Conv2d(width, 1, 1)
        self.side_heads = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in channels)

    @classmethod
    def from_released(
        cls,
        path: str | os.PathLike[str],
        *,
        working_size: int = 512,
        mean: float | Sequence[float] = IMAGENET_MEAN,
        std: float | Sequence[float] = IMAGENET_STD,
        device: str | torch.device = "cpu",
    ) -> SeRankDet:
        """The released graph with the weights of a checkpoint of the authors' code (`.pth.tar`).

        The file is read with `torch.load(weights_only=True)`: nothing in it is run, and one that wants more than
        tensors and plain containers is refused. NumPy numbers beside the weights are skipped, unread.

        Frames are scaled to `working_size` on their longest side with their proportions kept, where the released
        test code resizes them to a square; for that, see `resolution` of `serank.evaluation.evaluate`.

        Args:
            path: file in PyTorch's zip format or the one before 1.6, with a state dict under `state_dict` or as a
                whole; names may begin with `module.` and `decode_head.`. All other entries are ignored.
            working_size: pixels, 512 for the checkpoints of SIRST and IRSTD-1k, 256 for SIRST-AUG and NUDT-SIRST; at
                most the side of the file's positional table, 512 in every released one.
            mean: of each input channel; ImageNet's, as the released code has it.
            std: of each input channel, like `mean`.
            device: where to put the network.

        Returns:
            The network in eval mode, in PyTorch's default dtype, float32; width and input channels as in the file.

        Raises:
            FileNotFoundError: no such file.
            serank.errors.CheckpointError: a file that is no such checkpoint, damaged, larger than 4.3 GB or refused;
                or entries missing, left over or misshapen (lists them by their released names).
            ValueError: a `working_size` out of its range, or a `device` that isn't there.
        """
        return load_released(cls, path, working_size=working_size, mean=mean, std=std, device=device)

    def reconfigured(self, **changes: Any) -> SeRankDet:
        """A copy with some constructor arguments changed and the same weights.

        Every argument that leaves the weights' shapes alone can be changed, such as `working_size` or `threshold`,
        and `in_channels`. In that case the first convolutions' weights, summed over the old input channels, are
        spread evenly over the new ones, so that on grey frames, where all channels are equal, the copy gives what
        this network gives. For that `mean` and `std` must be the same for all channels.

        Args:
            changes: constructor arguments.

        Returns:
            The copy, in the same mode and on the same device.

        Raises:
            ValueError: an unknown argument, one that changes other weights' shapes, or `in_channels` for a network
                whose channels have statistics of their own.
        """
        if unknown := sorted(set(changes) - set(self.config)):
            raise ValueError(f"unknown arguments {', '.join(unknown)}; SeRankDet takes {', '.join(self.config)}")
        channels = changes.get("in_channels", self.in_channels)
        if channels != self.in_channels:
            changes = {name: _one_number(name, self.config[name]) for name in ("mean", "std")} | changes
        copy = SeRankDet(**(self.config | changes))
        state = self.state_dict()
        for name, new in copy.state_dict().items():
            old = state.pop(name, None)
            if old is not None and old.shape != new.shape and channels != self.in_channels:
                spread = (old.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1)
                old = spread if old.shape[1] == self.in_channels else old
            if old is None or old.shape != new.shape:
                raise ValueError(
                    f"{', '.join(changes)}: the weights don't fit the change ({name}); train a new network"
                )
            state[name] = old
        copy.load_state_dict(state)
        return copy.to(self.head.weight.device, self.head.weight.dtype).train(self.training)

    def optimize(self, dtype: torch.dtype = torch.float32, *, compile: bool = False) -> InferenceNetwork:
        """A copy for inference alone, faster and in less memory: see `serank.inference.fused_network.InferenceNetwork`.

        `detect` makes and uses one by itself. A copy made by hand saves it the look whether the weights have changed,
        can run in half precision, and lets the network itself be freed.
        """
        from serank.inference.fused_network import InferenceNetwork

        return InferenceNetwork(self, dtype, compile=compile)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "onnx",
        opset: int | None = None,
        int8: bool = False,
        calibrate: str | os.PathLike[str] | Sequence[FrameLike] | None = None,
        name: str | None = None,
    ) -> None:
        """Writes the network for another runtime, with what prepares its frames; see `serank.inference.onnx_export`.

        What was written is compared with the network, and kept only if it gives the same logits, with `int8` nearly the
        same probabilities.

        Args:
            path: file to write, whole or not at all; `.onnx` or `.pt2`, as `format` says.
            format: `"onnx"`, or `"torch"` for a program of `torch.export`, which runs on the network's device.
            opset: of the ONNX file; `None` takes the one that PyTorch recommends.
            int8: write an ONNX file that computes most convolutions in 8-bit integers.
            calibrate: frames that `int8` takes the ranges of values from: a folder, or frames as `detect` takes them.
            name: of the network, kept in the file's metadata.

        Raises:
            ImportError: ONNX's packages are missing; names the extra, `serank[export]`.
            FileNotFoundError: the folder of `path` doesn't exist, or no frames to calibrate on.
            serank.errors.FrameError: a frame to calibrate on that can't be read.
            ValueError: an argument is out of its range, or some don't go together.
            RuntimeError: the file gives other logits than the network.
        """
        from serank.inference.onnx_export import export

        export(self, path, format=format, opset=opset, int8=int8, calibrate=calibrate, name=name)

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
            x: `(B, in_channels, H, W)` float, H and W >= 1, normalised as the checkpoint expects.

        Returns:
            `(B, 1, H, W)` logits; sigmoid gives target probability.

        Raises:
            ValueError: wrong dimensions, channels or an empty side.
        """
        logits: Tensor = self.head(self.decode(pad(x, self.in_channels))[0])
        return take(logits, *x.shape[2:])

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
        maps = self.decode(pad(x, self.in_channels))
        outputs = [head(m) for head, m in zip(self.side_heads, maps, strict=True)]
        outputs[1:] = [
            F.interpolate(o, scale_factor=2.0**level, mode="bilinear", align_corners=False)
            for level, o in enumerate(outputs[1:], start=1)
        ]
        outputs.append(self.head(maps[0]))
        return [take(o, *x.shape[2:]) for o in outputs]


def _call(block: nn.Module, *inputs: Tensor) -> Tensor:
    result: Tensor = block(*inputs)
    return result


def _one_number(name: str, value: float | Sequence[float]) -> float:
    """`value`, of which all channels must have the same."""
    values = set(np.atleast_1d(value).tolist())
    if len(values) > 1:
        raise ValueError(f"in_channels can't change for a network with {name}={value}, different for each channel")
    return float(values.pop())


def pad(x: Tensor, channels: int) -> Tensor:
    """Checks a network's input and repeats its last row and column up to multiples of `STRIDE`."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"x must have shape (B, {channels}, H, W) for this network; got {tuple(x.shape)}")
    height, width = x.shape[2:]
    if height < 1 or width < 1:
        raise ValueError(f"x must have H and W >= 1; got {height}x{width}")
    return take(x, *((side + STRIDE - 1) // STRIDE * STRIDE for side in (height, width)))


def take(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of `x`; beyond its sides the last ones repeat.

    By index and not by F.pad and slices, whose sizes torch.export can't prove to fit.
    """
    for axis, side in ((2, height), (3, width)):
        x = x.index_select(axis, torch.arange(side, device=x.device).clamp(max=x.shape[axis] - 1))
    return x
