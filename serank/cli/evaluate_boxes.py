"""`serank evaluate --match boxes`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from serank.cli.options import about_checkpoint, frame_options, load_checkpoint, mention_lists
from serank.datasets.box_folder import BoxFolder
from serank.evaluation.by_boxes import BoxFrameView, evaluate_boxes, view_boxes
from serank.evaluation.report.box_writer import write_box_report
from serank.evaluation.report.folder import check_report_folder


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
    others = ("predictions", "targets", "resize", "budget", "budget_frame", "calibrate", "save")
    usual = dict.fromkeys(others) | {"by": "threshold", "protocol": "standard", "resolution": "native"}
    usual["max_distance"] = 3.0
    chosen = {name: getattr(options, name) for name in usual}
    if given := [name for name, value in chosen.items() if value is not False and value != usual[name]]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{names}: not for --match boxes, which runs a checkpoint at the frames' own size; leave it out"
        )
    if len(options.roots) != 1:
        raise ValueError("--match boxes needs one ROOT, a folder with images/ and boxes.json")
    if options.output:
        check_report_folder(options.output)


def measure_boxes(options: argparse.Namespace, device: str) -> None:
    """Runs a checkpoint, prints its figures and writes the report."""
    frames = frame_options(options)  # refused before a network is loaded
    model = load_checkpoint(options, device)
    dataset = BoxFolder(options.roots[0], options.split, options=frames.repaired(model.frame_spec.repair))
    mention_lists(options, len(dataset))
    network = model.optimize()
    result = evaluate_boxes(
        network,
        dataset,
        threshold=options.threshold,
        tolerance=options.tolerance or 0.0,
        progress=sys.stderr.isatty(),
    )
    print(result)
    if not options.output:
        return
    places = {name: i for i, name in enumerate(dataset.names)}

    def look(name: str) -> BoxFrameView:
        return view_boxes(network, dataset[places[name]], result.threshold)

    result = replace(result, about=about_checkpoint(options, model, device))
    print(f"report {write_box_report(result, options.output, look=look, overlays=not options.no_overlays)}")
