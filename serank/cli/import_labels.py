"""`serank import`."""

from __future__ import annotations

import argparse
from typing import get_args

from serank.datasets.labels.formats import LabelFormat
from serank.datasets.labels.importing import import_labels
from serank.datasets.labels.rule import FRACTION
from serank.frames.options import Polarity

DETAILS = (
    "Boxes and points become masks: the pixels around the brightest one that stand out by a share of its contrast. "
    "Look at contact_sheet.png in the new folder before you train on it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="label file, or folder of the data set")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="new or empty folder to write to")
    parser.add_argument("--format", choices=get_args(LabelFormat), help="of the labels (default: find out)")
    parser.add_argument("--images", metavar="DIR", help="folder of the frames (default: where the format has them)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="classes that are targets (default: all)")
    parser.add_argument(
        "--polarity",
        choices=get_args(Polarity),
        default="white-hot",
        help="whether targets are brighter or darker than their surroundings",
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=FRACTION,
        metavar="SHARE",
        help="of a target's contrast by which its pixels stand out; less makes larger masks",
    )
    parser.add_argument("--link", action="store_true", help="link to the frames in place of copying them")


def run(options: argparse.Namespace) -> int:
    names = ("format", "images", "classes", "polarity", "fraction", "link")
    given = {name: getattr(options, name) for name in names}
    print(import_labels(options.path, options.output, **given))
    return 0
