"""`serank checkpoints`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from serank.commands.options import new_command

if TYPE_CHECKING:
    from serank.commands.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = new_command(commands, "checkpoints", "list the checkpoints that can be loaded by name")
    parser.set_defaults(run=_checkpoints)


def _checkpoints(_: argparse.Namespace) -> int:
    from serank.checkpoints import bundled, describe

    for name, folder in bundled().items():
        print(f"{name:<12} {describe(folder)}")
    print("Besides these: any folder that save_pretrained wrote, and any Hub repository id (owner/name).")
    return 0
