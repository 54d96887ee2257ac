"""8-bit integers for the convolutions of an ONNX file, to run on CPUs.

Static quantisation with ONNX Runtime's own tool: weights per output channel, maps over the range that they have on
some frames. What loses most and gains least stays in float32: the finest level, whose maps have few channels and the
widest range, the gates of LSFF and the head. So does SeRank's attention.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from serank.frames.reading import find_frames, read_frame, resize

if TYPE_CHECKING:
    from onnx import GraphProto

    from serank.frames.reading import FrameLike
    from serank.serankdet import SeRankDet

__all__ = ["FRAMES", "calibration_inputs", "quantise"]

Float = NDArray[np.float32]

FRAMES = 32
"""Most frames that ranges are taken from. Many more make it worse: their outliers widen the ranges."""
KEPT = ("encoder.0.", "decoder.0.", ".fuse.", "head.")
"""Parts of the names of weights whose convolutions stay in float32."""
LEAST_RESPONSE = 50.0
"""Sum of the probabilities on the frames, in pixels, below which a comparison would say nothing."""
LEAST_AGREEMENT = 0.8
"""Least allowed agreement of the probabilities before and after, sum of minima over sum of maxima."""


def calibration_inputs(
    model: SeRankDet, frames: str | os.PathLike[str] | Sequence[FrameLike], limit: int = FRAMES
) -> list[Float]:
    """Frames as the network gets them.

    Args:
        model: says how frames are prepared.
        frames: a folder, or frames as `SeRankDet.detect` takes them.
        limit: most frames, evenly spread.

    Returns:
        One `(1, C, H, W)` float32 for each, cut to the largest size of a tile.

    Raises:
        FileNotFoundError: a folder or file that isn't there, or a folder without frames.
        serank.errors.FrameError: a frame that can't be read.
        ValueError: no frames, or a single one that isn't in a list.
    """
    if not isinstance(frames, (str, os.PathLike, Sequence)):
        raise ValueError(f"calibrate must be a folder or a list of frames; got one {type(frames).__name__}")
    sources = find_frames([frames]) if isinstance(frames, (str, os.PathLike)) else list(frames)
    if not sources:
        raise ValueError("calibrate holds no frames; give some that the network was trained on, or like them")
    spec = model.frame_spec
    inputs = []
    for i in np.linspace(0, len(sources) - 1, min(limit, len(sources))).round().astype(int):
        frame = read_frame(sources[i])
        scaled = resize(frame, *spec.working_shape(*frame.shape))[: spec.tile, : spec.tile]
        x = torch.from_numpy(scaled.copy())[None, None]
        inputs.append(spec.normalise(x, model.in_channels).numpy())
    return inputs


def quantise(path: Path, inputs: Sequence[Float]) -> None:
    """Replaces an ONNX file that `serank.export` wrote by one with 8-bit convolutions.

    Args:
        path: the file; its metadata stay.
        inputs: as `calibration_inputs` gives them.

    Raises:
        ValueError: the network sees no target in `inputs`, so that its 8-bit form can't be judged.
        RuntimeError: the 8-bit network gives other probabilities on `inputs`.
    """
    import onnx
    import onnxruntime
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, Float]] = iter([{"x": x} for x in inputs])

        def get_next(self) -> dict[str, Float] | None:
            return next(self.feeds, None)

    def probabilities(file: Path) -> list[Float]:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return [torch.from_numpy(session.run(None, {"x": x})[0]).sigmoid().numpy() for x in inputs]

    before = probabilities(path)
    response = sum(float(p.sum()) for p in before)
    if response < LEAST_RESPONSE:
        raise ValueError(
            f"calibrate: the network sees targets of {response:.1f} px altogether in these {len(inputs)} frames, too "
            f"few to judge its 8-bit form by (at least {LEAST_RESPONSE:g}); give frames with targets"
        )
    # in a folder of its own, since the quantiser leaves files beside its input where it is interrupted
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "int8.onnx"
        source = Path(shutil.copyfile(path, Path(folder) / "float32.onnx"))
        quantization.quantize_static(
            source,
            result,
            Reader(),
            # ReLU too: otherwise the range would cover what ReLU is about to remove
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=_kept(onnx.load(path).graph),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=True,  # of weights, without which CPUs that lack VNNI overflow
        )
        onnx.checker.check_model(result, full_check=True)
        agreement = _agreement(before, probabilities(result))
        if agreement < LEAST_AGREEMENT:
            raise RuntimeError(
                f"8-bit integers change the result on the frames of calibrate: the probabilities agree by "
                f"{agreement:.4f}, below {LEAST_AGREEMENT}. Calibrate on other frames, or leave int8 out"
            )
        shutil.copyfile(result, path)


def _kept(graph: GraphProto) -> list[str]:
    """Names of the convolutions that stay in float32, and of the ReLUs behind them."""
    convolutions = [n for n in graph.node if n.op_type == "Conv" and any(part in n.input[1] for part in KEPT)]
    outputs = {n.output[0] for n in convolutions}
    return [n.name for n in (*convolutions, *(n for n in graph.node if n.op_type == "Relu" and n.input[0] in outputs))]


def _agreement(before: Sequence[Float], after: Sequence[Float]) -> float:
    """Sum of minima over sum of maxima, in [0, 1]."""
    pairs = list(zip(before, after, strict=True))
    least, most = (sum(float(choose(a, b).sum()) for a, b in pairs) for choose in (np.minimum, np.maximum))
    return least / most
