"""`serank split`."""

from __future__ import annotations

import argparse

from serank.datasets.splitting import split_folder

DETAILS = "Frames are chosen by a hash of their names and the seed, so that the same folder is always split alike."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="folder of the data set, with images/ and masks/")
    parser.add_argument("--val", type=float, default=0.2, metavar="SHARE", help="of the frames for validation")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another split")
    parser.add_argument(
        "--by-sequence",
        action="store_true",
        help="keep frames whose names differ in their last number alone together, such as clip03_000123 and "
        "clip03_000124: neighbours in time are almost one frame",
    )
    parser.add_argument(
        "--published",
        metavar="DATASET",
        help="write the lists of a published data set instead: sirst, sirst-v2, irstd1k or nudt-sirst, with test.txt "
        "where its frames are there",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the lists that are there")


def run(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in ("val", "seed", "by_sequence", "published", "overwrite")}
    print(split_folder(options.folder, **given))
    return 0
