"""Measuring a detector on a data set."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from serank.datasets import Sample
from serank.detect import predict
from serank.metrics import DetectionMetrics
from serank.network import SeRankDet

__all__ = ["evaluate"]


def evaluate(
    model: SeRankDet,
    dataset: Sequence[Sample],
    *,
    threshold: float | None = None,
    max_distance: float = 3.0,
    progress: bool = False,
) -> dict[str, float]:
    """Metrics of `model` on `dataset` under the standard protocol, each frame at its own size.

    Args:
        model: run in eval mode; frames are prepared as by `SeRankDet.detect`.
        dataset: samples, such as `serank.datasets.FolderDataset`.
        threshold: probability in [0, 1] above which a pixel is target; `None` takes the checkpoint's.
        max_distance: pixels within which a detection's centroid must lie of a target's.
        progress: show a bar on standard error.

    Returns:
        What `DetectionMetrics.compute` gives.

    Raises:
        ValueError: an empty data set, or an argument out of its range.
        serank.errors.FrameError: a frame or mask that can't be read.
    """
    if len(dataset) == 0:
        raise ValueError("dataset is empty; expected at least one frame")
    metrics = DetectionMetrics(
        threshold=model.threshold if threshold is None else threshold,
        max_distance=max_distance,
    )
    for i in tqdm(range(len(dataset)), disable=not progress, unit="frame"):
        sample = dataset[i]
        probability = predict(model, [sample.frame], model.frame_spec, channels=model.in_channels)[0]
        metrics.update(probability, sample.mask)
    return metrics.compute()
