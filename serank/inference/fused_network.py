"""A copy of a network for inference alone: the same outputs with fewer operations and less memory.

Batch norm is folded into the convolutions, a difference convolution becomes one ordinary kernel, and what the network
concatenates only to convolve is convolved part by part into one sum. Side heads are left out. On CUDA the whole pass is
replayed from a recorded graph.

The first convolutions of DDC's vanilla and difference branches have input and dilation in common and could run as one,
but each branch then reads every second part of a channels_last map, which has to be copied first: with bias and ReLU
inside the convolutions that is three kernels for two.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serank.frames.preparation import FrameSpec
from serank.inference.cuda_graphs import graphs_on
from serank.inference.detector import Detector
from serank.inference.fused_conv import FusedConv, can_fold, can_fuse, can_pack, fold_batch_norm, is_unhooked
from serank.inference.fused_gate import FusedGate
from serank.inference.scores import Calibration, check_calibration
from serank.inference.tta import check_tta
from serank.layers.attention import SeRankAttention
from serank.layers.ddc import DDC
from serank.layers.lsff import LSFF
from serank.models.network import DecoderStep, SeRankNet, crop_or_pad, pad_to_stride
from serank.utils.checks import check_map
from serank.utils.cuda_graph import recording

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class FusedDDC(nn.Module):
    """`DDC` whose merge takes each branch as it comes.

    Shape: as of `DDC`.
    """

    def __init__(self, block: DDC, dtype: torch.dtype, packed: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(fuse(branch, dtype, packed) for branch in block.branches.values())
        self.merge = fold_batch_norm(block.merge, dtype=dtype, packed=packed, parts=len(self.branches))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W) -> (B, out_channels, H, W)`."""
        total = None
        for part, branch in enumerate(self.branches):
            total = self.merge.add(branch(x), part, total)
        return cast(Tensor, total)


class FusedStep(nn.Module):
    """`DecoderStep` without concatenations.

    Shape: as of `DecoderStep`.
    """

    def __init__(self, step: DecoderStep, dtype: torch.dtype, packed: bool) -> None:
        super().__init__()
        fusion = step.fuse
        self.mode = fusion.mode
        self.reduce = fuse(step.reduce, dtype, packed)
        self.fuse = cast(LSFF, converted(fusion, dtype))
        # on a CPU a third map costs its convolution more than the operations that it saves
        fewer = fusion.mode != "concat" and fusion.squeeze.weight.device.type != "cpu"
        self.gate = FusedGate(fusion, dtype) if fewer else None
        first, *rest = step.refine
        self.first = fold_batch_norm(first, dtype=dtype, packed=packed, parts=1 if fusion.mode == "select" else 2)
        self.rest = nn.Sequential(*(fuse(block, dtype, packed) for block in rest))
        if fusion.mode == "gated":  # x + gamma * (x * a) is x times one convolution
            weight = fusion.gamma[:, None, None, None] * fusion.expand.weight
            bias = fusion.gamma * cast(Tensor, fusion.expand.bias) + 1
            self.factors = nn.ModuleList(
                FusedConv(w, b, padding=(0, 0), dtype=dtype, packed=packed, relu=False)
                for w, b in zip(weight.chunk(2), bias.chunk(2), strict=True)
            )

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        """Skip `(B, C, H, W)`, deeper `(B, 2C, H/2, W/2)` -> `(B, C, H, W)`."""
        decoded = self.reduce(F.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=False))
        refined: Tensor = self.rest(self._first_convolution(skip, decoded))
        return refined

    def _first_convolution(self, skip: Tensor, decoded: Tensor) -> Tensor:
        """LSFF and the first convolution after it."""
        if self.mode == "concat":
            return self.first.add(decoded, 1, self.first.add(skip, 0, None))
        gate = self.fuse.gate(skip, decoded) if self.gate is None else self.gate(skip, decoded)
        if self.mode == "select":
            return self.first.add(torch.lerp(decoded, skip, _expand(gate, decoded)), 0, None)
        weighted = (skip * gate[:, :1]).addcmul_(decoded, gate[:, 1:])
        total = None
        for part, (x, factor) in enumerate(zip((skip, decoded), self.factors, strict=True)):
            total = self.first.add(cast(FusedConv, factor).times(weighted, x), part, total)
        return cast(Tensor, total)


