"""`serank train`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from serank.cli.options import add_frame_options, add_preparation, frame_options, preparation, print_metrics
from serank.datasets.folder import FolderDataset
from serank.datasets.sample import JoinedSamples, grey_statistics
from serank.evaluation.runner import evaluate
from serank.frames.options import FrameOptions
from serank.losses import LOSSES
from serank.serankdet import SeRankDet
from serank.train.folder import make_run_folder
from serank.train.history import selection_score
from serank.train.recipe import PRESETS, Precision, Preset, Recipe, preset
from serank.train.sensor import SENSOR
from serank.train.trainer import fit
from serank.utils.allocation import keep_freed_memory
from serank.utils.distributed import from_main, is_main, started

CROPS = ("crop", "unscaled", "target_share", "paste")
"""Attributes of `Augmentation` with options of their names, beside `scale` and those of sensors."""
EFFECTS = {
    "stripes": "fixed-pattern stripes",
    "hot_region": "a hot region",
    "counts": "values mapped as raw counts are",
}
"""What options of sensor effects are called, beside their names."""
RECIPE = (
    "epochs",
    "batch_size",
    "accumulation_steps",
    "lr",
    "weight_decay",
    "warmup",
    "max_grad_norm",
    "loss",
    "pixel_weight",
    "distil_weight",
    "soft_weight",
    "consistency_weight",
    "ema_decay",
    "precision",
    "validate_every",
)
"""Options that are attributes of `Recipe`; `None` leaves the recipe's own value."""

