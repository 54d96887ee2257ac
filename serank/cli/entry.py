"""The `serank` command: what is common to all commands when they run."""

from __future__ import annotations

import argparse
import io
import os
import select
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from serank.cli.parser import COMMANDS, CommandModule, add_command, build_parser
from serank.utils.signals import INTERRUPTED, stop_signals
from serank.utils.text import did_you_mean


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
    closed = False
    with suppress(OSError, ValueError, AttributeError):  # no descriptor; no `poll` on Windows
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        closed = any(event & select.POLLERR for _, event in poll.poll(0))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        closed = True
    if closed:
        # Python flushes once more when it ends
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return closed


def _parse(arguments: list[str]) -> tuple[CommandModule, argparse.Namespace]:
    parser, parsers = build_parser()
    # the options before the command take no value, so the first other argument is the command
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if not command:
        parser.parse_args(arguments)  # ends the process: help, version, or the error that a command is missing
    if command not in COMMANDS:
        names = ", ".join(COMMANDS)
        parser.error(f"{command!r} is no command{did_you_mean(command, COMMANDS)}; the commands are {names}")
    module = add_command(parsers[command], command)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parsers[command].refuse(unknown)
    return module, options
