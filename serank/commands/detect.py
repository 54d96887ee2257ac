"""`serank detect`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serank.commands.options import add_model, new_command

if TYPE_CHECKING:
    from serank.commands.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = new_command(
        commands,
        "detect",
        "find targets in frames",
        "Writes a picture with boxes for each frame and one table of all detections. A frame that can't be read is "
        "reported and skipped, and the exit status is then 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, and folders of them (not of their sub-folders)"
    )
    add_model(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability in [0, 1] above which a pixel is target (default: the checkpoint's)",
    )
    parser.add_argument("--min-area", type=int, default=1, metavar="PX", help="smallest detection kept")
    parser.add_argument("--output", default="detections", metavar="DIR", help="folder to write to")
    parser.add_argument("--format", choices=("json", "csv"), default="json", help="of the table")
    parser.set_defaults(run=_detect)


def _detect(options: argparse.Namespace) -> int:
    from serank.batch import detect_files
    from serank.network import SeRankDet

    model = SeRankDet.from_pretrained(options.checkpoint, device=options.device)
    result = detect_files(
        model,
        options.paths,
        options.output,
        threshold=options.threshold,
        min_area=options.min_area,
        table=options.format,
        progress=sys.stderr.isatty(),
    )
    rows = list(result.rows())
    if rows:
        width = max(len(Path(row["frame"]).name) for row in rows)
        print(f"{'frame':<{width}}  {'x':>7}  {'y':>7}  {'score':>5}  {'area':>5}  picture")
        for row in rows:
            name = Path(row["frame"]).name
            x, y, score, area, picture = (row[key] for key in ("x", "y", "score", "area", "picture"))
            print(f"{name:<{width}}  {x:7.1f}  {y:7.1f}  {score:5.2f}  {area:5d}  {picture}")
    for _, reason in result.failures:
        print(f"serank detect: skipped {reason}", file=sys.stderr)
    speed = len(result.frames) / result.seconds if result.seconds else 0.0
    print(
        f"{len(result.frames)} frames, {len(rows)} detections, {len(result.failures)} skipped, "
        f"{speed:.1f} frames/s; pictures in {options.output}, table {result.table}"
    )
    if result.interrupted:
        print("serank detect: interrupted; the table holds the finished frames", file=sys.stderr)
        return 130
    return 1 if result.failures else 0
