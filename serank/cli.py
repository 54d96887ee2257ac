"""The `serank` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serank import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        Exit status: 0 done, 1 something failed (said on standard error), 2 wrong usage, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        print(f"serank {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"serank {options.command}: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serank",
        description="Infrared small target detection with SeRankDet.",
        epilog="`serank COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"serank {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_detect(commands)
    _add_evaluate(commands)
    _add_train(commands)
    _add_checkpoints(commands)
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to the help, but for options that have none of their own."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def _command(commands: Commands, name: str, summary: str, details: str = "") -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary.capitalize()}. {details}".strip(),
        formatter_class=_Formatter,
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", default="sirst", metavar="NAME", help="bundled name, folder or Hub repository id"
    )
    parser.add_argument("--device", default="cpu", help="where to run, such as cpu or cuda")


def _add_detect(commands: Commands) -> None:
    parser = _command(
        commands,
        "detect",
        "find targets in frames",
        "Writes a picture with boxes for each frame and one table of all detections. A frame that can't be read is "
        "reported and skipped, and the exit status is then 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, and folders of them (not of their sub-folders)"
    )
    _add_model(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability in [0, 1] above which a pixel is target (default: the checkpoint's)",
    )
    parser.add_argument("--min-area", type=int, default=1, metavar="PX", help="smallest detection kept")
    parser.add_argument("--output", default="detections", metavar="DIR", help="folder to write to")
    parser.add_argument("--format", choices=("json", "csv"), default="json", help="of the table")
    parser.set_defaults(run=_detect)


def _detect(options: argparse.Namespace) -> int:
    from serank.batch import detect_files
    from serank.network import SeRankDet

    model = SeRankDet.from_pretrained(options.checkpoint, device=options.device)
    result = detect_files(
        model,
        options.paths,
        options.output,
        threshold=options.threshold,
        min_area=options.min_area,
        table=options.format,
        progress=sys.stderr.isatty(),
    )
    rows = list(result.rows())
    if rows:
        width = max(len(Path(row["frame"]).name) for row in rows)
        print(f"{'frame':<{width}}  {'x':>7}  {'y':>7}  {'score':>5}  {'area':>5}  picture")
        for row in rows:
            name = Path(row["frame"]).name
            x, y, score, area, picture = (row[key] for key in ("x", "y", "score", "area", "picture"))
            print(f"{name:<{width}}  {x:7.1f}  {y:7.1f}  {score:5.2f}  {area:5d}  {picture}")
    for _, reason in result.failures:
        print(f"serank detect: skipped {reason}", file=sys.stderr)
    speed = len(result.frames) / result.seconds if result.seconds else 0.0
    print(
        f"{len(result.frames)} frames, {len(rows)} detections, {len(result.failures)} skipped, "
        f"{speed:.1f} frames/s; pictures in {options.output}, table {result.table}"
    )
    if result.interrupted:
        print("serank detect: interrupted; the table holds the finished frames", file=sys.stderr)
        return 130
    return 1 if result.failures else 0


def _add_evaluate(commands: Commands) -> None:
    parser = _command(commands, "evaluate", "measure a checkpoint on a data set", "Frames at their own size.")
    parser.add_argument("root", metavar="ROOT", help="folder of the data set, with images/ and masks/")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="list or sub-folder, such as val (default: every frame)",
    )
    _add_model(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability in [0, 1] (default: the checkpoint's)",
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from serank.datasets import FolderDataset
    from serank.evaluate import evaluate
    from serank.network import SeRankDet

    dataset = FolderDataset(options.root, options.split)
    model = SeRankDet.from_pretrained(options.checkpoint, device=options.device)
    result = evaluate(
        model,
        dataset,
        threshold=options.threshold,
        progress=sys.stderr.isatty(),
    )
    _print_metrics(result)
    return 0


def _print_metrics(result: dict[str, float]) -> None:
    print(
        f"IoU {result['iou']:.4f}  nIoU {result['niou']:.4f}  Pd {result['pd']:.4f}  Fa {result['fa'] * 1e6:.2f}e-6  "
        f"false components {result['false_components']:.3f} a frame  "
        f"({result['frames']:.0f} frames, {result['targets']:.0f} targets)"
    )


def _add_train(commands: Commands) -> None:
    parser = _command(
        commands,
        "train",
        "train a network on a folder of frames and masks",
        "Keeps the weights with the best mean of IoU and nIoU on the validation split. A stopped run goes on with "
        "--resume.",
    )
    parser.add_argument("root", metavar="ROOT", help="folder of the data set, with images/ and masks/")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for checkpoints and the log")
    parser.add_argument("--train-split", default="train", metavar="NAME", help="list or sub-folder")
    parser.add_argument("--val-split", default="val", metavar="NAME", help='list or sub-folder; "" for none')
    parser.add_argument(
        "--init",
        metavar="NAME",
        help="checkpoint to start from (default: random weights)",
    )
    parser.add_argument("--width", type=int, help="channels of the finest level (default: 8)")
    parser.add_argument(
        "--working-size",
        type=int,
        metavar="PX",
        help="longest side to which frames are scaled; 0 leaves their size (default: the checkpoint's, or 320)",
    )
    parser.add_argument("--epochs", type=int, default=100, help="passes over the training split")
    parser.add_argument("--batch-size", type=int, default=8, help="crops in a step")
    parser.add_argument("--crop", type=int, default=256, metavar="PX", help="side of the training crops")
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        default=[0.5, 2.0],
        metavar=("LOW", "HIGH"),
        help="range of the random scale",
    )
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--pixel-weight", type=float, default=0.0, help="weight of the auxiliary pixel loss")
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights, 0 for none")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the network")
    parser.add_argument("--validate-every", type=int, default=1, metavar="N", help="epochs between validations")
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and order")
    parser.add_argument("--device", default="cpu", help="where to train, such as cpu or cuda")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --output; repeat its other options"
    )
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    import torch

    from serank.augment import Augmentation
    from serank.datasets import FolderDataset, grey_statistics
    from serank.network import SeRankDet
    from serank.train import Recipe, fit

    if options.init and options.width is not None:
        raise ValueError("--width belongs to the checkpoint given by --init; leave it out")
    train_set = FolderDataset(options.root, options.train_split, cache=True)
    val_set = FolderDataset(options.root, options.val_split, cache=True) if options.val_split else None
    torch.manual_seed(options.seed)
    if options.init:
        model = SeRankDet.from_pretrained(options.init)
        if options.working_size is not None:
            weights = model.state_dict()
            model = SeRankDet(**(model.config | {"working_size": options.working_size or None}))
            model.load_state_dict(weights)
    else:
        mean, std = grey_statistics(train_set)
        size = 320 if options.working_size is None else options.working_size
        width = 8 if options.width is None else options.width
        model = SeRankDet(width=width, mean=mean, std=std, working_size=size or None)
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.lr,
        pixel_weight=options.pixel_weight,
        average=options.average,
        precision=options.precision,
        validate_every=options.validate_every,
        seed=options.seed,
        augmentation=Augmentation(crop=options.crop, scale=tuple(options.scale)),
    )
    if options.resume and not (Path(options.output) / "last.pt").exists():
        print(f"serank train: no run in {options.output} yet, starting one", file=sys.stderr)
    history = fit(
        model,
        train_set,
        val_set,
        recipe=recipe,
        output=options.output,
        resume=options.resume,
        device=options.device,
        progress=sys.stderr.isatty(),
    )
    if "iou" in history.best:
        print(f"best of {len(history.rows)} epochs: epoch {history.best['epoch']:.0f}")
        _print_metrics(history.best)
    print(f"checkpoint {Path(options.output) / 'best'}")
    return 0


def _add_checkpoints(commands: Commands) -> None:
    parser = _command(commands, "checkpoints", "list the checkpoints that can be loaded by name")
    parser.set_defaults(run=_checkpoints)


def _checkpoints(_: argparse.Namespace) -> int:
    from serank.checkpoints import bundled, describe

    for name, folder in bundled().items():
        print(f"{name:<12} {describe(folder)}")
    print("Besides these: any folder that save_pretrained wrote, and any Hub repository id (owner/name).")
    return 0
