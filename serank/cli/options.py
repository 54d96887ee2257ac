"""Options and output that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_model", "add_preparation", "add_tta", "preparation", "print_metrics"]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of a command that runs a checkpoint."""
    parser.add_argument(
        "--checkpoint", default="sirst", metavar="NAME", help="bundled name, folder or Hub repository id"
    )
    parser.add_argument("--device", default="auto", help="where to run: auto (CUDA where there is one), cpu, cuda")


def add_tta(parser: argparse.ArgumentParser) -> None:
    """The option of a command that runs a checkpoint on frames."""
    parser.add_argument(
        "--tta",
        type=int,
        choices=(1, 4, 8),
        help="test-time augmentation: average over the flips (4) or all rotations and flips (8) of a frame, at 4 and 8 "
        "times the cost (default: the checkpoint's)",
    )


def add_preparation(parser: argparse.ArgumentParser | argparse._ArgumentGroup, working_size: str, scale: str) -> None:
    """Options that replace the checkpoint's frame preparation.

    Args:
        parser: to add them to.
        working_size: default of `--working-size`, as the help names it.
        scale: default of `--scale-range`, likewise.
    """
    parser.add_argument(
        "--working-size",
        type=int,
        metavar="PX",
        help=f"longest side to which frames are scaled, 0 leaves their size (default: {working_size})",
    )
    parser.add_argument(
        "--scale-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help=f"least and largest factor of that scaling (default: {scale})",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PX",
        help="largest side of the tiles into which larger frames, once scaled, are cut (default: the network's)",
    )
    parser.add_argument("--overlap", type=int, metavar="PX", help="that tiles have in common (default: the network's)")


def preparation(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_preparation` that were given, as arguments of `SeRankDet`."""
    names = ("working_size", "scale_range", "tile", "overlap")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return given | ({"working_size": None} if options.working_size == 0 else {})


def print_metrics(result: dict[str, float]) -> None:
    """Prints the metrics of `DetectionMetrics.compute` in one line."""
    print(
        f"IoU {result['iou']:.4f}  nIoU {result['niou']:.4f}  Pd {result['pd']:.4f}  Fa {result['fa'] * 1e6:.2f}e-6  "
        f"false components {result['false_components']:.3f} a frame  "
        f"({result['frames']:.0f} frames, {result['targets']:.0f} targets)"
    )
