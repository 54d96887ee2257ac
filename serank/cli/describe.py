"""`serank describe`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from serank.cli.options import new_command

if TYPE_CHECKING:
    from serank.cli.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = new_command(
        commands,
        "describe",
        "say what a folder of frames and masks holds, and what is wrong with it",
        "The exit status is 1 where something should be looked at.",
    )
    parser.add_argument("root", metavar="ROOT", help="folder of the data set")
    parser.set_defaults(run=_describe)


def _describe(options: argparse.Namespace) -> int:
    from serank.datasets import describe_folder

    report = describe_folder(options.root)
    print(report)
    return 1 if report.problems else 0
