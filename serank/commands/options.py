"""What the commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_model", "new_command", "print_metrics"]


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


def print_metrics(result: dict[str, float]) -> None:
    """One line of figures, as `DetectionMetrics.compute` gives them."""
    print(
        f"IoU {result['iou']:.4f}  nIoU {result['niou']:.4f}  Pd {result['pd']:.4f}  Fa {result['fa'] * 1e6:.2f}e-6  "
        f"false components {result['false_components']:.3f} a frame  "
        f"({result['frames']:.0f} frames, {result['targets']:.0f} targets)"
    )