DEFAULTS = "Defaults are those of --preset, if one is given."
DETAILS = (
    "Keeps the weights with the best mean of IoU and nIoU on the validation split. A stopped run goes on with "
    "--resume. Several processes: torchrun --nproc-per-node=N -m serank train ..."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "roots", nargs="+", metavar="ROOT", help="folders of data sets with images/ and masks/, taken together"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for checkpoints, log and curves")
    parser.add_argument("--train-split", default="train", metavar="NAME", help="list, by name or path, or sub-folder")
    parser.add_argument("--val-split", default="val", metavar="NAME", help='list or sub-folder; "" for none')
    parser.add_argument("--resume", action="store_true", help="continue the run in --output; repeat its options")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="of the weights, for the model card: an identifier of the Hub's list, such as apache-2.0",
    )
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="NAME", help="what ROOT holds, for the model card; repeatable"
    )
    _add_network(parser)
    _add_recipe(parser)
    add_frame_options(parser)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="where to train: auto (CUDA where there is one), cpu, cuda")
    machine.add_argument("--workers", type=int, default=0, metavar="N", help="processes that prepare crops")
    machine.add_argument("--compile", action="store_true", help="run the network through torch.compile")
    machine.add_argument(
        "--checkpointing", action="store_true", help="activation checkpointing: less memory, more time"
    )
    machine.add_argument("--save-every", type=int, metavar="N", help="steps between checkpoints within an epoch")
    machine.add_argument("--tensorboard", action="store_true", help="write event files for TensorBoard too")


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network", DEFAULTS)
    group.add_argument("--init", metavar="NAME", help="checkpoint to start from (default: random weights)")
    group.add_argument("--width", type=int, help="channels of the finest level (default: 8)")
    group.add_argument("--in-channels", type=int, metavar="C", help="channels of the input (default: 1)")
    add_preparation(group, "the checkpoint's, or 320", "the checkpoint's, or 0.5 2.5")
    group.add_argument("--freeze-encoder", action="store_true", help="train the decoder alone")
    group.add_argument(
        "--freeze-statistics",
        action="store_true",
        help="keep batch norm's running statistics, for networks trained before",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    recipe = Recipe()
    crops = recipe.augmentation
    defaults = vars(recipe) | {name: getattr(crops, name) for name in CROPS}
    defaults["scale"] = "{} {}".format(*crops.scale)
    group = parser.add_argument_group("recipe", DEFAULTS)
    group.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="a recipe: finetune goes on from a checkpoint (--init), small trains a network of width 8 from random "
        "weights, paper-NAME the paper's on a data set",
    )

    def option(flag: str, text: str, **arguments: Any) -> None:
        name = flag.lstrip("-").replace("-", "_")
        group.add_argument(flag, help=f"{text} (default: {defaults[name]})", **arguments)

    option("--epochs", "passes over the training split", type=int)
    option("--batch-size", "crops in a step, over all processes", type=int)
    option(
        "--accumulation-steps", "micro-batches into which a process splits its share of a batch", type=int, metavar="N"
    )
    option("--lr", "peak learning rate", type=float)
    option("--weight-decay", "of AdamW", type=float)
    option("--warmup", "share of all steps over which the learning rate rises", type=float, metavar="SHARE")
    option("--max-grad-norm", "clip gradients to this norm, 0 for no clipping", type=float, metavar="NORM")
    option("--loss", "of one map", choices=sorted(LOSSES))
    option("--pixel-weight", "weight of the auxiliary pixel loss", type=float)
    group.add_argument("--teacher", metavar="NAME", help="checkpoint for knowledge distillation")
    option("--distil-weight", "weight of the loss against the teacher's probabilities", type=float)
    group.add_argument(
        "--soft-targets",
        nargs="+",
        metavar="DIR",
        help="folder of maps of serank detect --probability for each ROOT; a ROOT without masks takes them for both",
    )
    option("--soft-weight", "weight of the loss against the soft targets", type=float, metavar="W")
    option(
        "--consistency-weight",
        "weight of the difference between the probabilities of a crop in two orientations",
        type=float,
        metavar="W",
    )
    option("--ema-decay", "decay of the averaged weights, 0 for none", type=float, metavar="DECAY")
    option("--precision", "of the network", choices=get_args(Precision))
    option("--validate-every", "epochs between validations", type=int, metavar="N")
    option("--seed", "of weights, crops and order", type=int)
    group.add_argument("--no-deep-supervision", action="store_true", help="train the final output alone")
    option("--crop", "side of the training crops", type=int, metavar="PX")
    option("--scale", "range of the random scale", type=float, nargs=2, metavar=("LOW", "HIGH"))
    option("--unscaled", "share of crops that aren't scaled so", type=float, metavar="P")
    option("--target-share", "share of crops that hold a target, where the frame has one", type=float, metavar="P")
    option("--paste", "share of crops that get a target of another frame", type=float, metavar="P")
    group.add_argument(
        "--sensor",
        action="store_true",
        help="crops with the effects of real sensors, by these shares: "
        + ", ".join(f"{name} {share:g}" for name, share in SENSOR.items()),
    )
    for name in SENSOR:
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            metavar="P",
            help=f"share of crops with {EFFECTS.get(name, name.replace('_', ' '))} (default: 0, or as --sensor)",
        )


def run(options: argparse.Namespace) -> int:
    with started(options.device) as device:
        if device == "cpu":
            keep_freed_memory()  # a command has the process to itself, which a program that calls `fit` may not
        return _train_here(options, device)


