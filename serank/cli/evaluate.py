"""`serank evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from serank.checkpoints.card import short_card
from serank.checkpoints.folder import read_card
from serank.cli.evaluate_boxes import add_boxes, check_boxes, measure_boxes
from serank.cli.options import (
    DEFAULT_CHECKPOINT,
    about_checkpoint,
    add_frame_options,
    add_model,
    add_preparation,
    add_tta,
    frame_options,
    frames_given,
    load_checkpoint,
    mention_lists,
    preparation,
    print_metrics,
)
from serank.datasets.folder import FolderDataset
from serank.datasets.masks import POLARITY
from serank.datasets.sample import JoinedSamples, Sample
from serank.evaluation.calibration import calibrate_scores, pick_score
from serank.evaluation.predictions import PredictionFolder
from serank.evaluation.report.folder import check_report_folder
from serank.evaluation.report.writer import write_report
from serank.evaluation.resolution import Resolution, check_resolution
from serank.evaluation.results import Evaluation, FrameView
from serank.evaluation.runner import EvaluateOptions, evaluate, predict_sample
from serank.evaluation.threshold import choose_threshold
from serank.frames.options import FrameOptions
from serank.metrics.checks import Protocol
from serank.serankdet import SeRankDet
from serank.utils.distributed import is_main, started
from serank.utils.files import writable_folder

FALSE_NEEDED = 5
"""Fewer false detections than this are too few to calibrate by."""
DETAILS = (
    "Give ROOT to run a checkpoint, or --predictions and --targets to score maps or masks that some program wrote. "
    "Missing, extra and resized predictions are listed on standard error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "roots",
        nargs="*",
        metavar="ROOT",
        help="folder of the data set, with images/ and masks/; several, one after the other, are measured as one set",
    )
    parser.add_argument(
        "--split", metavar="NAME", help="sub-folder, or list by name or path, such as val (default: all frames)"
    )
    parser.add_argument(
        "--predictions", metavar="DIR", help="folder of maps or masks: PNG, BMP, TIFF, NPY or MAT, named as the frames"
    )
    parser.add_argument("--targets", metavar="DIR", help="data set or folder of masks to score --predictions against")
    parser.add_argument("--resize", action="store_true", help="resize predictions of a wrong size, and list them")
    add_model(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability in [0, 1] (default: the checkpoint's; 0.5 for --predictions)",
    )
    parser.add_argument(
        "--max-distance",
        type=float,
        default=3.0,
        metavar="PX",
        help="a detection nearer than this matches",
    )
    parser.add_argument(
        "--protocol", choices=get_args(Protocol), default="standard", help="how to count, see the documentation"
    )
    parser.add_argument(
        "--resolution",
        type=_resolution,
        default="native",
        metavar="N",
        help="native, or side of the square to which frames and masks are resized, such as 512 or 256",
    )
    add_preparation(parser, "the checkpoint's", "the checkpoint's")
    add_tta(parser)
    add_frame_options(parser)
    budgets = parser.add_mutually_exclusive_group()
    budgets.add_argument(
        "--budget",
        type=float,
        metavar="FA",
        help="choose the threshold with the most detections at not more than FA false pixels per pixel",
    )
    budgets.add_argument(
        "--budget-frame", type=float, metavar="N", help="the same with at most N false components per frame"
    )
    parser.add_argument(
        "--by",
        choices=("threshold", "score"),
        default="threshold",
        help="what a budget chooses: the threshold, or the least score of detections, for --min-score of serank detect",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit the scores of detections to the share that is true, on frames the network was not trained on",
    )
    parser.add_argument(
        "--save", metavar="DIR", help="save the checkpoint with the threshold that was chosen and the calibrated scores"
    )
    parser.add_argument("--output", metavar="DIR", help="write a report there: page, JSON, CSV and pictures")
    parser.add_argument("--no-overlays", action="store_true", help="leave the picture of every frame out of the report")
    add_boxes(parser)


def _resolution(text: str) -> Resolution:
    try:
        return check_resolution(int(text) if text.isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options: argparse.Namespace) -> int:
    check_boxes(options)
    if options.match == "masks":
        _check(options)
    # under torchrun every process measures its share, and the first one prints and writes
    if options.output is not None:  # made beside its folder and then moved there
        writable_folder(Path(options.output).absolute().parent)
    if options.save is not None:
        save = Path(options.save).absolute()
        writable_folder(save if save.is_dir() else save.parent)
    with started(options.device) as device:
        if options.match == "boxes":
            if is_main():
                measure_boxes(options, device)
        elif options.predictions is None:
            _measure(options, device)
        elif is_main():
            _score(options)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses options that don't go together, before anything is run."""
    budget = options.budget is not None or options.budget_frame is not None
    if (not options.roots) == (options.predictions is None):
        raise ValueError("give either ROOT, to run a checkpoint, or --predictions with --targets")
    if (options.predictions is None) != (options.targets is None):
        raise ValueError("--predictions and --targets belong together")
    if options.predictions is not None and (budget or options.save or options.calibrate or options.tta):
        raise ValueError(
            "--budget, --budget-frame, --calibrate, --tta and --save need a checkpoint; --predictions has none"
        )
    if options.resize and options.predictions is None:
        raise ValueError("--resize is for --predictions")
    by_score = options.by == "score"
    if by_score and not budget:
        raise ValueError("--by score needs --budget or --budget-frame, by which a score is chosen")
    if options.save and not options.calibrate and (not budget or by_score):
        raise ValueError(
            "--save needs --calibrate, or --budget or --budget-frame, by which a threshold is chosen (--by threshold)"
        )
    if budget and not by_score and options.threshold is not None:
        raise ValueError("--threshold and a budget exclude each other: the budget chooses the threshold")
    if options.calibrate and options.threshold is not None:
        raise ValueError("--threshold and --calibrate exclude each other: the checkpoint's own makes the detections")
    if options.predictions is not None and (frames := frames_given(options)):
        raise ValueError(f"{', '.join(frames)} is for a checkpoint; --predictions has none")
    if given := preparation(options):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        if options.predictions is not None:
            raise ValueError(f"{names} is for a checkpoint; --predictions has none")
        if options.resolution != "native":
            raise ValueError(
                f"{names} is for --resolution native: at {options.resolution} frames have that size and are not tiled; "
                "leave one of them out"
            )
    if options.predictions is not None and (options.checkpoint != DEFAULT_CHECKPOINT or options.device != "auto"):
        raise ValueError("--checkpoint and --device run a network; --predictions holds what one has found already")
    if options.output:
        check_report_folder(options.output)
        report = Path(options.output).resolve()
        if options.save and report in (Path(options.save).resolve(), *Path(options.save).resolve().parents):
            raise ValueError(
                f"--save {options.save!r} lies in the folder of the report, --output {options.output!r}, which holds "
                "nothing else; choose another folder"
            )


