"""What averaging over a frame's eight orientations is worth, and what brings it into one pass.

    python benchmarks/symmetry.py path/to/sirst --checkpoint general --output runs/symmetry --epochs 8

All rows start from the same checkpoint and take the same crops by the preset `finetune`; the first is the checkpoint as
it is. Each is measured with one, four and eight passes, at threshold 0.5. Rows that `--output` has already are not
trained again, so that a long run can be cut into several.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from budget import RESULT, keep, stored
from torch import Tensor

from serank import SeRankDet
from serank.datasets import FolderDataset
from serank.evaluation import evaluate
from serank.inference.maps import save_probability
from serank.layers import SeRankAttention
from serank.train import fit, preset
from serank.utils.files import replacing

PASSES = (1, 4, 8)
NAMES = ("root", "checkpoint", "epochs", "batch_size", "crop", "seed")
"""Options that all rows of a table share."""


class BothAxes(SeRankAttention):
    """The attention matrix is the mean of that of the map and that of its transpose, so that both axes count alike."""

    def attention(self, x: Tensor) -> Tensor:
        return (super().attention(x) + super().attention(x.transpose(2, 3))) / 2


def without_codes(model: SeRankDet) -> SeRankDet:
    return model.reconfigured(positional_encoding=False)


def both_axes(model: SeRankDet) -> SeRankDet:
    for module in model.modules():
        if type(module) is SeRankAttention:
            module.__class__ = BothAxes
    return model


@dataclass(frozen=True)
class Row:
    """A training: its name in the table, what changes in the recipe and in the network, and whose maps it learns."""

    label: str
    recipe: dict[str, Any]
    network: Callable[[SeRankDet], SeRankDet] = lambda model: model
    teacher: str | None = None


ROWS = {
    "start": Row("the checkpoint as it is", {}),
    "masks": Row("masks alone", {}),
    "soft": Row("and soft targets, the row above over eight passes", {"soft_weight": 50.0}, teacher="masks"),
    "consistency": Row("and consistency of two orientations", {"consistency_weight": 50.0}),
    "no-codes": Row("without positional codes", {}, without_codes),
    "both-axes": Row("attention averaged over both axes", {}, both_axes),
}


def train_row(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Metrics by number of passes, from its folder if it has been trained."""
    folder, row = Path(options.output) / name, ROWS[name]
    if (found := stored(folder, options, NAMES)) is not None:
        return found
    model = row.network(SeRankDet.from_pretrained(options.checkpoint).reconfigured(threshold=0.5))
    if name != "start":
        maps = None if row.teacher is None else soft_targets(row.teacher, options)
        train_set = FolderDataset(options.root, "train", cache=True, soft=maps)
        recipe = preset("finetune").recipe
        recipe = replace(recipe, epochs=options.epochs, batch_size=options.batch_size, seed=options.seed, **row.recipe)
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, crop=options.crop))
        fit(model, train_set, None, recipe=recipe, output=folder, resume=True)
    folder.mkdir(parents=True, exist_ok=True)
    val_set = FolderDataset(options.root, "val")
    network = model.optimize()  # copies attention of another kind as it is
    metrics = {str(n): evaluate(network, val_set, curves=False, tta=n).metrics for n in PASSES}
    keep(folder, options, metrics, NAMES)
    return metrics


def soft_targets(name: str, options: argparse.Namespace) -> Path:
    """Folder of the mean maps of a trained row over eight passes, of the training frames; written where missing."""
    maps = Path(options.output) / name / "maps"
    if not maps.exists():
        train_row(name, options)
        model = SeRankDet.from_pretrained(Path(options.output) / name / "best").optimize()
        with tempfile.TemporaryDirectory(dir=maps.parent) as written:
            for sample in FolderDataset(options.root, "train"):
                save_probability(model.detect(sample.frame, tta=8).probability, Path(written) / f"{sample.name}.png")
            shutil.copytree(written, maps)
    return maps


def table(results: dict[str, dict[str, dict[str, float]]], options: argparse.Namespace) -> str:
    """The metrics as Markdown."""
    start = f"`{options.checkpoint}`, {options.epochs} epochs, seed {options.seed}"
    head = " | ".join(f"{'one pass' if n == 1 else f'{n} passes'}: IoU / nIoU / Pd / Fa, 1e-6" for n in PASSES)
    lines = [f"{start}, `val` of {Path(options.root).name}", "", f"| | {head} |", "|---" * (1 + len(PASSES)) + "|"]
    for name, metrics in results.items():
        cells = [
            f"{m['iou']:.4f} / {m['niou']:.4f} / {m['pd']:.4f} / {1e6 * m['fa']:.1f}"
            for m in (metrics[str(n)] for n in PASSES)
        ]
        lines.append(f"| {ROWS[name].label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of a data set with train.txt and val.txt")
    parser.add_argument("--checkpoint", default="general")
    parser.add_argument("--output", required=True, help="folder for runs, their metrics and table.md")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in options.rows:
        train_row(name, options)
    done = [name for name in ROWS if (Path(options.output) / name / RESULT).exists()]
    text = table({name: train_row(name, options) for name in done}, options)
    with replacing(Path(options.output) / "table.md") as path:
        path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
