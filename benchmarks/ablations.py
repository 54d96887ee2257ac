"""The parts that the paper's tables III to V take out, as constructor arguments: trains each row, writes the table.

    python benchmarks/ablations.py path/to/sirst --output runs/ablations --epochs 20 --width 8

Every row is trained with the same recipe, crops and first random state. Rows that `--output` has already are not
trained again, and a stopped one goes on, so that a long run can be cut into several.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from budget import add_budget, describe, keep, recipe_of, stored

from serank import SeRankDet
from serank.datasets import FolderDataset, grey_statistics
from serank.train import fit
from serank.utils.files import replacing


@dataclass(frozen=True)
class Row:
    """One network of the tables."""

    group: str
    label: str
    arguments: dict[str, Any] = field(default_factory=dict)


PLAIN: dict[str, Any] = {"encoder": "plain", "attention": "none", "fusion": "concat"}
ROWS = {
    "full": Row("parts", "DDC, SeRank, LSFF (full)"),
    "baseline": Row("parts", "none of them (plain U-Net)", PLAIN),
    "ddc": Row("parts", "DDC alone", PLAIN | {"encoder": "ddc"}),
    "serank": Row("parts", "SeRank alone", PLAIN | {"attention": "serank"}),
    "lsff": Row("parts", "LSFF alone", PLAIN | {"fusion": "select"}),
    "no-ddc": Row("parts", "without DDC", {"encoder": "plain"}),
    "no-serank": Row("parts", "without SeRank", {"attention": "none"}),
    "no-lsff": Row("parts", "without LSFF", {"fusion": "concat"}),
    "vanilla": Row("branches of DDC", "vanilla", {"branches": ["vanilla"]}),
    "vanilla-difference": Row("branches of DDC", "vanilla, difference", {"branches": ["vanilla", "difference"]}),
    "vanilla-dilated": Row("branches of DDC", "vanilla, dilated", {"branches": ["vanilla", "dilated"]}),
    "no-encoding": Row("SeRank", "without positional encoding", {"positional_encoding": False}),
    "after": Row("SeRank", "top-k after the attention map", {"attention": "after"}),
    **{f"offset-{o}": Row("SeRank", f"offset o = {o}", {"rank_offset": o}) for o in (1, 2, 4, 5)},
}
"""Rows by name; the full network stands for all three branches and o = 3 too."""


def train_row(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Metrics of one row, from its folder if it has been trained."""
    folder = Path(options.output) / f"{name}-{seed}"
    if (found := stored(folder, options)) is not None:
        return found
    train_set = FolderDataset(options.root, "train", cache=True)
    val_set = FolderDataset(options.root, "val", cache=True)
    mean, std = grey_statistics(train_set)
    torch.manual_seed(seed)
    model = SeRankDet(
        width=options.width, mean=mean, std=std, working_size=options.working_size, **ROWS[name].arguments
    )
    recipe = recipe_of(options, seed)
    history = fit(model, train_set, val_set, recipe=recipe, output=folder, resume=True, device=options.device)
    row = history.rows[-1]
    metrics = {
        **{key: row[key] for key in ("iou", "niou", "pd", "fa", "false_components", "loss")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": sum(r["seconds"] for r in history.rows),
    }
    keep(folder, options, metrics)
    return metrics


def table(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> str:
    """The metrics as Markdown, the budget named."""
    names = list(results)
    lines = [
        f"{describe(options)}, seeds {', '.join(map(str, options.seeds))}.",
        "",
        "| | | parameters | IoU | nIoU | Pd | Fa, 1e-6 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        rows = results[name]

        def show(key: str, digits: int, scale: float = 1.0, rows: list[dict[str, Any]] = rows) -> str:
            values = [row[key] * scale for row in rows]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.{digits}f}{spread}"

        cells = [ROWS[name].group, ROWS[name].label, f"{rows[0]['parameters'] / 1e6:.2f} M"]
        cells += [show("iou", 4), show("niou", 4), show("pd", 4), show("fa", 1, 1e6)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set, with train.txt and val.txt")
    parser.add_argument("--output", required=True, help="folder for runs, results.json and table.md")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    add_budget(parser)
    options = parser.parse_args(arguments)
    for name in options.rows:
        for seed in options.seeds:
            train_row(name, seed, options)
        # after each row, so that a stopped run leaves what it has; with the rows of earlier runs
        found = {n: [stored(Path(options.output) / f"{n}-{seed}", options) for seed in options.seeds] for n in ROWS}
        results = {n: [row for row in rows if row is not None] for n, rows in found.items() if any(rows)}
        text = table(results, options)
        for file, content in (("results.json", json.dumps(results, indent=1) + "\n"), ("table.md", text)):
            with replacing(Path(options.output) / file) as path:
                path.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
