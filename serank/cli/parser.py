"""The parser of the `serank` command; a command's module is imported when its options are needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

from serank._version import __version__
from serank.utils.text import did_you_mean

COMMANDS = {
    "detect": "find targets in frames",
    "import": "turn COCO, YOLO, Pascal VOC or LabelMe labels, or a list of centroids, into frames and masks",
    "split": "write train.txt and val.txt for a folder of frames and masks",
    "describe": "say what a folder of frames and masks holds, and what is wrong with it",
    "train": "train a network on folders of frames and masks",
    "evaluate": "measure a checkpoint on a data set, or score the predictions of any method",
    "checkpoints": "list the checkpoints that can be loaded by name",
    "publish": "check and upload a checkpoint",
    "convert": "convert a checkpoint of the authors' released code",
    "demo": "show detections on a page in the browser, on this machine alone",
    "export": "write a checkpoint for another runtime: ONNX, or a program of torch.export",
    "completion": "print a script that completes this command's words in a shell",
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
    """Suggests the closest option for an unknown one, and takes every negative number for a value."""

    def _parse_optional(self, arg_string: str) -> Any:
        # argparse takes -1e-05 and -inf for options, by Python's version
        return None if _is_negative(arg_string) else super()._parse_optional(arg_string)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Ends the process with status 2 and a message about arguments that no option takes."""
        options = [name for name in self._option_string_actions if name.startswith("--")]
        hints = [did_you_mean(argument.partition("=")[0], options) for argument in unknown if argument.startswith("-")]
        self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(hints)}")


def _is_negative(text: str) -> bool:
    """Whether the text is a negative number as `float` reads it, or several with commas between them."""
    try:
        for part in text.split(","):
            float(part)
    except ValueError:
        return False
    return text.startswith("-")


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and those of the commands by name, still without options."""
    parser = Parser(
        prog="serank",
        description="Infrared small target detection with SeRankDet.",
        epilog="`serank COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"serank {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return parser, {name: commands.add_parser(name, help=summary) for name, summary in COMMANDS.items()}


def add_command(parser: Parser, command: str) -> CommandModule:
    """Gives the parser of a command its options; returns the command's module."""
    module = cast(CommandModule, import_module(f"serank.cli.{MODULES.get(command, command)}"))
    summary = COMMANDS[command]
    parser.formatter_class = Formatter
    parser.description = f"{summary[0].upper()}{summary[1:]}. {module.DETAILS}".strip()
    module.add_arguments(parser)
    return module
