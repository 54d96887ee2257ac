"""Do synthetic scenes help? Three trainings with the same number of steps on real frames, or the same in all.

    python benchmarks/pretraining.py path/to/sirst --output runs/pretraining --epochs 20 --width 8

- `scratch`: real frames alone;
- `longer`: real frames alone, for as many steps as `pretrained` takes altogether;
- `pretrained`: first as many steps on synthetic scenes, then as `scratch` from those weights;
- `mixed`: as many synthetic scenes as real frames in every epoch, as many epochs as `scratch`.

`longer` and `mixed` cost what `pretrained` costs, so that the three can be set against each other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from serank import SeRankDet
from serank.augment import Augmentation
from serank.datasets import FolderDataset, JoinedSamples, Sample, grey_statistics, pretraining_scenes
from serank.files import replacing
from serank.train import Recipe, fit

VARIANTS = ("scratch", "longer", "pretrained", "mixed")


def train(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one variant, from its folder if it has been trained."""
    folder = Path(options.output) / variant
    if (folder / "result.json").exists():
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return found
    real = FolderDataset(options.root, "train", cache=True)
    val_set = FolderDataset(options.root, "val", cache=True)
    mean, std = grey_statistics(real)
    torch.manual_seed(options.seed)
    model = SeRankDet(width=options.width, mean=mean, std=std, working_size=options.working_size)
    recipe = Recipe(
        epochs=options.epochs * (2 if variant == "longer" else 1),
        batch_size=options.batch_size,
        learning_rate=options.lr,
        average=options.average,
        precision=options.precision,
        validate_every=10_000,
        seed=options.seed,
        augmentation=Augmentation(crop=options.crop, scale=(0.6, 1.6)),
    )
    train_set: Sequence[Sample] = real
    if variant in ("pretrained", "mixed"):
        # made once: a scene takes longer to make than to train on
        synthetic = list(pretraining_scenes(len(real), size=options.working_size, seed=options.seed))
        if variant == "mixed":
            train_set = JoinedSamples([real, synthetic])
        else:
            before = replace(recipe, seed=recipe.seed + 1)
            fit(model, synthetic, recipe=before, output=folder / "synthetic", resume=True, device=options.device)
    history = fit(model, train_set, val_set, recipe=recipe, output=folder, resume=True, device=options.device)
    row = history.rows[-1]
    figures = {key: row[key] for key in ("iou", "niou", "pd", "fa", "false_components", "loss")}
    with replacing(folder / "result.json") as path:
        path.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set, with train.txt and val.txt")
    parser.add_argument("--output", required=True, help="folder for the runs and table.md")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--working-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--average", type=float, default=0.99)
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    lines = [
        f"Width {options.width}, {options.epochs} epochs on real frames (`longer`: twice as many), crops of "
        f"{options.crop} px, batch {options.batch_size}, learning rate {options.lr:g}, seed {options.seed}; `val`, "
        "native resolution, standard protocol.",
        "",
        "| | IoU | nIoU | Pd | Fa, 1e-6 |",
        "|---|---|---|---|---|",
    ]
    for variant in options.variants:
        f = train(variant, options)
        lines.append(f"| {variant} | {f['iou']:.4f} | {f['niou']:.4f} | {f['pd']:.4f} | {f['fa'] * 1e6:.1f} |")
        with replacing(Path(options.output) / "table.md") as path:
            path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
