"""Size and speed of the bundled checkpoints, the last columns of README's table.

    python benchmarks/checkpoints.py --threads 2

Frames are synthetic and in memory, and each is detected on by itself, as `model.optimize(dtype).detect(frame)`:
scaling, tiles, the network and the search for components count, reading files does not. Precisions run in turn;
printed are the median of the repeats and their range.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from measure import DTYPES, in_turn, machine
from numpy.typing import NDArray

from serank import SeRankDet
from serank.checkpoints.folder import bundled
from serank.inference import Detector
from serank.synthetic import SyntheticScenes


def detection(detector: Detector, frames: Sequence[NDArray[np.float32]]) -> Callable[[], object]:
    """A run over all frames, one after the other."""
    return lambda: [detector.detect(frame) for frame in frames]


def rates(model: SeRankDet, options: argparse.Namespace) -> list[str]:
    """Frames a second in each of the precisions, with the range of the repeats."""
    scenes = SyntheticScenes(options.frames, options.side, options.side, targets=(0, 2), seed=0)
    frames = [scene.frame for scene in scenes]
    runs = [detection(model.optimize(DTYPES[name]), frames) for name in options.dtypes]
    cells = []
    for times in in_turn(runs, options.repeats, "cpu"):
        low, high = (options.frames / t for t in (max(times), min(times)))
        cells.append(f"{options.frames / statistics.median(times):.1f} ({low:.1f} to {high:.1f})")
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="+", default=sorted(bundled()), metavar="NAME", help="names or folders")
    parser.add_argument("--side", type=int, default=512, help="of the frames, px")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32", "bfloat16"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    about = machine("cpu")
    print(f"{about['processor']}, {about['threads']}, PyTorch {about['torch']}; frames of {options.side} px a side.\n")
    print(f"| checkpoint | MB | parameters | {' | '.join(f'{name}, frames/s' for name in options.dtypes)} |")
    print(f"|{'---|' * (3 + len(options.dtypes))}")
    for name in options.checkpoints:
        model = SeRankDet.from_pretrained(name)
        size = (bundled().get(name, Path(name)) / "model.safetensors").stat().st_size / 1e6
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        print(f"| `{name}` | {size:.1f} | {parameters:.2f} M | {' | '.join(rates(model, options))} |", flush=True)


if __name__ == "__main__":
    main()
