"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serank.frames.options import FrameOptions
    from serank.serankdet import SeRankDet

DEFAULT_CHECKPOINT = "general"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of a command that runs a checkpoint."""
    parser.add_argument(
        "--checkpoint", default=DEFAULT_CHECKPOINT, metavar="NAME", help="bundled name, folder or Hub repository id"
    )
    parser.add_argument("--device", default="auto", help="where to run: auto (CUDA where there is one), cpu, cuda")


def add_tta(parser: argparse.ArgumentParser) -> None:
    """The option of a command that runs a checkpoint on frames."""
    parser.add_argument(
        "--tta",
        type=int,
        choices=(1, 4, 8),
        help="test-time augmentation: average over the flips (4) or all rotations and flips (8) of a frame, at 4 and 8 "
        "times the cost (default: the checkpoint's)",
    )


def add_preparation(parser: argparse.ArgumentParser | argparse._ArgumentGroup, working_size: str, scale: str) -> None:
    """Options that replace the checkpoint's frame preparation.

    Args:
        parser: to add them to.
        working_size: default of `--working-size`, as the help names it.
        scale: default of `--scale-range`, likewise.
    """
    parser.add_argument(
        "--working-size",
        type=int,
        metavar="PX",
        help=f"longest side to which frames are scaled, 0 leaves their size (default: {working_size})",
    )
    parser.add_argument(
        "--scale-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help=f"least and largest factor of that scaling (default: {scale})",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PX",
        help="largest side of the tiles into which larger frames, once scaled, are cut (default: the network's)",
    )
    parser.add_argument("--overlap", type=int, metavar="PX", help="that tiles have in common (default: the network's)")


def preparation(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_preparation` that were given, as arguments of `SeRankDet`."""
    names = ("working_size", "scale_range", "tile", "overlap")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return given | ({"working_size": None} if options.working_size == 0 else {})


def load_checkpoint(options: argparse.Namespace, device: str) -> SeRankDet:
    """The checkpoint of `add_model`, prepared as the options of `add_preparation` and `add_tta` say."""
    from serank.serankdet import SeRankDet

    model = SeRankDet.from_pretrained(options.checkpoint, device=device)
    changes = preparation(options) | ({} if options.tta is None else {"tta": options.tta})
    return model.reconfigured(**changes) if changes else model


def mention_lists(options: argparse.Namespace, frames: int) -> None:
    """Says on standard error that all of a set is measured where it has lists to choose from."""
    from serank.datasets.layouts import find_lists

    if options.split is not None:
        return
    if lists := list(dict.fromkeys(name for root in options.roots for name in find_lists(Path(root)))):
        print(
            f"serank evaluate: all {frames} frames, training frames among them if there are any; "
            f"--split takes one of {', '.join(lists)}",
            file=sys.stderr,
        )


def about_checkpoint(options: argparse.Namespace, model: SeRankDet, device: str) -> dict[str, str]:
    """What an evaluation measured, for its report."""
    about = {"checkpoint": options.checkpoint, "device": device, "data": ", ".join(options.roots)}
    if model.tta > 1:
        about["test-time augmentation"] = f"mean over {model.tta} orientations"
    if given := frames_given(options):
        about["frame options"] = " ".join(given)
    if options.resolution == "native":
        spec = model.frame_spec
        low, high = spec.scale_range
        size = (
            f"scaled to {spec.working_size} px by {low:g} to {high:g}" if spec.working_size else "as large as they are"
        )
        about["frames"] = f"{size}, in tiles of up to {spec.tile} px that share {spec.overlap} px"
    return about | ({"split": options.split} if options.split else {})


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what is known of the frames."""
    group = parser.add_argument_group("frames")
    group.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values of black and white (default: found from each frame's values)",
    )
    group.add_argument(
        "--no-data",
        type=float,
        action="append",
        metavar="VALUE",
        help="value of pixels without data, such as -9999 or nan, filled from their neighbours; may be repeated",
    )
    group.add_argument(
        "--polarity", choices=("white-hot", "black-hot"), default="white-hot", help="whether hot is bright or dark"
    )
    group.add_argument(
        "--invert", dest="polarity", action="store_const", const="black-hot", help="the same as --polarity black-hot"
    )
    group.add_argument(
        "--palette",
        metavar="NAME",
        help="of frames in false colour: auto, or its name in matplotlib, such as inferno or jet",
    )
    group.add_argument(
        "--ignore",
        action="append",
        metavar="REGION",
        help="where nothing is to be found: a mask file, or a box X0,Y0,X1,Y1 in pixels, which may be repeated",
    )
    group.add_argument(
        "--repair",
        action=argparse.BooleanOptionalAction,
        help="replace dead pixels and lines from their neighbours first (default: the checkpoint's)",
    )


def frame_options(options: argparse.Namespace) -> FrameOptions:
    """The options of `add_frame_options`.

    Raises:
        ValueError: a value out of its range, or a mask file beside other regions.
    """
    from serank.frames.options import FrameOptions

    region = _region(options.ignore)
    return FrameOptions(options.range, options.no_data, options.polarity, options.palette, region, options.repair)


def frames_given(options: argparse.Namespace) -> list[str]:
    """The options of `add_frame_options` that were given, with their values, as they were written."""
    names = ("range", "no_data", "palette", "ignore")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    words = [f"--{name.replace('_', '-')} {_written(value)}" for name, value in given.items()]
    words += ["--polarity black-hot"] if options.polarity == "black-hot" else []
    return words + ([] if options.repair is None else ["--repair" if options.repair else "--no-repair"])


def _written(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return " ".join(_number(item) if isinstance(item, float) else str(item) for item in items)


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _region(given: list[str] | None) -> Any:
    """A mask's path, or boxes."""
    if not given:
        return None
    try:
        boxes = [[float(number) for number in region.split(",")] for region in given]
    except ValueError:
        if len(given) > 1:
            raise ValueError(
                f"--ignore takes one mask file, or boxes X0,Y0,X1,Y1 alone; got {', '.join(given)}"
            ) from None
        return given[0]
    if any(len(box) != 4 for box in boxes):
        raise ValueError(f"--ignore takes boxes of four numbers, X0,Y0,X1,Y1; got {', '.join(given)}")
    return boxes


def print_metrics(result: dict[str, float]) -> None:
    """Prints the metrics of `DetectionMetrics.compute` in one line."""
    print(
        f"IoU {result['iou']:.4f}  nIoU {result['niou']:.4f}  Pd {result['pd']:.4f}  Fa {result['fa'] * 1e6:.2f}e-6  "
        f"false components {result['false_components']:.3f} a frame  "
        f"({result['frames']:.0f} frames, {result['targets']:.0f} targets)"
    )
