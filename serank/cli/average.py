"""`serank average`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from serank.cli.options import add_preparation, new_command, preparation

if TYPE_CHECKING:
    from serank.cli.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = new_command(
        commands,
        "average",
        "average the weights of several checkpoints",
        "Of checkpoints that were fine-tuned from common weights, the mean is often better than each of them. Measure "
        "it: of others it is useless. Frames are prepared as the first one says.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="NAME", help="bundled name, folder or Hub repository id")
    add_preparation(parser, "the first one's", "the first one's")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the new checkpoint")
    parser.add_argument("--half", action="store_true", help="store weights in float16, half the size")
    parser.set_defaults(run=_average)


def _average(options: argparse.Namespace) -> int:
    from serank.serankdet import SeRankDet
    from serank.train.averaging import average

    model = average([SeRankDet.from_pretrained(name) for name in options.checkpoints])
    model.reconfigured(**preparation(options)).save_pretrained(options.output, half=options.half)
    print(f"checkpoint {options.output}, the mean of {len(options.checkpoints)}")
    return 0
