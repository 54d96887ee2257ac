"""`serank detect`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serank.cli.options import add_model, new_command

if TYPE_CHECKING:
    from serank.cli.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = new_command(
        commands,
        "detect",
        "find targets in frames",
        "Writes a picture with boxes for each frame and one table of all detections. A frame that can't be read is "
        "reported and skipped, and the exit status is then 1. Every page of a TIFF file is a frame. Several processes "
        "or machines share the work: torchrun --nproc-per-node=N -m serank detect ...",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="images, videos, and folders of them (sub-folders are left out)"
    )
    add_model(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability in [0, 1] above which a pixel is target (default: the checkpoint's)",
    )
    parser.add_argument("--min-area", type=int, default=1, metavar="PX", help="smallest detection kept")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="frames that are run at once")
    parser.add_argument("--no-pictures", action="store_true", help="write the table alone")
    parser.add_argument("--output", default="detections", metavar="DIR", help="folder to write to")
    parser.add_argument("--format", choices=("json", "csv"), default="json", help="of the table")
    parser.set_defaults(run=_detect)


def _detect(options: argparse.Namespace) -> int:
    from serank.utils.distributed import started

    with started(options.device) as device:
        return _detect_here(options, device)


def _detect_here(options: argparse.Namespace, device: str) -> int:
    from serank.inference.batch import Record, detect_files, rows
    from serank.serankdet import SeRankDet
    from serank.utils.distributed import is_main, world_size

    model = SeRankDet.from_pretrained(options.checkpoint, device=device).optimize()
    printed = False

    def report(record: Record) -> None:
        nonlocal printed
        if "reason" in record:
            print(f"serank detect: skipped {record['reason']}", file=sys.stderr)
        for row in rows(record):
            if not printed:
                print(f"{'x':>7}  {'y':>7}  {'score':>5}  {'area':>5}  frame")
                printed = True
            place = Path(row["frame"]).name + (f" {row['index']}" if row["index"] != "" else "")
            print(f"{row['x']:7.1f}  {row['y']:7.1f}  {row['score']:5.2f}  {row['area']:5d}  {place}")

    result = detect_files(
        model,
        options.paths,
        options.output,
        threshold=options.threshold,
        min_area=options.min_area,
        batch_size=options.batch_size,
        pictures=not options.no_pictures,
        table=options.format,
        report=report if world_size() == 1 else None,
        progress=sys.stderr.isatty() and is_main(),
    )
    if is_main():
        speed = result.frames / result.seconds if result.seconds else 0.0
        where = f"table {result.table}" if options.no_pictures else f"pictures and table in {options.output}"
        print(
            f"{result.frames} frames, {result.detections} detections, {result.failures} skipped, "
            f"{speed:.1f} frames/s; {where}"
        )
        if result.interrupted:
            print("serank detect: interrupted; the table holds the finished frames", file=sys.stderr)
    if result.interrupted:
        return 130
    return 1 if result.failures else 0