def _measure(options: argparse.Namespace, device: str) -> None:
    """Runs a checkpoint."""
    frames = frame_options(options)
    model = load_checkpoint(options, device)
    dataset = _data_set(options, frames.repaired(model.frame_spec.repair))
    if is_main():
        mention_lists(options, len(dataset))
    by_budget = options.budget is not None or options.budget_frame is not None
    notes = [_choose(options, model, dataset)] if by_budget and options.by == "threshold" else []
    notes += [_calibrate(options, model, dataset)] if options.calibrate else []
    if options.save and is_main():
        own = read_card(options.checkpoint) or short_card()
        model.save_pretrained(options.save, card="\n\n".join([own.rstrip(), *notes]))
        print(f"checkpoint {options.save}")
    network = model.optimize()
    result = evaluate(network, dataset, threshold=options.threshold, **_measuring(options))
    if not is_main():
        return
    places = {frame.name: i for i, frame in enumerate(result.frames)}

    def look(name: str) -> FrameView:
        sample, probability = predict_sample(network, dataset[places[name]], options.resolution)
        return FrameView(sample.frame, probability, sample.mask)

    if by_budget and options.by == "score":
        _print_score(options, result)
    _finish(options, result, about_checkpoint(options, model, device), look, model)


def _data_set(options: argparse.Namespace, frames: FrameOptions) -> FolderDataset | JoinedSamples:
    """The data set; of several the names of frames begin with that of their folder."""
    if len({Path(root).resolve() for root in options.roots}) < len(options.roots):
        raise ValueError(f"ROOT names a folder twice: {', '.join(options.roots)}; name each once")
    sets = [FolderDataset(root, options.split, options=frames) for root in options.roots]
    if len(sets) == 1:
        return sets[0]
    return JoinedSamples(sets, _labels(options.roots))


