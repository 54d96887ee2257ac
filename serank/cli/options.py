"""What the commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_model", "add_preparation", "new_command", "preparation", "print_metrics"]


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to the help, but for options that have none of their own."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def new_command(commands: Commands, name: str, summary: str, details: str = "") -> argparse.ArgumentParser:
    """A sub-command's parser."""
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary.capitalize()}. {details}".strip(),
        formatter_class=Formatter,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of a command that runs a checkpoint."""
    parser.add_argument(
        "--checkpoint", default="sirst", metavar="NAME", help="bundled name, folder or Hub repository id"
    )
    parser.add_argument("--device", default="cpu", help="where to run, such as cpu or cuda")


def add_preparation(parser: argparse.ArgumentParser | argparse._ArgumentGroup, working_size: str, scale: str) -> None:
    """Options of how frames are prepared, in place of the checkpoint's; the strings name the first two's defaults."""
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
    """What of `add_preparation` was given, as arguments of `SeRankDet`."""
    names = ("working_size", "scale_range", "tile", "overlap")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return given | ({"working_size": None} if options.working_size == 0 else {})


def print_metrics(result: dict[str, float]) -> None:
    """One line of figures, as `DetectionMetrics.compute` gives them."""
    print(
        f"IoU {result['iou']:.4f}  nIoU {result['niou']:.4f}  Pd {result['pd']:.4f}  Fa {result['fa'] * 1e6:.2f}e-6  "
        f"false components {result['false_components']:.3f} a frame  "
        f"({result['frames']:.0f} frames, {result['targets']:.0f} targets)"
    )
