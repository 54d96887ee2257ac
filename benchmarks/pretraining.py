"""Do synthetic scenes help? Four trainings, three of which cost the same.

    python benchmarks/pretraining.py path/to/sirst --output runs/pretraining --epochs 20 --width 8

- `scratch`: real frames alone;
- `longer`: real frames alone, for as many steps as `pretrained` takes altogether;
- `pretrained`: first as many steps on synthetic scenes, then as `scratch` from those weights;
- `mixed`: as many synthetic scenes as real frames in every epoch, as many epochs as `scratch`.

`longer` and `mixed` cost what `pretrained` costs, so that the three can be set against each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from budget import add_budget, describe, keep, recipe_of, stored

from serank import SeRankDet
from serank.datasets import FolderDataset, JoinedSamples, Sample, grey_statistics, pretraining_scenes
from serank.train import fit
from serank.utils.files import replacing

VARIANTS = ("scratch", "longer", "pretrained", "mixed")


def train(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one variant, from its folder if it has been trained."""
    folder = Path(options.output) / variant
    if (found := stored(folder, options)) is not None:
        return found
    real = FolderDataset(options.root, "train", cache=True)
    val_set = FolderDataset(options.root, "val", cache=True)
    mean, std = grey_statistics(real)
    torch.manual_seed(options.seed)
    model = SeRankDet(width=options.width, mean=mean, std=std, working_size=options.working_size)
    recipe = recipe_of(options, options.seed)
    if variant == "longer":
        recipe = replace(recipe, epochs=2 * recipe.epochs, validate_every=2 * recipe.epochs)
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
    keep(folder, options, figures)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set, with train.txt and val.txt")
    parser.add_argument("--output", required=True, help="folder for the runs and table.md")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    add_budget(parser)
    options = parser.parse_args(arguments)
    lines = [
        f"{describe(options)}, seed {options.seed}; `longer` twice as many epochs, `pretrained` as many on synthetic "
        "scenes before, `mixed` with as many synthetic scenes in each.",
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
