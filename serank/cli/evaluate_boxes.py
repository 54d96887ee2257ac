"""`serank evaluate --match boxes`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from serank.cli.options import frame_options, load_checkpoint
from serank.datasets import BoxFolder
from serank.evaluation import evaluate_boxes
from serank.utils.files import new_folder

REPORT = "report.json"


def add_boxes(parser: argparse.ArgumentParser) -> None:
    """Options of an evaluation by boxes."""
    group = parser.add_argument_group("boxes", "For a data set with boxes.json, as `serank import` writes it.")
    group.add_argument(
        "--match",
        choices=("masks", "boxes"),
        default="masks",
        help="measure by masks, or by boxes: a box is found when a detection's centroid lies in it",
    )
    group.add_argument(
        "--tolerance", type=float, metavar="PX", help="by which boxes are grown on each side (default: 0)"
    )


def check_boxes(options: argparse.Namespace) -> None:
    """Refuses options that don't go together, before anything is run."""
    if options.match == "masks":
        if options.tolerance is not None:
            raise ValueError("--tolerance is for --match boxes; --max-distance is what masks are matched by")
        return
    others = ("predictions", "targets", "resize", "budget", "budget_frame", "calibrate", "save", "no_overlays")
    usual = dict.fromkeys(others) | {"by": "threshold", "protocol": "standard", "resolution": "native"}
    usual["max_distance"] = 3.0
    if given := [name for name, value in usual.items() if (getattr(options, name) or None) != value]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{names}: not for --match boxes, which runs a checkpoint at the frames' own size; leave it out"
        )
    if options.root is None:
        raise ValueError("--match boxes needs ROOT, a folder with images/ and boxes.json")
    if options.output and (Path(options.output).exists() or not Path(options.output).absolute().parent.is_dir()):
        raise FileExistsError(f"{options.output}: --output must be a new folder in one that exists")


def measure_boxes(options: argparse.Namespace, device: str) -> None:
    """Runs a checkpoint, prints its figures and writes them to `report.json`."""
    frames = frame_options(options)  # refused before a network is loaded
    model = load_checkpoint(options, device)
    dataset = BoxFolder(options.root, options.split, options=frames.repaired(model.frame_spec.repair))
    result = evaluate_boxes(
        model.optimize(),
        dataset,
        threshold=options.threshold,
        tolerance=options.tolerance or 0.0,
        progress=sys.stderr.isatty(),
    )
    about = {"checkpoint": options.checkpoint, "device": device, "data": options.root}
    result = replace(result, about=about | ({"split": options.split} if options.split else {}))
    print(result)
    if options.output:
        with new_folder(options.output) as folder:
            (folder / REPORT).write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
        print(f"report {Path(options.output) / REPORT}")
