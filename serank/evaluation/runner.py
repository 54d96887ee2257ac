"""Measuring a detector on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn
from tqdm import tqdm

from serank.datasets.masks import resize_mask
from serank.datasets.sample import Sample, check_samples
from serank.evaluation.evaluator import Evaluator
from serank.evaluation.resolution import Resolution, check_resolution
from serank.evaluation.results import Evaluation
from serank.frames.preparation import resize
from serank.inference.detector import Detector, predict
from serank.metrics.checks import Protocol
from serank.utils.distributed import all_objects, is_main, rank, world_size


class EvaluateOptions(TypedDict, total=False):
    """Keywords of `evaluate` that other functions hand on to it."""

    max_distance: float
    protocol: Protocol
    resolution: Resolution
    tta: int | None
    progress: bool


def predict_sample(
    model: Detector, sample: Sample, resolution: Resolution = "native", *, tta: int | None = None
) -> tuple[Sample, NDArray[np.float32]]:
    """A sample as it is measured, and the target probability of its pixels, float32 in [0, 1], of one shape.

    `"native"` leaves the sample as it is; the model scales, tiles and scales back as in `SeRankDet.detect`. A side
    S >= 32 px resizes the frame to S x S bilinearly and the mask by nearest, whatever the frame's proportions, as the
    released code does, and runs the model, in eval mode, on exactly that. `tta` is as for `SeRankDet.detect`. The
    probability is 0 where the sample is hidden.
    """
    resolution = check_resolution(resolution)
    spec = model.frame_spec
    hidden = sample.hidden
    if resolution != "native":
        side = resolution
        sample = Sample(sample.name, resize(sample.frame, side, side), resize_mask(sample.mask, side, side))
        hidden = None if hidden is None else resize_mask(hidden, side, side)
        spec = replace(spec, working_size=None, tile=max(spec.tile, side))
    network, orientations = cast(nn.Module, model), model.tta if tta is None else tta
    probability = predict(network, [sample.frame], spec, channels=model.in_channels, tta=orientations)[0]
    return sample, probability if hidden is None else np.where(hidden, np.float32(0), probability)


def evaluate(
    model: Detector,
    dataset: Sequence[Sample],
    *,
    threshold: float | None = None,
    max_distance: float = 3.0,
    protocol: Protocol = "standard",
    resolution: Resolution = "native",
    tta: int | None = None,
    curves: bool = True,
    thresholds: ArrayLike | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measures `model` on `dataset`: metrics of the set, of each frame and each target, and curves.

    In a run of several processes (`torchrun`) each of them must call this with the same arguments. It measures every
    n-th frame, and all of them return the same result: that of a single process, for any number of frames.

    Args:
        model: run in eval mode as it is; `SeRankDet.optimize` makes a faster copy with the same results to rounding.
        dataset: samples, such as `serank.datasets.FolderDataset`.
        threshold: probability in [0, 1] above which a pixel is target; `None` takes the checkpoint's.
        max_distance: pixels within which a detection's centroid must lie of a target's, > 0.
        protocol: `"standard"` or `"released"`, see `serank.metrics`.
        resolution: `"native"` or the side of the square to which frames and masks are resized, see `predict_sample`.
            Published tables of this field are mostly `protocol="released"` at 512 or 256.
        tta: as for `SeRankDet.detect`; `None` takes the checkpoint's.
        curves: count ROC and Pd-Fa curves too, which takes longer.
        thresholds: `(T,)` in [0, 1], of the curves; `None` means `serank.evaluation.DEFAULT_THRESHOLDS`.
        progress: show a bar on standard error.

    Returns:
        The results; `metrics` holds those of the whole set.

    Raises:
        TypeError: `dataset` is no sequence of samples, or `model` has not what a `Detector` needs.
        ValueError: an empty data set, or an argument out of its range.
        serank.errors.FrameError: a frame or mask that can't be read.
        RuntimeError: another process failed; names it and its reason.
    """
    check_samples(dataset, "dataset")
    _check_model(model)
    resolution = check_resolution(resolution)
    evaluator = Evaluator(
        model.threshold if threshold is None else threshold,
        max_distance,
        protocol,
        curves=curves,
        thresholds=thresholds,
        score_calibration=model.score_calibration,
    )
    failure: Exception | None = None
    try:
        for i in tqdm(range(rank(), len(dataset), world_size()), disable=not progress or not is_main(), unit="frame"):
            sample, probability = predict_sample(model, dataset[i], resolution, tta=tta)
            evaluator.update(sample.name, probability, sample.mask, sample.frame, position=i)
    except Exception as error:
        failure = error
    return _merge_processes(evaluator, failure).result(resolution=resolution)


def _check_model(model: Any) -> None:
    needed = ("frame_spec", "in_channels", "threshold", "tta", "score_calibration")
    missing = [name for name in needed if not hasattr(model, name)]
    if missing:
        raise TypeError(
            f"model must be a SeRankDet, a copy by its optimize(), or another serank.inference.Detector; "
            f"got {type(model).__name__} without {', '.join(missing)}"
        )


def _merge_processes(evaluator: Evaluator, failure: Exception | None) -> Evaluator:
    """Merges the counts of all processes; where one failed, all of them raise, so that none waits for it forever."""
    reason = f"{type(failure).__name__}: {failure}" if failure else None
    parts = all_objects((evaluator, reason))
    if failure is not None:
        raise failure
    for number, (_, why) in enumerate(parts):
        if why is not None:
            raise RuntimeError(f"evaluation stopped: process {number} failed with {why}")
    merged = parts[0][0]
    for part, _ in parts[1:]:
        merged.merge(part)
    return merged
