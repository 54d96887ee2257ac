"""What 8-bit integers cost and save: PyTorch, the ONNX file and its 8-bit version on a data set, on a CPU.

    python benchmarks/int8.py path/to/sirst --checkpoint sirst --output runs/int8

Ranges are taken from frames of `--calibrate`, figures are those of `--split`: native resolution, standard protocol, the
checkpoint's threshold. Time is that of the network alone, for one frame at a time at the checkpoint's working size.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import onnxruntime
import torch
from torch import Tensor, nn

from serank import SeRankDet
from serank.datasets import FolderDataset
from serank.evaluation import evaluate
from serank.inference.quantize import calibration_inputs
from serank.utils.files import replacing


class OnnxNetwork(nn.Module):
    """An ONNX file in the place of the network that it was made of."""

    def __init__(self, file: Path, model: SeRankDet, threads: int) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.device_and_dtype = nn.Parameter(torch.zeros(()))  # which serank asks a network's parameters for
        self.frame_spec, self.in_channels, self.threshold = model.frame_spec, model.in_channels, model.threshold

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0])


def milliseconds(network: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> str:
    """Median and range over all frames, of the fastest of three runs each."""
    best = []
    with torch.inference_mode():
        network(inputs[0])
        for x in inputs:
            runs = []
            for _ in range(3):
                started = time.perf_counter()
                network(x)
                runs.append(time.perf_counter() - started)
            best.append(1e3 * min(runs))
    return f"{statistics.median(best):.1f} ({min(best):.1f} to {max(best):.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set, with train.txt and val.txt")
    parser.add_argument("--output", required=True, help="folder for the files and table.md")
    parser.add_argument("--checkpoint", default="sirst")
    parser.add_argument("--calibrate", default="train", help="split that ranges are taken from")
    parser.add_argument("--split", default="val", help="split that is measured")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    model = SeRankDet.from_pretrained(options.checkpoint)
    train_set, val_set = (FolderDataset(options.root, split) for split in (options.calibrate, options.split))
    model.export(folder / "float32.onnx")
    model.export(folder / "int8.onnx", int8=True, calibrate=[sample.frame for sample in train_set])
    networks: dict[str, nn.Module] = {"PyTorch, float32": model}
    sizes = {}
    for name, file in (("ONNX Runtime, float32", "float32.onnx"), ("ONNX Runtime, int8", "int8.onnx")):
        networks[name] = OnnxNetwork(folder / file, model, options.threads)
        sizes[name] = f"{(folder / file).stat().st_size / 1e6:.1f}"
    inputs = [torch.from_numpy(x) for x in calibration_inputs(model, [sample.frame for sample in val_set])]
    lines = [
        f"{options.checkpoint} on `{options.split}` of {Path(options.root).name}, calibrated on `{options.calibrate}`; "
        f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, {options.threads} threads on "
        f"{platform.processor() or platform.machine()}",
        "",
        "| | IoU | nIoU | Pd | Fa, 1e-6 | MB | ms a frame |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, network in networks.items():
        f = evaluate(cast(SeRankDet, network), val_set, curves=False).metrics
        figures = f"{f['iou']:.4f} | {f['niou']:.4f} | {f['pd']:.4f} | {f['fa'] * 1e6:.1f}"
        lines.append(f"| {name} | {figures} | {sizes.get(name, '')} | {milliseconds(network, inputs)} |")
        with replacing(folder / "table.md") as path:
            path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
