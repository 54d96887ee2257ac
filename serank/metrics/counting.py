"""What the metrics count in a frame: pixels, matched components, and the rates that follow from the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.metrics.checks import Protocol
from serank.metrics.components import ComponentTable, find_components

RATE_EPSILON = 1e-3  # pixels that the released code adds to the denominators of its rates
F1_EPSILON = 1e-5  # what the released code adds to precision + recall
IOU_UNIT = 2**64  # per-frame IoU is summed as an integer in units of 1 / IOU_UNIT: no order of frames changes it
DISTANCE_DIGITS = 9  # distances are rounded, so that float noise decides neither ties nor distances of max_distance

ROUNDS = 8


@dataclass(frozen=True)
class Counts:
    """What is counted over frames; all integers, so sums are exact in any order."""

    frames: int = 0
    pixels: int = 0
    true_positive: int = 0
    predicted: int = 0
    positive: int = 0
    iou_units: int = 0
    targets: int = 0
    detected: int = 0
    false_pixels: int = 0
    false_components: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class RocCurve(NamedTuple):
    """Pixel rates, each `(T,)` float64 in [0, 1], one value for each threshold."""

    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]


class PdFaCurve(NamedTuple):
    """Pd in [0, 1] and Fa in false pixels per pixel, each `(T,)` float64, one value for each threshold."""

    pd: NDArray[np.float64]
    fa: NDArray[np.float64]


class Match(NamedTuple):
    """A detected target: rows of its two component tables, and the distance of the centroids in px."""

    distance: float
    target: int
    prediction: int


class _Pairs(NamedTuple):
    """Distance, target and prediction of pairs, each `(N,)`."""

    distance: NDArray[np.float64]
    target: NDArray[np.int64]
    prediction: NDArray[np.int64]


def _candidates(
    predictions: ComponentTable, targets: ComponentTable, max_distance: float, protocol: Protocol
) -> _Pairs:
    """All pairs less than `max_distance` apart, in the order in which they are matched."""
    if not len(predictions) or not len(targets):
        return _Pairs(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    # imported here, since it takes longer to import than all the rest of serank
    from scipy.spatial import cKDTree

    # a little farther than any distance that rounds to less than max_distance, and no farther than the frame
    span = float(np.concatenate([predictions.centroids, targets.centroids]).max())
    reach = min(max_distance * (1 + 1e-9) + 1e-8, 2 * span + 1)
    tree = cKDTree(targets.centroids)
    found = tree.sparse_distance_matrix(cKDTree(predictions.centroids), reach, output_type="ndarray")
    target, prediction = found["i"], found["j"]
    offset = predictions.centroids[prediction] - targets.centroids[target]
    distance = np.sqrt(np.square(offset).sum(axis=1)).round(DISTANCE_DIGITS)
    near = np.flatnonzero(distance < max_distance)
    distance, target, prediction = distance[near], target[near], prediction[near]
    keys = (prediction, target, distance) if protocol == "standard" else (prediction, target)  # the last counts first
    order = np.lexsort(keys)
    return _Pairs(distance[order], target[order], prediction[order])


def _first(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where each value comes for the first time."""
    positions = np.arange(len(values))
    earliest = np.empty(int(values.max()) + 1, np.int64)
    earliest[values[::-1]] = positions[::-1]  # of several, the last assignment stays
    return np.asarray(earliest[values] == positions)