def fuse(block: nn.Module, dtype: torch.dtype, packed: bool) -> nn.Module:
    """`block` for inference, as far as it is known; a copy of what isn't."""
    if can_fold(block):
        return fold_batch_norm(block, dtype=dtype, packed=packed)
    if not can_fuse(block):
        return converted(block, dtype)
    if isinstance(block, DDC) and _sums(block.merge, list(block.branches.values())):
        return FusedDDC(block, dtype, packed)
    if isinstance(block, DecoderStep) and can_fold(block.reduce) and _refines(block):
        return FusedStep(block, dtype, packed)
    if isinstance(block, nn.Sequential):
        return nn.Sequential(*(fuse(child, dtype, packed) for child in block))
    return converted(block, dtype)


def converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy that runs as `module` does, in `dtype`."""
    result = copy.deepcopy(module)
    if type(result) is SeRankAttention:  # computes in float32 whatever its input
        return result.float()
    return result.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _sums(merge: nn.Module, branches: list[nn.Module]) -> bool:
    """Whether `merge` takes equally many channels of each branch, the last convolution of which is known."""
    if not branches or not can_fold(merge):
        return False
    lasts = [m for m in (_last_block(branch) for branch in branches) if m is not None]
    widths = {cast(nn.Conv2d, m[0]).out_channels for m in lasts}
    return len(lasts) == len(branches) and {w * len(branches) for w in widths} == {_inputs(merge)}


def _last_block(branch: nn.Module) -> nn.Sequential | None:
    while isinstance(branch, nn.Sequential) and len(branch):
        if can_fold(branch):
            return branch
        branch = branch[-1]
    return None


def _refines(step: DecoderStep) -> bool:
    """Whether the first block after LSFF can take LSFF's output."""
    blocks = list(step.refine)
    return bool(blocks) and can_fold(blocks[0]) and _inputs(blocks[0]) == step.fuse.out_channels


def _inputs(block: nn.Module) -> int:
    return cast(nn.Conv2d, cast(nn.Sequential, block)[0]).in_channels


def _expand(gate: Tensor, like: Tensor) -> Tensor:
    """`(B, 1 or C, H, W)`; on a CPU in the shape of `like`, since a broadcast along few channels is slow there."""
    if gate.device.type != "cpu":
        return gate
    return gate.expand_as(like).contiguous(memory_format=torch.channels_last)


def _taint(x: Tensor) -> Tensor:
    """0, or NaN for a frame of `(B, C, H, W)` that holds NaN or infinity, which fused ReLUs hide; `(B, 1, 1, 1)`."""
    return (x * 0).sum((1, 2, 3), keepdim=True)


def _check_finite(network: nn.Module) -> None:
    wrong = [name for name, v in network.state_dict().items() if v.is_floating_point() and not v.isfinite().all()]
    if wrong:
        raise ValueError(f"weights hold NaN or infinity: {', '.join(wrong)}; load or train others")


