"""Metrics of infrared small target detection: IoU, nIoU, Pd, Fa, pixel ROC and Pd-Fa curves.

A pixel is predicted where probability > threshold and is target where target > 0.5; targets are 8-connected
components. There are two protocols. `"standard"` is the definition, with one-to-one matching, nearest pairs
first. `"released"` repeats the arithmetic of the code released with Dai et al., "Pick of the Bunch", IEEE
TGRS 2024, which many papers share, for comparing with published tables; each function says where it differs.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from serank.metrics.checks import Frames, Protocol, check_distance, check_protocol, check_thresholds, checked_frames
from serank.metrics.counting import (
    Counts,
    PdFaCurve,
    RocCurve,
    count_frame,
    mean_iou,
    pd_fa_rates,
    pooled_iou,
    roc_rates,
)
from serank.utils.checks import check_threshold


def iou(probability: Frames, target: Frames, threshold: float = 0.5, protocol: Protocol = "standard") -> float:
    """Intersection over union of target pixels in [0, 1], counted over the whole set.

    Args:
        probability: target probability in [0, 1], `(H, W)`, `(N, H, W)` or `(N, 1, H, W)`, an array or a
            tensor, or a list of these for frames of different sizes. `(H, W, 1)` is refused, and so are
            masked arrays with masked pixels.
        target: masks of the same frames, true where > 0.5 (so 0/1 and 0/255 both work).
        threshold: a pixel is predicted where its probability is above this, in [0, 1].
        protocol: what a set with neither a target nor a predicted pixel gives: 1 (`"standard"`) or 0
            (`"released"`).

    Raises:
        ValueError: shapes differ or are none of the above, probability is not in [0, 1], another argument is
            out of its range, or there is no frame.
    """
    return pooled_iou(_count(probability, target, [check_threshold(threshold)], protocol)[0], protocol)


def niou(probability: Frames, target: Frames, threshold: float = 0.5, protocol: Protocol = "standard") -> float:
    """Mean of the IoU of each frame, in [0, 1]; arguments and errors as `iou`.

    A frame with neither a target nor a predicted pixel counts 1 (`"standard"`) or 0 (`"released"`).
    """
    return mean_iou(_count(probability, target, [check_threshold(threshold)], protocol)[0])


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
        probability: as for `iou`, and so are `target` and `threshold`.
        target: masks.
        threshold: in [0, 1].
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
    """Pd and Fa as `pd_fa` gives them at each of `thresholds`, `(T,)` in [0, 1]; `None` means `CURVE_THRESHOLDS`."""
    return pd_fa_rates(_count(probability, target, thresholds, protocol, check_distance(max_distance)))


def roc(
    probability: Frames, target: Frames, thresholds: ArrayLike | None = None, protocol: Protocol = "released"
) -> RocCurve:
    """Pixel ROC over the whole set: true and false positive rates at several thresholds.

    Args:
        probability: as for `iou`, and so are `target` and the errors.
        target: masks.
        thresholds: `(T,)` numbers in [0, 1]; `None` means `CURVE_THRESHOLDS`.
        protocol: `"released"`, the default here because the curve serves comparison with published ones, is
            `TP / (P + 0.001)` and `FP / (N + 0.001)`, P and N the target and background pixels. `"standard"`
            is `TP / P` and `FP / N`, NaN where P or N is 0.

    Returns:
        `(tpr, fpr)`, each `(T,)` in the order of `thresholds`.
    """
    return roc_rates(_count(probability, target, thresholds, protocol), protocol)


def _count(
    probability: Frames,
    target: Frames,
    thresholds: ArrayLike | None,
    protocol: Protocol,
    max_distance: float | None = None,
) -> list[Counts]:
    """Sums over all frames, see `count_frame`; raises ValueError as `iou`."""
    check_protocol(protocol)
    cuts = check_thresholds(thresholds)
    totals = [Counts()] * len(cuts)
    for scores, truth in checked_frames(probability, target):
        counts = count_frame(scores, truth, cuts, protocol, max_distance)
        totals = [total + one for total, one in zip(totals, counts, strict=True)]
    if totals[0].frames == 0:
        raise ValueError("no frames to measure: probability and target must hold at least one frame")
    return totals
