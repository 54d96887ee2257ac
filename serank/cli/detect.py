"""`serank detect`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serank.cli.options import add_frame_options, add_model, frame_options

if TYPE_CHECKING:
    from serank.inference import BatchResult
    from serank.inference.tables import Record

__all__ = ["DETAILS", "add_arguments", "run"]

DETAILS = (
    "Writes a picture with boxes for each frame and one table of all detections. A frame that can't be read is "
    "reported and skipped, and the exit status is then 1. Every page of a TIFF file is a frame. Several processes "
    "or machines share the work: torchrun --nproc-per-node=N -m serank detect ..."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
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
    add_frame_options(parser)
    parser.add_argument("--no-pictures", action="store_true", help="write the table alone")
    parser.add_argument("--output", default="detections", metavar="DIR", help="folder to write to")
    parser.add_argument("--format", choices=("json", "csv"), default="json", help="of the table")
    parser.add_argument("--quiet", action="store_true", help="print warnings, skipped frames and errors alone")


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from serank.utils.distributed import started
    from serank.utils.signals import stop_signals

    with stop_signals() as received, started(options.device) as device:
        result = _detect(options, device)
        if result.interrupted:
            return 128 + (received or [signal.SIGINT])[0]
    return 1 if result.failures else 0


def _detect(options: argparse.Namespace, device: str) -> BatchResult:
    from serank.inference import detect_files
    from serank.serankdet import SeRankDet
    from serank.utils.distributed import is_main, world_size

    frames = frame_options(options)  # refused before a network is loaded
    model = SeRankDet.from_pretrained(options.checkpoint, device=device).optimize()
    result = detect_files(
        model,
        options.paths,
        options.output,
        threshold=options.threshold,
        min_area=options.min_area,
        batch_size=options.batch_size,
        options=frames,
        pictures=not options.no_pictures,
        table=options.format,
        report=_Printer(quiet=options.quiet) if world_size() == 1 else None,
        progress=sys.stderr.isatty() and is_main() and not options.quiet,
    )
    if is_main() and not options.quiet:
        speed = result.frames / result.seconds if result.seconds else 0.0
        where = f"table {result.table}" if options.no_pictures else f"pictures and table in {options.output}"
        print(
            f"{result.frames} frames, {result.detections} detections, {result.failures} skipped, "
            f"{speed:.1f} frames/s; {where}"
        )
    if is_main() and result.interrupted:
        print("serank detect: interrupted; the table holds the finished frames", file=sys.stderr)
    return result


class _Printer:
    """Prints a line for each detection, above the progress bar, and one for each frame that is skipped."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.headed = False

    def __call__(self, record: Record) -> None:
        from tqdm import tqdm

        from serank.inference.tables import detection_rows

        if "reason" in record:
            tqdm.write(f"serank detect: skipped {record['reason']}", file=sys.stderr)
        if self.quiet:
            return
        for row in detection_rows(record):
            if not self.headed:
                tqdm.write(f"{'x':>7}  {'y':>7}  {'score':>5}  {'area':>5}  frame", file=sys.stdout)
                self.headed = True
            place = Path(row["frame"]).name + (f" {row['index']}" if row["index"] != "" else "")
            line = f"{row['x']:7.1f}  {row['y']:7.1f}  {row['score']:5.2f}  {row['area']:5d}  {place}"
            tqdm.write(line, file=sys.stdout)
