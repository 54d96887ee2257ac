"""`serank graft`."""

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
        "graft",
        "put parts of one checkpoint into another",
        "For a checkpoint and one that was fine-tuned from it; measure the result. Frames are prepared as for the "
        "first.",
    )
    parser.add_argument("checkpoint", metavar="NAME", help="bundled name, folder or Hub repository id")
    parser.add_argument("donor", metavar="DONOR", help="the same, for the one that gives parts")
    parser.add_argument(
        "--parts", nargs="+", required=True, metavar="PART", help="modules to take, such as encoder.0 decoder.0 head"
    )
    add_preparation(parser, "as it was", "as it was")
    parser.add_argument(
        "--threshold", type=float, help="probability above which a pixel is target (default: as it was)"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the new checkpoint")
    parser.add_argument("--half", action="store_true", help="store weights in float16, half the size")
    parser.set_defaults(run=_graft)


def _graft(options: argparse.Namespace) -> int:
    from serank.serankdet import SeRankDet
    from serank.train.averaging import graft

    model, donor = (SeRankDet.from_pretrained(name) for name in (options.checkpoint, options.donor))
    result = graft(model, donor, options.parts)
    changes = preparation(options) | ({} if options.threshold is None else {"threshold": options.threshold})
    result.reconfigured(**changes).save_pretrained(options.output, half=options.half)
    print(f"checkpoint {options.output}, with {', '.join(options.parts)} of {options.donor}")
    return 0
