"""SeRankDet: the network's graph, detection on frames, and loading and saving, as one class.

Dai et al., "Pick of the Bunch: Detecting Infrared Small Targets Beyond Hit-Miss Trade-Offs via Selective
Rank-Aware Attention", IEEE TGRS 2024.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from serank.checkpoints.config_file import check_constructor
from serank.checkpoints.pretrained import Pretrained
from serank.checkpoints.released import IMAGENET_MEAN, IMAGENET_STD, load_released
from serank.frames.preparation import FrameSpec
from serank.inference.detector import Detector
from serank.inference.scores import Calibration, check_calibration
from serank.inference.tta import check_tta
from serank.layers.ddc import BRANCHES
from serank.models.config import SeRankConfig
from serank.models.network import SeRankNet
from serank.utils.checks import check_threshold

if TYPE_CHECKING:
    from serank.inference.fused_network import InferenceNetwork

Network = TypeVar("Network", bound="SeRankDet")


class SeRankDet(SeRankNet, Detector, Pretrained):
    """Selective rank-aware detection network for infrared small targets.

    `SeRankDet.from_pretrained("general")` gives a trained one, `detect` runs it on frames. Building one touches neither
    network nor disk.

    The defaults are the paper's graph, but for the stem: the first DDC's vanilla and dilated branches go from the
    frame's channels straight to `width`, where the paper's in -> in convolutions would squeeze a one-channel frame
    through a single channel. `stem_channels=in_channels` gives the paper's stem.

    The arguments are the fields of `serank.models.config.SeRankConfig`, which says what each one means and which values
    it takes: `in_channels` to `bias` make the graph, `mean` to `overlap` and `repair` prepare frames for it,
    `threshold` is the probability above which `detect` takes a pixel as target, `tta` how many rotations and flips it
    averages over, and `score_calibration` what gives the scores their meaning.

    Attributes:
        config: the arguments, JSON-able; `SeRankDet(**config)` builds the same network.
        in_channels: channels of the input.
        frame_spec: how frames are prepared, `serank.frames.FrameSpec`; `reconfigured` gives a copy with another one.
        threshold: probability above which `detect` takes a pixel as target, unless it is told another.
        tta: rotations and flips of a frame over which `detect` averages, unless it is told another.
        score_calibration: of the scores of detections, see `serank.inference.scores.calibrated_scores`.
        checkpointing: whether training recomputes each block in the backward pass, see `SeRankNet`.

    Raises:
        ValueError: an argument is of a wrong type or out of its range; the message names it.
    """

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
        tta: int = 1,
        score_calibration: Sequence[float] | None = None,
        repair: bool = True,
    ) -> None:
        config = SeRankConfig(
            in_channels=in_channels,
            width=width,
            stem_channels=stem_channels,
            rank_offset=rank_offset,
            encoder=encoder,
            branches=branches,
            merge_kernel=merge_kernel,
            theta=theta,
            attention=attention,
            positional_encoding=positional_encoding,
            table_size=table_size,
            fusion=fusion,
            per_channel_fusion=per_channel_fusion,
            bias=bias,
            mean=mean,
            std=std,
            working_size=working_size,
            scale_range=scale_range,
            tile=tile,
            overlap=overlap,
            threshold=threshold,
            tta=tta,
            score_calibration=score_calibration,
            repair=repair,
        )
        frame_spec = FrameSpec(
            mean=config.mean,
            std=config.std,
            working_size=config.working_size,
            scale_range=config.scale_range,
            tile=config.tile,
            overlap=config.overlap,
            repair=config.repair,
        )
        super().__init__(config)
        self.config: dict[str, Any] = config.to_dict()
        self.frame_spec = frame_spec
        self.threshold, self.tta, self.score_calibration = config.threshold, config.tta, config.score_calibration

    @property
    def threshold(self) -> float:
        """The stored threshold, in [0, 1]; set it, and `save_pretrained` stores it. So it is for the two below."""
        return float(self.config["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.config["threshold"] = check_threshold(value)

    @property
    def tta(self) -> int:
        """1, 4 or 8."""
        return int(self.config["tta"])

    @tta.setter
    def tta(self, value: int) -> None:
        self.config["tta"] = check_tta(value)

    @property
    def score_calibration(self) -> Calibration | None:
        """Two coefficients, or `None` where a score is a peak probability."""
        return check_calibration(self.config["score_calibration"])

    @score_calibration.setter
    def score_calibration(self, value: Sequence[float] | None) -> None:
        found = check_calibration(value)
        self.config["score_calibration"] = None if found is None else list(found)

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

    def reconfigured(self: Network, **changes: Any) -> Network:
        """A copy, of the same class, with some constructor arguments changed and the same weights.

        Every argument that leaves the weights' shapes alone can be changed, such as `working_size` or `threshold`,
        and `in_channels`. In that case the first convolutions' weights, summed over the old input channels, are
        spread evenly over the new ones, so that on grey frames, where all channels are equal, the copy gives what
        this network gives. For that `mean` and `std` must be the same for all channels.

        Args:
            changes: constructor arguments.

        Returns:
            The copy, in the same mode and on the same device.

        Raises:
            ValueError: an unknown argument, one that changes other weights' shapes, `in_channels` for a network
                whose channels have statistics of their own, or a subclass whose constructor doesn't take its config.
        """
        if unknown := sorted(set(changes) - set(self.config)):
            raise ValueError(f"unknown arguments {', '.join(unknown)}; SeRankDet takes {', '.join(self.config)}")
        channels = changes.get("in_channels", self.in_channels)
        if channels != self.in_channels:
            changes = {name: _one_number(name, self.config[name]) for name in ("mean", "std")} | changes
        check_constructor(type(self), self.config)
        copy = type(self)(**(self.config | changes)).to(self.head.weight.dtype)  # whose rounding loading would take
        state, fitted = self.state_dict(), {}
        refusal = f"{', '.join(changes)}: the weights don't fit the change ({{}}); train a new network"
        for name, new in copy.state_dict().items():
            old = state.pop(name, None)
            if old is not None and old.shape != new.shape and channels != self.in_channels:
                spread = (old.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1)
                old = spread if old.shape[1] == self.in_channels else old
            if old is None or old.shape != new.shape:
                raise ValueError(refusal.format(name))
            fitted[name] = old
        if state:
            raise ValueError(refusal.format(next(iter(state))))
        copy.load_state_dict(fitted)
        copy.checkpointing = self.checkpointing
        for name, parameter in copy.named_parameters():
            parameter.requires_grad_(self.get_parameter(name).requires_grad)
        return copy.to(self.head.weight.device).train(self.training)

    def optimize(
        self, dtype: torch.dtype = torch.float32, *, compile: bool = False, graphs: bool = True
    ) -> InferenceNetwork:
        """A copy for inference alone, faster and in less memory, with the same logits to rounding.

        It has `forward` and `detect`, and nothing to train, move or save; later changes of this network's weights
        don't reach it. See `serank.inference.InferenceNetwork`.

        Args:
            dtype: float32, bfloat16 or float16. In bfloat16 a pixel's probability moved by up to 0.32 on real frames,
                in float16 by 0.09.
            compile: let `torch.compile` fuse further. That takes minutes at the first frame, and again for other sizes.
            graphs: on CUDA, record graphs of the shapes that it meets and replay them.

        Raises:
            ValueError: another `dtype`, or a forward pass or hooks of the network's own.
        """
        from serank.inference.fused_network import InferenceNetwork

        return InferenceNetwork(
            self,
            dtype,
            frame_spec=self.frame_spec,
            threshold=self.threshold,
            tta=self.tta,
            score_calibration=self.score_calibration,
            compile=compile,
            graphs=graphs,
        )

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "onnx",
        opset: int | None = None,
        name: str | None = None,
    ) -> None:
        """Writes the network for another runtime, and beside it the numbers that prepare its frames.

        What was written is run and compared with the network, and kept only if it gives the same logits.

        Args:
            path: file to write, whole or not at all; `.onnx` or `.pt2`, as `format` says.
            format: `"onnx"`, or `"torch"` for a program of `torch.export`, which runs on the network's device.
            opset: of the ONNX file, 18 to 23; `None` takes the one that PyTorch recommends.
            name: of the network, kept in the file's metadata.

        Raises:
            ImportError: ONNX's packages are missing; names the extra, `serank[export]`.
            FileNotFoundError: the folder of `path` doesn't exist.
            ValueError: an argument is out of its range, or some don't go together.
            RuntimeError: the file gives other logits than the network, or PyTorch is older than 2.7.
        """
        from serank.inference.onnx_export import export, preprocessing

        export(self, path, preprocessing(self, name), format=format, opset=opset)


def _one_number(name: str, value: float | Sequence[float]) -> float:
    """`value`, of which all channels must have the same."""
    values = {value} if isinstance(value, (int, float)) else set(value)
    if len(values) > 1:
        raise ValueError(f"in_channels can't change for a network with {name}={value}, different for each channel")
    return float(values.pop())
