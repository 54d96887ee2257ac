"""The `serank` command."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence

from serank._version import __version__
from serank.cli import (
    average,
    checkpoints,
    convert,
    describe,
    detect,
    evaluate,
    export,
    graft,
    import_labels,
    publish,
    split,
    train,
)

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        Exit status: 0 done, 1 something failed (said on standard error), 2 wrong usage, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    options.line = shlex.join(["serank", *(sys.argv[1:] if arguments is None else arguments)])  # for model cards
    show = warnings.formatwarning
    # a warning is for the user here, who has no use for the line of code that gave it
    warnings.formatwarning = lambda message, *_, **__: f"serank {options.command}: warning: {message}\n"
    try:
        status: int = options.run(options)
    except (OSError, ValueError, RuntimeError, FloatingPointError, ImportError) as error:  # ImportError: an extra
        print(f"serank {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"serank {options.command}: interrupted", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = show
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serank",
        description="Infrared small target detection with SeRankDet.",
        epilog="`serank COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"serank {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    data = (import_labels, describe, split)
    for module in (detect, *data, train, average, graft, evaluate, checkpoints, publish, convert, export):
        module.add(commands)
    return parser
