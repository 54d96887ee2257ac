"""How busy the trainer is: the share of its steps' time in which it does not wait for crops.

    python benchmarks/busy.py path/to/sirst

Trains for a few epochs as `serank train` does, with decoded frames kept in memory or decoded anew for every crop, and
with or without loader workers, and prints what `fit` writes into its log. The first epoch, in which PyTorch warms up,
is left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
from measure import DTYPES, machine

from serank import SeRankDet
from serank.datasets import FolderDataset, grey_statistics
from serank.train import Augmentation, Recipe, fit


def measure(width: int, cached: bool, workers: int, options: argparse.Namespace) -> tuple[float, float]:
    """Median over the epochs of seconds a step, and of the share of waiting."""
    samples = FolderDataset(options.root, options.split, cache=cached)
    mean, std = grey_statistics(samples)
    torch.manual_seed(0)
    model = SeRankDet(width=width, mean=mean, std=std, working_size=options.working_size)
    recipe = Recipe(
        epochs=options.epochs + 1,
        batch_size=options.batch,
        precision=options.precision,
        augmentation=Augmentation(crop=options.crop),
    )
    rows = fit(model, samples, recipe=recipe, device=options.device, workers=workers, progress=False).rows[1:]
    steps = len(samples) // options.batch
    return statistics.median(r["seconds"] / steps for r in rows), statistics.median(r["waiting"] for r in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--split", default="train")
    parser.add_argument("--widths", nargs="+", type=int, default=[8])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=3, help="besides the first")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--working-size", type=int, default=320)
    parser.add_argument("--precision", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    about = machine(options.device)
    print(
        f"{options.split} of {options.root}, crops of {options.crop} px, batch {options.batch}, {options.precision}; "
        f"{about['processor']}, {about['threads']}, PyTorch {about['torch']}.\n"
    )
    print("| width | frames | workers | s a step | busy |\n|---|---|---|---|---|")
    for width in options.widths:
        for cached in (True, False):
            for workers in options.workers:
                taken, waiting = measure(width, cached, workers, options)
                kept = "in memory" if cached else "decoded anew"
                print(f"| {width} | {kept} | {workers} | {taken:.3f} | {1 - waiting:.1%} |", flush=True)


if __name__ == "__main__":
    main()