def _train_here(options: argparse.Namespace, device: str) -> int:
    make_run_folder(options.output)  # before frames are read, and an error of theirs would hide this one
    _log_to_standard_error()
    chosen = preset(options.preset) if options.preset else None
    recipe = _recipe(options, chosen)
    soft = options.soft_targets
    if soft and len(soft) != len(options.roots):
        raise ValueError(f"--soft-targets takes one folder for each ROOT; got {len(soft)} for {len(options.roots)}")
    if bool(soft) != bool(recipe.soft_weight):
        raise ValueError("--soft-targets and --soft-weight belong together")
    start = SeRankDet.from_pretrained(options.init) if options.init else None
    frames = frame_options(options)
    if start is not None:
        frames = frames.repaired(start.frame_spec.repair)
    train_set = _joined(options.roots, options.train_split, frames, soft)
    val_set = _joined(options.roots, options.val_split, frames) if options.val_split else None
    torch.manual_seed(recipe.seed)
    model = _network(options, chosen, train_set, start)
    # as process 0 sees it: all must take part in the evaluation, or none
    begun = from_main((Path(options.output) / "last.pt").exists())
    if options.resume and is_main() and not begun:
        print(f"serank train: no run in {options.output} yet, starting one", file=sys.stderr)
    before: dict[str, float] = {}
    if options.init and val_set is not None and not begun:
        before = evaluate(model.to(device), val_set, curves=False).metrics
        if is_main():
            print(f"before, {options.init}:")
            print_metrics(before)
    history = fit(
        model,
        train_set,
        val_set,
        recipe=recipe,
        teacher=SeRankDet.from_pretrained(options.teacher) if options.teacher else None,
        output=options.output,
        resume=options.resume,
        device=device,
        workers=options.workers,
        compile=options.compile,
        checkpointing=options.checkpointing,
        save_every=options.save_every,
        tensorboard=options.tensorboard,
        progress=sys.stderr.isatty(),
        origin=f"`{options.line}`",
        license=options.license,
        datasets=options.dataset,
    )
    if is_main():
        if "iou" in history.best:
            print(f"best of {len(history.rows)} epochs: epoch {history.best['epoch']:.0f}")
            print_metrics(history.best)
            if before and selection_score(before) > selection_score(history.best):
                print(
                    f"serank train: {options.init} was better on {options.val_split} before training, by the mean of "
                    "IoU and nIoU; try fewer epochs, a smaller --lr, --freeze-statistics, or more frames",
                    file=sys.stderr,
                )
        print(f"checkpoint {Path(options.output) / 'best'}")
    return 0


def _log_to_standard_error() -> None:
    """Shows what the trainer logs."""
    logger = logging.getLogger("serank.train")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("serank train: %(message)s"))
    logger.handlers = [handler]  # not a second one where the command runs twice in a process


def _joined(
    roots: list[str], split: str, frames: FrameOptions, soft: Sequence[str | None] | None = None
) -> JoinedSamples:
    folders = zip(roots, soft or [None] * len(roots), strict=True)
    return JoinedSamples([FolderDataset(root, split, cache=True, soft=maps, options=frames) for root, maps in folders])


def _recipe(options: argparse.Namespace, chosen: Preset | None) -> Recipe:
    recipe = chosen.recipe if chosen else Recipe()
    given = {name: value for name in (*RECIPE, "seed") if (value := getattr(options, name)) is not None}
    crops: dict[str, Any] = {name: getattr(options, name) for name in (*CROPS, *SENSOR)}
    crops["scale"] = tuple(options.scale) if options.scale else None
    sensor = SENSOR if options.sensor else {}
    augmentation = replace(recipe.augmentation, **sensor | {k: v for k, v in crops.items() if v is not None})
    return replace(
        recipe,
        **given,
        deep_supervision=recipe.deep_supervision and not options.no_deep_supervision,
        freeze_encoder=options.freeze_encoder,
        freeze_statistics=options.freeze_statistics,
        augmentation=augmentation,
    )


def _network(options: argparse.Namespace, chosen: Preset | None, train_set: Any, start: SeRankDet | None) -> SeRankDet:
    changes = preparation(options)
    if options.in_channels is not None:
        changes["in_channels"] = options.in_channels
    prepared = chosen.preparation if chosen else {}
    if start is not None:
        if options.width is not None:
            raise ValueError("--width belongs to the checkpoint given by --init; leave it out")
        if chosen and chosen.width not in (None, start.config["width"]):
            raise ValueError(
                f"--preset {options.preset} trains width {chosen.width}, and {options.init} has width "
                f"{start.config['width']}; leave one of them out"
            )
        return start.reconfigured(**(prepared | changes))
    if options.freeze_statistics:
        raise ValueError("--freeze-statistics keeps the statistics of a trained network; name one with --init")
    width = 8 if chosen is None else chosen.width
    if width is None:
        raise ValueError(f"--preset {options.preset} goes on from a trained network; name one with --init")
    mean, std = grey_statistics(train_set)
    width = width if options.width is None else options.width
    arguments: dict[str, Any] = {"width": width, "mean": mean, "std": std, "working_size": 320}
    return SeRankDet(**(arguments | prepared | changes))
