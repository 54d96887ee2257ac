"""What the metrics count in a frame: pixels, matched components, and the rates that follow from the sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.metrics.checks import Protocol
from serank.metrics.components import ComponentTable, find_components

__all__ = [
    "IOU_UNIT",
    "RATE_EPSILON",
    "Counts",
    "Match",
    "count_components",
    "count_pixels",
    "count_regions",
    "match_components",
    "pooled_iou",
    "ratio",
    "summary",
]

RATE_EPSILON = 1e-3  # pixels that the released code adds to the denominators of its rates
F1_EPSILON = 1e-5  # what the released code adds to precision + recall
IOU_UNIT = 2**64  # per-frame IoU is summed as an integer in units of 1 / IOU_UNIT: no order of frames changes it
DISTANCE_DIGITS = 9  # distances are rounded, so that float noise decides neither ties nor distances of max_distance
FEW_PAIRS = 2**16  # up to this many pairs of components, all distances take less time than a search tree
CHUNK = 2**14  # targets searched at once


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


class Match(NamedTuple):
    """A detected target: rows of its two component tables, and the distance of the centroids in px."""

    distance: float
    target: int
    prediction: int


def _candidates(
    predictions: ComponentTable, targets: ComponentTable, max_distance: float
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]]:
    """Distance, target and prediction of all pairs less than `max_distance` apart, in scan order, in parts."""
    if not len(predictions) or not len(targets):
        return
    if len(predictions) * len(targets) <= FEW_PAIRS:
        places = np.indices((len(targets), len(predictions))).reshape(2, -1)
        yield _near(predictions, targets, places[0], places[1], max_distance)
        return
    # imported here, since it takes longer to import than all the rest of serank
    from scipy.spatial import cKDTree

    tree = cKDTree(predictions.centroids)
    # a little farther than any distance that rounds to less than max_distance, and no farther than the frame
    span = float(np.concatenate([predictions.centroids, targets.centroids]).max())
    reach = min(max_distance * (1 + 1e-9) + 1e-8, 2 * span + 1)
    for start in range(0, len(targets), CHUNK):
        chunk = cKDTree(targets.centroids[start : start + CHUNK])
        found = chunk.sparse_distance_matrix(tree, reach, output_type="ndarray")
        found = found[np.lexsort((found["j"], found["i"]))]
        yield _near(predictions, targets, found["i"] + start, found["j"], max_distance)


def _near(
    predictions: ComponentTable,
    targets: ComponentTable,
    target: NDArray[np.intp],
    prediction: NDArray[np.intp],
    max_distance: float,
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Distance, target and prediction of those pairs that are less than `max_distance` apart."""
    offset = predictions.centroids[prediction] - targets.centroids[target]
    distance = np.sqrt(np.square(offset).sum(axis=1)).round(DISTANCE_DIGITS)
    near = distance < max_distance
    return distance[near], target[near], prediction[near]


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
    pairs = _candidates(predictions, targets, max_distance)
    if protocol == "standard" and (chunks := list(pairs)):
        distance, target, prediction = (np.concatenate(part) for part in zip(*chunks, strict=True))
        order = np.argsort(distance, kind="stable")  # equal distances stay in scan order
        pairs = iter([(distance[order], target[order], prediction[order])])
    detected = [False] * len(targets)
    taken = [False] * len(predictions)
    matches = []
    for chunk in pairs:
        for d, t, p in zip(*(part.tolist() for part in chunk), strict=True):
            if not (detected[t] or taken[p]):
                detected[t] = taken[p] = True
                matches.append(Match(d, t, p))
    return matches


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


def count_components(
    predicted: NDArray[np.bool_], targets: ComponentTable, max_distance: float, protocol: Protocol
) -> Counts:
    """Counts of one frame's components: those of the mask `predicted` `(H, W)`, matched with `targets`."""
    predictions = find_components(predicted)
    matches = match_components(predictions, targets, max_distance, protocol)
    return count_regions(predictions, targets, matches, protocol)


def ratio(numerator: float, denominator: float, empty: float = float("nan")) -> float:
    """The quotient, or `empty` where the denominator is 0."""
    return numerator / denominator if denominator else empty


def pooled_iou(counts: Counts, protocol: Protocol) -> float:
    """IoU of all pixels counted."""
    union = counts.predicted + counts.positive - counts.true_positive
    return ratio(counts.true_positive, union, empty=1.0 if protocol == "standard" else 0.0)


def _precision_recall_f1(counts: Counts, protocol: Protocol) -> tuple[float, float, float]:
    if protocol == "released":
        precision = counts.true_positive / (counts.predicted + RATE_EPSILON)
        recall = counts.true_positive / (counts.positive + RATE_EPSILON)
        return precision, recall, 2 * precision * recall / (precision + recall + F1_EPSILON)
    precision = ratio(counts.true_positive, counts.predicted)
    recall = ratio(counts.true_positive, counts.positive)
    return precision, recall, ratio(2 * counts.true_positive, counts.predicted + counts.positive, empty=1.0)


def summary(counts: Counts, protocol: Protocol) -> dict[str, float]:
    """The metrics that `DetectionMetrics.compute` gives.

    Raises:
        ValueError: no frame was counted.
    """
    if counts.frames == 0:
        raise ValueError("no frames to measure: call update() before compute()")
    precision, recall, f1 = _precision_recall_f1(counts, protocol)
    return {
        "iou": pooled_iou(counts, protocol),
        "niou": counts.iou_units / (IOU_UNIT * counts.frames),
        "pd": ratio(counts.detected, counts.targets),
        "fa": counts.false_pixels / counts.pixels,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "false_components": counts.false_components / counts.frames,
        "frames": counts.frames,
        "targets": counts.targets,
    }
