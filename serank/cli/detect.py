"""`serank detect`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serank.cli.options import add_frame_options, add_model, add_tta, frame_options

if TYPE_CHECKING:
    from serank.inference.batch import BatchResult
    from serank.inference.table_formats import Record

DETAILS = (
    "Writes a picture with boxes for each frame and one table of all detections. A frame that can't be read is "
    "reported and skipped, and the exit status is then 1. Every page of a TIFF file is a frame. A score is the peak "
    "probability of a detection or, with a calibrated checkpoint, how often such detections are true. Several "
    "processes or machines share the work: torchrun --nproc-per-node=N -m serank detect ..."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, videos, and folders of them")
    parser.add_argument("--recursive", action="store_true", help="look into sub-folders too")
    add_model(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability in [0, 1] above which a pixel is target (default: the checkpoint's)",
    )
    add_tta(parser)
    parser.add_argument("--min-area", type=int, default=1, metavar="PX", help="smallest detection kept")
    parser.add_argument("--min-score", type=float, default=0.0, metavar="S", help="least score kept, in [0, 1]")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="frames that are run at once")
    add_frame_options(parser)
    parser.add_argument(
        "--probability",
        metavar="DIR",
        help="write the probability of each frame there as 8-bit grey PNG, for --predictions of serank evaluate and "
        "--soft-targets of serank train",
    )
    parser.add_argument(
        "--masks", metavar="DIR", help="write the mask of each frame there, of the detections kept: PNG of 0 and 255"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="run each N-th frame of videos and other files of several frames",
    )
    parser.add_argument("--track", action="store_true", help="number detections by the moving target they belong to")
    parser.add_argument(
        "--confirm",
        type=_confirmation,
        metavar="M/N",
        help="leave out what was not seen in M of the last N frames, such as 3/5: false alarms that come and go",
    )
    parser.add_argument(
        "--max-distance",
        type=float,
        metavar="PX",
        help="farthest that a tracked target moves between two frames that are run, so more with --every (default: 10)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write the table alone")
    parser.add_argument(
        "--video", metavar="FILE", help="draw into this video (.mp4, .mkv, .mov, .avi) instead of one picture a frame"
    )
    parser.add_argument("--output", default="detections", metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--format",
        choices=("json", "jsonl", "csv", "coco", "yolo"),
        default="json",
        help="of the table: one file, or for yolo a folder of label files",
    )
    parser.add_argument("--quiet", action="store_true", help="print warnings, skipped frames and errors alone")


def _confirmation(text: str) -> tuple[int, int]:
    """`M/N` as numbers."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not M/N with 1 <= M <= N, such as 3/5")
    return int(found[1]), int(found[2])


def run(options: argparse.Namespace) -> int:
    from serank.utils.distributed import started
    from serank.utils.signals import INTERRUPTED

    with started(options.device) as device:
        result = _detect(options, device)
    return INTERRUPTED if result.interrupted else int(result.failures > 0)


def _detect(options: argparse.Namespace, device: str) -> BatchResult:
    from serank.inference.batch import write_detections
    from serank.serankdet import SeRankDet
    from serank.utils.distributed import is_main, world_size

    tracks = options.track or options.confirm is not None
    if options.max_distance is not None and not tracks:
        raise ValueError("--max-distance is for --track and --confirm, which follow targets")
    frames = frame_options(options)  # refused before a network is loaded
    model = SeRankDet.from_pretrained(options.checkpoint, device=device).optimize()
    result = write_detections(
        model,
        options.paths,
        options.output,
        threshold=options.threshold,
        tta=options.tta,
        min_area=options.min_area,
        min_score=options.min_score,
        probability=options.probability,
        masks=options.masks,
        batch_size=options.batch_size,
        every=options.every,
        track=options.track,
        confirm=options.confirm,
        max_distance=10.0 if options.max_distance is None else options.max_distance,
        options=frames,
        pictures=not options.no_pictures,
        video=options.video,
        table=options.format,
        recursive=options.recursive,
        report=_Printer(quiet=options.quiet, tracks=tracks) if world_size() == 1 else None,
        progress=sys.stderr.isatty() and is_main() and not options.quiet,
    )
    if is_main() and not options.quiet:
        speed = result.frames / result.seconds if result.seconds else 0.0
        where = f"pictures and table in {options.output}"
        if result.video is not None:
            where = f"video {result.video}, table {result.table}"
        elif options.no_pictures:
            where = f"table {result.table}"
        print(
            f"{result.frames} frames, {result.detections} detections, {result.failures} skipped, "
            f"{speed:.1f} frames/s; {where}"
        )
    if is_main() and result.interrupted:
        print("serank detect: interrupted; the table holds the finished frames", file=sys.stderr)
    return result


class _Printer:
    """Prints a line for each detection, above the progress bar, and one for each frame that is skipped."""

    def __init__(self, *, quiet: bool, tracks: bool) -> None:
        self.quiet = quiet
        self.tracks = tracks
        self.headed = False

    def __call__(self, record: Record) -> None:
        from tqdm import tqdm

        from serank.inference.table_formats import detection_rows

        if "reason" in record:
            tqdm.write(f"serank detect: skipped {record['reason']}", file=sys.stderr)
        if self.quiet:
            return
        for row in detection_rows(record):
            if not self.headed:
                track = "  track" if self.tracks else ""
                tqdm.write(f"{'x':>7}  {'y':>7}  {'score':>5}  {'area':>5}{track}  frame", file=sys.stdout)
                self.headed = True
            place = Path(row["frame"]).name + (f" {row['index']}" if row["index"] != "" else "")
            track = f"  {row['track']:5d}" if self.tracks else ""
            line = f"{row['x']:7.1f}  {row['y']:7.1f}  {row['score']:5.2f}  {row['area']:5d}{track}  {place}"
            tqdm.write(line, file=sys.stdout)