def _free_pairs(target: NDArray[np.int64], prediction: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the pairs that are taken when each, in order, is unless one of its two was taken before.

    In rounds, since frames of noise have 100,000 of them: a pair that is the first of both its target and its
    prediction is taken whatever else is. What is left after some rounds is decided one by one.
    """
    taken, left = [], np.arange(len(target))
    detected = np.zeros(int(target.max(initial=-1)) + 1, np.bool_)
    used = np.zeros(int(prediction.max(initial=-1)) + 1, np.bool_)
    for _ in range(ROUNDS):
        if not len(left):
            break
        sure = left[_first(target[left]) & _first(prediction[left])]
        taken.append(sure)
        detected[target[sure]] = used[prediction[sure]] = True
        left = left[~(detected[target[left]] | used[prediction[left]])]
    for pair in left:
        if not (detected[target[pair]] or used[prediction[pair]]):
            detected[target[pair]] = used[prediction[pair]] = True
            taken.append(np.array([pair]))
    return np.sort(np.concatenate(taken)) if taken else left


def match_components(
    predictions: ComponentTable, targets: ComponentTable, max_distance: float, protocol: Protocol
) -> list[Match]:
    """Matches the components of one frame, one to one.

    Args:
        predictions: predicted components.
        targets: components of the mask.
        max_distance: centroids of a match are less than this apart, px.
        protocol: `"standard"` takes the nearest pairs first, ties in scan order of the target, then of the prediction.
            `"released"` gives each target, in scan order, its first free prediction.

    Returns:
        The matches, in the order in which they were made.
    """
    pairs = _candidates(predictions, targets, max_distance, protocol)
    chosen = _free_pairs(pairs.target, pairs.prediction)
    return [Match(*pair) for pair in zip(*(values[chosen].tolist() for values in pairs), strict=True)]


def count_pixels(predicted: NDArray[np.bool_], target: NDArray[np.bool_], protocol: Protocol) -> Counts:
    """Counts of one frame that need no components."""
    both = int(np.count_nonzero(predicted & target))
    n_predicted, n_positive = int(np.count_nonzero(predicted)), int(np.count_nonzero(target))
    union = n_predicted + n_positive - both
    empty = IOU_UNIT if protocol == "standard" else 0
    return Counts(
        frames=1,
        pixels=target.size,
        true_positive=both,
        predicted=n_predicted,
        positive=n_positive,
        iou_units=both * IOU_UNIT // union if union else empty,
    )


def count_regions(
    predictions: ComponentTable, targets: ComponentTable, matches: Sequence[Match], protocol: Protocol
) -> Counts:
    """Counts of one frame's components, matched by `match_components`."""
    false = np.ones(len(predictions), dtype=np.bool_)
    false[[match.prediction for match in matches]] = False
    false_components = int(np.count_nonzero(false))
    if protocol == "released":
        # the released code compares areas, not components: one as large as any matched one is not counted
        false &= ~np.isin(predictions.areas, predictions.areas[~false])
    return Counts(
        targets=len(targets),
        detected=len(matches),
        false_pixels=int(predictions.areas[false].sum()),
        false_components=false_components,
    )


def count_frame(
    scores: NDArray[Any],
    target: NDArray[np.bool_],
    thresholds: Sequence[float],
    protocol: Protocol,
    max_distance: float | None,
) -> list[Counts]:
    """Counts of one frame at each threshold; those of pixels alone where `max_distance` is `None`."""
    targets = find_components(target) if max_distance is not None else None
    known: dict[int, Counts] = {}
    counted = []
    for threshold in thresholds:
        above = scores > threshold
        # masks of rising thresholds are nested: as many pixels are the same pixels
        number = int(np.count_nonzero(above))
        if number not in known:
            known[number] = count_pixels(above, target, protocol)
            if targets is not None and max_distance is not None:
                found = find_components(above)
                matches = match_components(found, targets, max_distance, protocol)
                known[number] += count_regions(found, targets, matches, protocol)
        counted.append(known[number])
    return counted


def ratio(numerator: float, denominator: float, empty: float = float("nan")) -> float:
    """The quotient, or `empty` where the denominator is 0."""
    return numerator / denominator if denominator else empty


def pooled_iou(counts: Counts, protocol: Protocol) -> float:
    """IoU of all pixels counted."""
    union = counts.predicted + counts.positive - counts.true_positive
    return ratio(counts.true_positive, union, empty=1.0 if protocol == "standard" else 0.0)


def mean_iou(counts: Counts) -> float:
    """Mean of the frames' IoU."""
    return counts.iou_units / (IOU_UNIT * counts.frames)


def pd_fa_rates(counts: Sequence[Counts]) -> PdFaCurve:
    """Pd and Fa at each threshold."""
    return PdFaCurve(
        np.array([ratio(c.detected, c.targets) for c in counts]),
        np.array([c.false_pixels / c.pixels for c in counts]),
    )


def roc_rates(counts: Sequence[Counts], protocol: Protocol) -> RocCurve:
    """True and false positive rates of pixels at each threshold."""
    epsilon = RATE_EPSILON if protocol == "released" else 0.0
    return RocCurve(
        np.array([ratio(c.true_positive, c.positive + epsilon) for c in counts]),
        np.array([ratio(c.predicted - c.true_positive, c.pixels - c.positive + epsilon) for c in counts]),
    )


def _precision_recall_f1(counts: Counts, protocol: Protocol) -> tuple[float, float, float]:
    released = protocol == "released"
    epsilon = RATE_EPSILON if released else 0.0
    precision = ratio(counts.true_positive, counts.predicted + epsilon)
    recall = ratio(counts.true_positive, counts.positive + epsilon)
    if released:
        return precision, recall, 2 * precision * recall / (precision + recall + F1_EPSILON)
    return precision, recall, ratio(2 * counts.true_positive, counts.predicted + counts.positive, empty=1.0)


def summary(counts: Counts, protocol: Protocol) -> dict[str, float]:
    """The metrics that `DetectionMetrics.compute` gives, and its errors."""
    if counts.frames == 0:
        raise ValueError("no frames to measure: call update() before compute()")
    precision, recall, f1 = _precision_recall_f1(counts, protocol)
    return {
        "iou": pooled_iou(counts, protocol),
        "niou": mean_iou(counts),
        "pd": ratio(counts.detected, counts.targets),
        "fa": counts.false_pixels / counts.pixels,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "false_components": counts.false_components / counts.frames,
        "frames": counts.frames,
        "targets": counts.targets,
    }
