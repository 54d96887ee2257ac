"""Quantises an ONNX file of `serank export` to 8-bit integers, for CPUs.

    pip install numpy pillow scipy onnx onnxruntime
    python quantize_onnx.py general.onnx general_int8.onnx my_frames/*.png

Static quantisation with ONNX Runtime: weights per output channel, maps over the range that they have on the frames
given. Take frames that the network was trained on, or like those to come, some with targets, and about 32 of them:
outliers of many more widen the ranges. The finest level, whose maps have few channels and the widest range, the gates
of LSFF, the head and SeRank's attention stay in float32. Prints how far the probabilities on these frames agree before
and after; measure the detections on others. Needs `detect_onnx.py` beside it.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from detect_onnx import Float, Network, read_frame, resize
from onnxruntime import quantization
from scipy.special import expit

FLOAT32 = ("encoder.0.", "decoder.0.", ".fuse.", "head.")
"""Parts of the names of weights whose convolutions stay in float32."""


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Gives the quantiser one input at a time."""

    def __init__(self, inputs: Sequence[Float]) -> None:
        self.feeds: Iterator[dict[str, Float]] = iter([{"x": x} for x in inputs])

    def get_next(self) -> dict[str, Float] | None:
        return next(self.feeds, None)


def network_input(network: Network, path: str) -> Float:
    """A frame as the network gets it, `(1, C, H, W)`, cut to the largest size of a tile."""
    frame = read_frame(path, network.spec["grey"])
    height, width = network.working_shape(*frame.shape)
    tile = network.spec["tile"]
    return network.normalise(resize(frame, height, width)[:tile, :tile])


def float32_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the convolutions that stay in float32, and of the ReLUs behind them."""
    convolutions = [n for n in graph.node if n.op_type == "Conv" and any(part in n.input[1] for part in FLOAT32)]
    outputs = {n.output[0] for n in convolutions}
    return [n.name for n in (*convolutions, *(n for n in graph.node if n.op_type == "Relu" and n.input[0] in outputs))]


def quantise(source: Path, target: Path, inputs: Sequence[Float]) -> None:
    """Writes `target`, with the metadata of `source`."""
    # in a folder of its own, since the quantiser leaves files beside its input where it is interrupted
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "float32.onnx"
        copy.write_bytes(source.read_bytes())
        result = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            copy,
            result,
            Reader(inputs),
            # ReLU too: otherwise the range would cover what ReLU is about to remove
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=float32_nodes(onnx.load(source).graph),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=True,  # of weights, without which CPUs that lack VNNI overflow
        )
        onnx.checker.check_model(result, full_check=True)
        target.write_bytes(result.read_bytes())


def probabilities(file: Path, inputs: Sequence[Float]) -> list[Float]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [expit(session.run(["logits"], {"x": x})[0]) for x in inputs]


def agreement(before: Sequence[Float], after: Sequence[Float]) -> float:
    """Sum of minima over sum of maxima, in [0, 1]; a soft IoU of both."""
    pairs = list(zip(before, after, strict=True))
    least, most = (sum(float(choose(a, b).sum()) for a, b in pairs) for choose in (np.minimum, np.maximum))
    return least / most


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="file of `serank export --format onnx`")
    parser.add_argument("output", help="file to write")
    parser.add_argument("frames", nargs="+", help="PNG, TIFF, BMP or JPEG files to calibrate on")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # the quantiser's advice to pre-process, which the exporter has done
    network = Network(options.network)
    inputs = [network_input(network, path) for path in options.frames]
    source, target = Path(options.network), Path(options.output)
    quantise(source, target, inputs)
    before, after = (probabilities(file, inputs) for file in (source, target))
    response = sum(float(p.sum()) for p in before)
    sizes = " -> ".join(f"{file.stat().st_size / 1e6:.1f}" for file in (source, target))
    print(
        f"{target}: {sizes} MB; probabilities on {len(inputs)} frames agree by {agreement(before, after):.3f} "
        f"(1 is equal), of targets of {response:.0f} px altogether"
    )
    if response < 50:
        print("the network sees hardly any target in these frames, so that this says little; give some with targets")


if __name__ == "__main__":
    main()
