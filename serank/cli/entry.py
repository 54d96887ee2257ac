"""The `serank` command: its parser, and what is common to all commands when they run."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import NoReturn, Protocol, cast

from serank._version import __version__
from serank.utils.signals import INTERRUPTED, stop_signals
from serank.utils.text import did_you_mean

COMMANDS = {
    "detect": "find targets in frames",
    "import": "make frames and masks of COCO, YOLO, Pascal VOC or LabelMe labels, or of a list of centroids",
    "split": "write train.txt and val.txt for a folder of frames and masks",
    "describe": "say what a folder of frames and masks holds, and what is wrong with it",
    "train": "train a network on folders of frames and masks",
    "evaluate": "measure a checkpoint on a data set, or score the predictions of any method",
    "checkpoints": "list the checkpoints that can be loaded by name",
    "publish": "check and upload a checkpoint",
    "convert": "make a checkpoint of the authors' released code one of serank",
    "demo": "show detections on a page in the browser, on this machine alone",
    "export": "write a checkpoint for another runtime: ONNX, or a program of torch.export",
}
"""Name and summary of each command; the module of that name in this package is imported when the command is called."""
MODULES = {"import": "import_labels"}
"""Modules of the commands whose names are keywords of Python."""


class CommandModule(Protocol):
    """What the module of a command has."""

    DETAILS: str
    """Shown by `serank COMMAND --help` after the summary."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options of the command."""

    def run(self, options: argparse.Namespace) -> int:
        """Runs the command; returns the exit status."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options in the help, unless they are None or False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Suggests the closest option for an unknown one."""

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Ends the process with status 2 and a message about arguments that no option takes."""
        options = [name for name in self._option_string_actions if name.startswith("--")]
        hints = [did_you_mean(argument.partition("=")[0], options) for argument in unknown if argument.startswith("-")]
        self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(hints)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: of the command line, without the program's name; `sys.argv[1:]` if left out.

    Returns:
        Exit status: 0 done, 1 something failed (said on standard error), 2 wrong usage; 130 after Ctrl-C, 143 after
        SIGTERM, 129 after SIGHUP and 141 where the reader of standard output is gone.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    module, options = _parse(given)
    options.line = shlex.join(["serank", *given])  # for model cards
    with _messages(options.command), stop_signals() as received:
        try:
            status = module.run(options)
            sys.stdout.flush()
        except BrokenPipeError as error:
            if not _stdout_is_closed():
                return _failed(options.command, error)
            return 128 + 13  # as a process that SIGPIPE ends
        except (OSError, ValueError, RuntimeError, FloatingPointError, ImportError) as error:  # ImportError: an extra
            status = _failed(options.command, error)
            if received:  # what is stopped may fail by that, as where another process of torchrun is gone already
                status = INTERRUPTED
        except KeyboardInterrupt:
            print(f"serank {options.command}: interrupted", file=sys.stderr)
            status = INTERRUPTED
        return 128 + received[0] if received and status == INTERRUPTED else status


@contextmanager
def _messages(command: str) -> Iterator[None]:
    """Warnings as lines of the command, without code, and streams that escape what they can't encode."""
    show = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"serank {command}: warning: {message}\n"
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    errors = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        warnings.formatwarning = show
        for stream, before in zip(streams, errors, strict=True):
            with suppress(BrokenPipeError):  # from what waits in a pipe that is closed
                stream.reconfigure(errors=before)


def _failed(command: str, error: Exception) -> int:
    print(f"serank {command}: {error}", file=sys.stderr)
    return 1


def _stdout_is_closed() -> bool:
    """Whether the reader of standard output is gone; what is still to be written is then dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def _parse(arguments: list[str]) -> tuple[CommandModule, argparse.Namespace]:
    parser = Parser(
        prog="serank",
        description="Infrared small target detection with SeRankDet.",
        epilog="`serank COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"serank {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: commands.add_parser(name, help=summary) for name, summary in COMMANDS.items()}
    # the options before the command take no value, so the first other argument is the command
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if not command:
        parser.parse_args(arguments)  # ends the process: help, version, or the error that a command is missing
    if command not in COMMANDS:
        names = ", ".join(COMMANDS)
        parser.error(f"{command!r} is no command{did_you_mean(command, COMMANDS)}; the commands are {names}")
    module = cast(CommandModule, import_module(f"serank.cli.{MODULES.get(command, command)}"))
    chosen, summary = parsers[command], COMMANDS[command]
    chosen.formatter_class = Formatter
    chosen.description = f"{summary[0].upper()}{summary[1:]}. {module.DETAILS}".strip()
    module.add_arguments(chosen)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        chosen.refuse(unknown)
    return module, options
