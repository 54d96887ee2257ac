"""`serank describe`."""

from __future__ import annotations

import argparse

from serank.datasets.describe import describe_folder

DETAILS = "The exit status is 1 where something should be looked at."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", help="folder of the data set")


def run(options: argparse.Namespace) -> int:
    report = describe_folder(options.root)
    print(report)
    return 1 if report.problems else 0
