"""`serank export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from serank.cli.options import add_model
from serank.serankdet import SeRankDet
from serank.utils.checks import choose_device

DETAILS = (
    "The file takes frames of any size, holds in its metadata how they are prepared, and is compared with the "
    "checkpoint before it is kept. ONNX needs the extra serank[export]."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="of the file")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write, NAME.onnx or NAME.pt2")
    parser.add_argument("--opset", type=int, metavar="N", help="of the ONNX file (default: what PyTorch recommends)")


def run(options: argparse.Namespace) -> int:
    model = SeRankDet.from_pretrained(options.checkpoint, device=choose_device(options.device))
    # of a folder its own name: where it lies on this machine is nobody's business
    name = Path(options.checkpoint).resolve().name if Path(options.checkpoint).is_dir() else options.checkpoint
    model.export(options.output, format=options.format, opset=options.opset, name=name)
    size = Path(options.output).stat().st_size / 1e6
    print(f"{options.output}: {size:.1f} MB, gives the checkpoint's logits")
    return 0
