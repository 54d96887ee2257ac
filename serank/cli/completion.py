"""`serank completion`: the completion script of a shell, by shtab."""

from __future__ import annotations

import argparse
from typing import Any

from serank.cli.parser import COMMANDS, add_command, build_parser

SHELLS = ("bash", "zsh", "tcsh")
DETAILS = (
    "In bash: `serank completion bash > ~/.local/share/bash-completion/completions/serank`; in zsh: `serank completion "
    'zsh > "${fpath[1]}/_serank"`; then start a new shell. Takes the extra serank[completion].'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("shell", choices=SHELLS, help="shell that the script is for")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ImportError(f"completion needs shtab ({error}); run: pip install 'serank[completion]'") from error
    parser, parsers = build_parser()
    for command in COMMANDS:
        add_command(parsers[command], command)
        parsers[command].description = COMMANDS[command]  # zsh shows it beside the command
        for action in parsers[command]._actions:
            if action.nargs != 0 and action.choices is None and action.type is None:
                file: Any = action  # an attribute that shtab reads: most free words are paths
                file.complete = shtab.FILE
    print(shtab.complete(parser, options.shell))
    return 0