def _labels(roots: Sequence[str]) -> list[str]:
    """The last folders of each path, as many as tell them apart."""
    parts = [Path(root).resolve().parts for root in roots]
    for count in range(1, max(map(len, parts))):
        found = ["/".join(part[-count:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    return list(roots)


def _measuring(options: argparse.Namespace) -> EvaluateOptions:
    """How detections are matched and counted."""
    return {
        "max_distance": options.max_distance,
        "protocol": options.protocol,
        "resolution": options.resolution,
        "progress": sys.stderr.isatty(),
    }


def _oddities(result: Evaluation) -> list[str]:
    """What makes the figures of a set questionable."""
    found = []
    if not result.targets:
        found.append(f"no mask holds a target: Pd is undefined; {POLARITY}")
    inverted = [f.name for f in result.frames if f.target_pixels > f.height * f.width / 2]
    if inverted:
        found.append(f"more than half of the mask is target in {len(inverted)} frames, {inverted[0]} first; inverted?")
    if full := [f.name for f in result.frames if f.predicted_pixels > f.height * f.width / 2]:
        found.append(f"more than half of the map is predicted in {len(full)} frames, {full[0]} first; inverted?")
    return found


def _choose(options: argparse.Namespace, model: SeRankDet, dataset: Sequence[Sample]) -> str:
    """Gives the model the threshold of the budget; returns the note for its card."""
    choice = choose_threshold(model.optimize(), dataset, **_budget(options), **_measuring(options))
    model.threshold = choice.threshold
    if is_main():
        print(f"threshold {choice.threshold:.7g} chosen")
    count, per = _budget(options).values()
    budget = f"{count:g} " + ("false pixels per pixel" if per == "pixel" else "false components a frame")
    return (
        f"## Threshold of this copy\n\n{choice.threshold:.7g}, chosen on {_data(options)} for at most {budget}: "
        f"Pd {choice.pd:.4f}, Fa {choice.fa * 1e6:.2f}e-6, {choice.false_components:.3f} false components a frame "
        f"there ({options.protocol} protocol, resolution {options.resolution}). Figures above are at other "
        "thresholds.\n"
    )


def _calibrate(options: argparse.Namespace, model: SeRankDet, dataset: Sequence[Sample]) -> str:
    """Calibrates the scores of the model; returns the note for its card."""
    found = calibrate_scores(model.optimize(), dataset, **_measuring(options))
    model.score_calibration = found.calibration
    text = (
        f"on {found.detections} detections, {found.false} of them false: expected calibration error "
        f"{found.ece_before:.3f} of the peak probabilities, {found.ece_after:.3f} of the scores, each half of the "
        "frames by a fit on the other"
    )
    if is_main():
        print(f"scores calibrated {text}")
        if found.false < FALSE_NEEDED or found.ece_after > found.ece_before:
            print(
                f"serank evaluate: warning: a calibration by {found.false} false detections, with an error of "
                f"{found.ece_after:.3f} after {found.ece_before:.3f}, says little; take more frames, or leave "
                "--calibrate out",
                file=sys.stderr,
            )
    return (
        f"## Scores of this copy\n\nOf detections with score s a share s is true, as fitted on {_data(options)} "
        f"{text}. In frames of another kind it may be another share.\n"
    )


def _budget(options: argparse.Namespace) -> dict[str, Any]:
    """The budget as arguments of `choose_threshold` and `pick_score`."""
    if options.budget is not None:
        return {"false_alarms": options.budget, "per": "pixel"}
    return {"false_alarms": options.budget_frame, "per": "frame"}


def _print_score(options: argparse.Namespace, result: Evaluation) -> None:
    """Prints the least score that meets the budget, and what it gives."""
    choice = pick_score(result, **_budget(options))
    score = f"score {choice.min_score:.9g} chosen (serank detect --min-score {choice.min_score:.9g})"
    print(
        f"{score if choice.min_score else 'no least score needed for this budget'}: Pd {choice.pd:.4f}, "
        f"Fa {choice.fa * 1e6:.2f}e-6, false components {choice.false_components:.3f} a frame; without it:"
    )


def _data(options: argparse.Namespace) -> str:
    return ", ".join([*_labels(options.roots), *([Path(options.split).name] if options.split else [])])


def _score(options: argparse.Namespace) -> None:
    """Scores what another program wrote."""
    folder = PredictionFolder(
        options.predictions,
        options.targets,
        split=options.split,
        resolution=options.resolution,
        resize=options.resize,
    )
    result = folder.score(
        threshold=0.5 if options.threshold is None else options.threshold,
        max_distance=options.max_distance,
        protocol=options.protocol,
        progress=sys.stderr.isatty(),
    )
    about = {"predictions": options.predictions, "data": options.targets}
    _finish(options, result, about | ({"split": options.split} if options.split else {}), folder.load)


def _finish(
    options: argparse.Namespace,
    result: Evaluation,
    about: dict[str, str],
    look: Callable[[str], FrameView],
    model: SeRankDet | None = None,
) -> None:
    """Prints the figures and the problems, and writes the report."""
    result = replace(result, about=about)
    print_metrics(result.metrics)
    more = [] if result.curves is None else [f"AUC {result.curves.auc:.4f}"]
    if empty := result.metrics["empty_frames"]:
        number = result.metrics["empty_false_components"]
        more.append(f"false components {number:.3f} a target-free frame ({empty:.0f} of them)")
    if result.score_quality is not None:
        more.append(f"calibration error of scores {result.score_quality.ece:.3f}")
    print("  ".join(more))
    for problem in [*_oddities(result), *result.problems]:
        print(f"serank evaluate: {problem}", file=sys.stderr)
    if options.output:
        page = write_report(result, options.output, look=look, model=model, overlays=not options.no_overlays)
        print(f"report {page}")