class InferenceNetwork(nn.Module, Detector):
    """A copy of a network for inference alone, as `SeRankDet.optimize` makes it: `forward` and `detect`.

    Logits are those of the network in eval mode, to rounding: in float32 to 1e-5 of the largest logit where this was
    tested. Blocks that are not the library's own, or have hooks, are copied and run as they are. Several threads may
    use one.

    On CUDA a shape that comes again is recorded as a CUDA graph and replayed from then on, see
    `serank.inference.cuda_graphs`. A graph is for exactly its shape, since padding would change what SeRank ranks;
    eight are kept, in memory that they share. Blocks that are not the library's own are recorded with the rest:
    theirs must be a forward pass that depends on its input alone. Inside a graph that a program records itself, the
    pass runs kernel by kernel.

    An input frame that holds NaN or infinity gives NaN everywhere, and so do values that leave the dtype's range where
    an encoder block ends; within a block ReLU may hide them.

    Half precision is a choice. On nine validation frames of SIRST with an earlier `"sirst"`, bfloat16 moved a
    pixel's probability by up to 0.14 (0.32 on other frames) and six mask pixels in all, float16 by 0.024 and one.
    Ranking and attention are computed in float32 in every dtype, but of maps that the encoder rounded: with the
    attention matrices of the float32 network it is still 0.11; only a whole encoder in float32 mends it (0.02).

    Args:
        network: is left as it is; later changes of its weights don't reach this copy.
        dtype: to run in, float32, bfloat16 or float16.
        frame_spec: how `detect` prepares frames.
        threshold: probability above which `detect` takes a pixel as target.
        tta: rotations and flips of a frame over which `detect` averages.
        score_calibration: of the scores of detections, see `serank.inference.scores.calibrated_scores`.
        compile: let `torch.compile` fuse further. That takes minutes at the first frame, and again for other sizes.
        graphs: on CUDA, record graphs. Leave them out where another thread waits for the whole device
            (`torch.cuda.synchronize`) while this one meets its shapes for the first times, which ends a recording.

    Attributes:
        dtype: what it runs in; inputs are converted, logits are of this dtype.
        in_channels: as of the network.
        frame_spec: as given.
        threshold: as given.
        tta: as given.
        score_calibration: as given.

    Raises:
        ValueError: a `dtype` that is none of the three, a network with a forward pass or hooks of its own, or weights
            that hold NaN or infinity (names them) or do in `dtype`.
    """

    def __init__(
        self,
        network: SeRankNet,
        dtype: torch.dtype = torch.float32,
        *,
        frame_spec: FrameSpec,
        threshold: float,
        tta: int = 1,
        score_calibration: Calibration | None = None,
        compile: bool = False,
        graphs: bool = True,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be torch.float32, torch.bfloat16 or torch.float16; got {dtype}")
        own = any(getattr(type(network), name) is not getattr(SeRankNet, name) for name in ("forward", "decode"))
        if own or not is_unhooked(network):
            raise ValueError(
                f"{type(network).__name__} has a forward pass or hooks of its own, which optimize doesn't know; use it "
                "as it is"
            )
        _check_finite(network)
        self.dtype = dtype
        self.in_channels, self.frame_spec, self.threshold = network.in_channels, frame_spec, threshold
        self.tta, self.score_calibration = check_tta(tta), check_calibration(score_calibration)
        device = network.head.weight.device
        # without: for weights that work in any mode, in the precision asked for
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            packed = not compile and can_pack(device, dtype)
            self.encoder = nn.ModuleList(fuse(block, dtype, packed) for block in network.encoder)
            self.attention = nn.ModuleList(converted(layer, dtype) for layer in network.attention)
            self.decoder = nn.ModuleList(fuse(step, dtype, packed) for step in network.decoder)
            self.head = converted(network.head, dtype)
            self.requires_grad_(False)
        nn.Module.train(self, False)
        # not a bound method, which would be a cycle that keeps the weights in memory until it is collected
        self._pass = torch.compile(InferenceNetwork._logits) if compile else InferenceNetwork._logits
        # torch.compile's own code may not be what a graph can hold
        self._graphs = graphs_on(device) if graphs and not compile else None
        self._device = device

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel, as `SeRankDet.forward`; no gradient is kept.

        Args:
            x: `(B, in_channels, H, W)` float, H and W >= 1, normalised as the checkpoint expects.

        Returns:
            `(B, 1, H, W)` logits of `dtype`.

        Raises:
            ValueError: wrong dimensions, channels or an empty side.
        """
        check_map(x, self.in_channels)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            padded = pad_to_stride(x, self.in_channels).to(self.dtype, memory_format=torch.channels_last)
            return crop_or_pad(self._run(padded), *x.shape[2:])

    def _run(self, x: Tensor) -> Tensor:
        # an input on another device fails as it does without graphs, which would copy it
        if self._graphs is None or x.device != self._device or torch.compiler.is_compiling() or recording(x.device):
            return self._pass(self, x)
        return self._graphs(partial(self._pass, self), x)

    def _logits(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        taint = _taint(x)
        for level, (block, attend) in enumerate(zip(self.encoder, self.attention, strict=True)):
            x = attend(block(F.max_pool2d(x, 2) if level else x))
            # what is not finite ranks highest, from where attention brings it to every pixel: one shows it
            taint = taint + _taint(x[:, :, :1, :1])
            skips.append(x)
        x = skips.pop()
        for step in reversed(self.decoder):
            x = step(skips.pop(), x)
        return cast(Tensor, self.head(x)) + taint

    def train(self, mode: bool = True) -> InferenceNetwork:
        """Eval mode is the only one."""
        if mode:
            self._refuse()
        return self

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "an inference network can't be trained, moved, converted, copied or saved; do that with the SeRankDet that "
            "it was made from, then optimize again"
        )

    _apply = state_dict = load_state_dict = __getstate__ = _refuse
