"""The `serank` command."""

from serank.cli.entry import main

__all__ = ["main"]
