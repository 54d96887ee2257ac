"""Metrics of infrared small target detection: IoU, nIoU, Pd, Fa, pixel ROC and Pd-Fa curves.

A pixel is predicted where probability > threshold and is target where target > 0.5; targets are 8-connected
components. There are two protocols. `"standard"` is the definition, with one-to-one matching, nearest pairs
first. `"released"` repeats the arithmetic of the code released with Dai et al., "Pick of the Bunch", IEEE
TGRS 2024, which many papers share, for comparing with published tables; each function says where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serank.metrics.checks import (
    Frames,
    Protocol,
    check_distance,
    check_protocol,
    check_thresholds,
    checked_frames,
)
from serank.metrics.components import find_components
from serank.metrics.counting import IOU_UNIT, RATE_EPSILON, Counts, count_components, count_pixels, pooled_iou, ratio
from serank.utils.checks import check_threshold

__all__ = ["PdFaCurve", "RocCurve", "iou", "niou", "pd_fa", "pd_fa_curve", "roc"]


class RocCurve(NamedTuple):
    """Pixel rates, each `(T,)` float64 in [0, 1], one value for each threshold."""

    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]


class PdFaCurve(NamedTuple):
    """Pd in [0, 1] and Fa in false pixels per pixel, each `(T,)` float64, one value for each threshold."""

    pd: NDArray[np.float64]
    fa: NDArray[np.float64]


def iou(probability: Frames, target: Frames, threshold: float = 0.5, protocol: Protocol = "standard") -> float:
    """Intersection over union of target pixels, counted over the whole set.

    Args:
        probability: target probability in [0, 1], `(H, W)`, `(N, H, W)` or `(N, 1, H, W)`, an array or a
            tensor, or a list of these for frames of different sizes. `(H, W, 1)` is refused, and so are
            masked arrays with masked pixels.
        target: masks of the same frames, true where > 0.5 (so 0/1 and 0/255 both work).
        threshold: a pixel is predicted where its probability is above this, in [0, 1].
        protocol: what a set with neither a target nor a predicted pixel gives: 1 (`"standard"`) or 0
            (`"released"`).

    Returns:
        IoU in [0, 1].

    Raises:
        ValueError: shapes differ or are none of the above, probability is not in [0, 1], another argument is
            out of its range, or there is no frame.
    """
    check_protocol(protocol)
    threshold = check_threshold(threshold)
    total = _total(count_pixels(p > threshold, t, protocol) for p, t in checked_frames(probability, target))
    return pooled_iou(total, protocol)


def niou(probability: Frames, target: Frames, threshold: float = 0.5, protocol: Protocol = "standard") -> float:
    """Mean of the IoU of each frame.

    Args:
        probability: as for `iou`.
        target: as for `iou`.
        threshold: as for `iou`.
        protocol: what a frame with neither a target nor a predicted pixel counts: 1 (`"standard"`) or 0
            (`"released"`).

    Returns:
        nIoU in [0, 1].

    Raises:
        ValueError: as `iou`.
    """
    check_protocol(protocol)
    threshold = check_threshold(threshold)
    total = _total(count_pixels(p > threshold, t, protocol) for p, t in checked_frames(probability, target))
    return total.iou_units / (IOU_UNIT * total.frames)


def pd_fa(
    probability: Frames,
    target: Frames,
    threshold: float = 0.5,
    max_distance: float = 3.0,
    protocol: Protocol = "standard",
) -> tuple[float, float]:
    """Probability of detection and false alarm rate.

    A target (8-connected component of the mask) is detected when the centroid of a predicted component lies
    less than `max_distance` from its own. Each component takes part in one match at most.

    Args:
        probability: as for `iou`.
        target: as for `iou`.
        threshold: as for `iou`.
        max_distance: in pixels, > 0.
        protocol: `"standard"` matches the nearest pairs first (ties to the component met first in scan order)
            and counts the pixels of all unmatched predicted components as false. `"released"` gives each
            target, in scan order, the first free component in reach, and leaves out of the false pixels each
            unmatched component whose area equals that of a matched one of its frame, which under-reports Fa.

    Returns:
        Pd, detected targets / all targets, in [0, 1], NaN where there is no target; and Fa, false pixels /
        all pixels, in [0, 1] (papers give it times 1e6).

    Raises:
        ValueError: as `iou`; `max_distance` is not > 0.
    """
    curve = pd_fa_curve(probability, target, [check_threshold(threshold)], max_distance=max_distance, protocol=protocol)
    return float(curve.pd[0]), float(curve.fa[0])


def pd_fa_curve(
    probability: Frames,
    target: Frames,
    thresholds: ArrayLike | None = None,
    max_distance: float = 3.0,
    protocol: Protocol = "standard",
) -> PdFaCurve:
    """Pd and Fa at several thresholds, see `pd_fa`.

    Args:
        probability: as for `iou`.
        target: as for `iou`.
        thresholds: `(T,)` numbers in [0, 1]; `None` means `CURVE_THRESHOLDS`.
        max_distance: as for `pd_fa`.
        protocol: as for `pd_fa`.

    Returns:
        `(pd, fa)`, each `(T,)` in the order of `thresholds`.

    Raises:
        ValueError: as `pd_fa`.
    """
    check_protocol(protocol)
    max_distance = check_distance(max_distance)
    cuts = check_thresholds(thresholds)
    totals = [Counts()] * len(cuts)
    for frame, truth in checked_frames(probability, target):
        targets = find_components(truth)
        size = Counts(frames=1, pixels=truth.size)
        for i, cut in enumerate(cuts):
            totals[i] += size + count_components(frame > cut, targets, max_distance, protocol)
    _require_frames(totals[0].frames)
    return PdFaCurve(
        np.array([ratio(c.detected, c.targets) for c in totals]),
        np.array([c.false_pixels / c.pixels for c in totals]),
    )


def roc(
    probability: Frames,
    target: Frames,
    thresholds: ArrayLike | None = None,
    protocol: Protocol = "released",
) -> RocCurve:
    """Pixel ROC over the whole set: true and false positive rates at several thresholds.

    Args:
        probability: as for `iou`.
        target: as for `iou`.
        thresholds: `(T,)` numbers in [0, 1]; `None` means `CURVE_THRESHOLDS`.
        protocol: `"released"`, the default here because the curve serves comparison with published ones, is
            `TP / (P + 0.001)` and `FP / (N + 0.001)`, P and N the target and background pixels. `"standard"`
            is `TP / P` and `FP / N`, NaN where P or N is 0.

    Returns:
        `(tpr, fpr)`, each `(T,)` in the order of `thresholds`.

    Raises:
        ValueError: as `iou`.
    """
    check_protocol(protocol)
    cuts = check_thresholds(thresholds)
    true_positive = np.zeros(len(cuts), dtype=np.int64)
    false_positive = np.zeros(len(cuts), dtype=np.int64)
    positive = negative = 0
    for frame, truth in checked_frames(probability, target):
        inside, outside = frame[truth], frame[~truth]
        positive += inside.size
        negative += outside.size
        true_positive += [np.count_nonzero(inside > cut) for cut in cuts]
        false_positive += [np.count_nonzero(outside > cut) for cut in cuts]
    _require_frames(positive + negative)
    epsilon = RATE_EPSILON if protocol == "released" else 0.0
    return RocCurve(
        np.array([ratio(n, positive + epsilon) for n in true_positive.tolist()]),
        np.array([ratio(n, negative + epsilon) for n in false_positive.tolist()]),
    )


def _total(counts: Iterator[Counts]) -> Counts:
    """Sum over frames, of which there must be one at least."""
    total = sum(counts, Counts())
    _require_frames(total.frames)
    return total


def _require_frames(frames: int) -> None:
    if frames == 0:
        raise ValueError("no frames to measure: probability and target must hold at least one frame")
