"""What the drivers of trainings share: options that set the budget, and results that are kept with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measure import processor

from serank.train import Augmentation, Recipe
from serank.utils.files import replacing

RESULT = "result.json"
NAMES = (
    "root",
    "epochs",
    "width",
    "crop",
    "target_share",
    "working_size",
    "batch_size",
    "lr",
    "pixel_weight",
    "ema_decay",
    "precision",
)
"""Options that all rows of a table share."""


def add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--target-share", type=float, default=0.9, help="share of crops that hold a target")
    parser.add_argument("--working-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pixel-weight", type=float, default=0.0, help="of a cross-entropy beside soft IoU")
    parser.add_argument("--ema-decay", type=float, default=0.99)
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--device", default="cpu")


def recipe_of(options: argparse.Namespace, seed: int) -> Recipe:
    return Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        pixel_weight=options.pixel_weight,
        ema_decay=options.ema_decay,
        precision=options.precision,
        validate_every=options.epochs,
        seed=seed,
        augmentation=Augmentation(crop=options.crop, scale=(0.6, 1.6), target_share=options.target_share),
    )


def describe(options: argparse.Namespace) -> str:
    """The budget in words, for the head of a table."""
    if options.device == "cpu":
        machine = f"threads: {torch.get_num_threads()}, {processor()}"
    else:
        machine = torch.cuda.get_device_name(options.device)
    return (
        f"Width {options.width}, {options.epochs} epochs on `train` of {Path(options.root).name}, crops of "
        f"{options.crop} px of which at least {options.target_share:.0%} hold a target, batch {options.batch_size}, "
        f"working size {options.working_size}, learning rate {options.lr:g}, pixel loss {options.pixel_weight:g}, "
        f"averaged weights ({options.ema_decay:g}) of the last epoch, {options.precision}; measured on `val`, native "
        f"resolution, standard protocol, threshold 0.5; {machine}"
    )


def _budget(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def keep(folder: Path, options: argparse.Namespace, metrics: dict[str, Any], names: Sequence[str] = NAMES) -> None:
    """Writes metrics with the budget that they took, the options of those names."""
    with replacing(folder / RESULT) as path:
        path.write_text(json.dumps({"budget": _budget(options, names), "metrics": metrics}, indent=1) + "\n")


def stored(folder: Path, options: argparse.Namespace, names: Sequence[str] = NAMES) -> dict[str, Any] | None:
    """Figures that were kept before; another budget ends the program."""
    if not (folder / RESULT).exists():
        return None
    found: dict[str, Any] = json.loads((folder / RESULT).read_text())
    if found["budget"] != (budget := _budget(options, names)):
        raise SystemExit(f"{folder} was trained with {found['budget']}, not {budget}; use another --output")
    metrics: dict[str, Any] = found["metrics"]
    return metrics
