"""Metrics of infrared small target detection: IoU, nIoU, Pd, Fa, pixel ROC and Pd-Fa curves.

A pixel is predicted where probability > threshold and is target where target > 0.5; targets are 8-connected
components. There are two protocols. `"standard"` is the definition, with one-to-one matching, nearest pairs
first. `"released"` repeats the arithmetic of the code released with Dai et al., "Pick of the Bunch", IEEE
TGRS 2024, which many papers share, for comparing with published tables; each function says where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serank.metrics.components import ComponentTable, component_table, label_components
from serank.utils.checks import check_threshold

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CURVE_THRESHOLDS",
    "DetectionMetrics",
    "PdFaCurve",
    "Protocol",
    "RocCurve",
    "iou",
    "niou",
    "pd_fa",
    "pd_fa_curve",
    "roc",
]

Protocol = Literal["standard", "released"]
Frames: TypeAlias = "NDArray[Any] | Tensor | Sequence[NDArray[Any] | Tensor]"

CURVE_THRESHOLDS = tuple(i / 10 for i in range(11))
"""Thresholds of the curves unless others are given: 0, 0.1 to 1."""

RATE_EPSILON = 1e-3
"""Pixels that the released code adds to the denominators of its rates."""
F1_EPSILON = 1e-5
"""What the released code adds to precision + recall."""
IOU_UNIT = 2**64
"""Per-frame IoU is summed as an integer, in units of 1 / IOU_UNIT, so that no order of frames changes it."""


class RocCurve(NamedTuple):
    """Pixel rates, each `(T,)` float64 in [0, 1], one value for each threshold."""

    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]


class PdFaCurve(NamedTuple):
    """Pd in [0, 1] and Fa in false pixels per pixel, each `(T,)` float64, one value for each threshold."""

    pd: NDArray[np.float64]
    fa: NDArray[np.float64]


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


def check_protocol(protocol: str) -> None:
    if protocol not in get_args(Protocol):
        raise ValueError(f'protocol must be "standard" or "released"; got {protocol!r}')


def check_thresholds(thresholds: ArrayLike | None) -> list[float]:
    values = np.asarray(CURVE_THRESHOLDS if thresholds is None else thresholds, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"thresholds must be a sequence of one or more numbers; got shape {values.shape}")
    return [check_threshold(value, "thresholds") for value in values.tolist()]


def check_distance(max_distance: float) -> float:
    if not max_distance > 0:
        raise ValueError(f"max_distance must be > 0 pixels; got {max_distance}")
    return float(max_distance)


def _to_frames(value: Any, name: str) -> NDArray[Any]:
    """One array or tensor as a real `(N, H, W)` array on the CPU."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # numpy has no bfloat16
            value = value.float()
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers or bool; got dtype {array.dtype}")
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 4 and shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(
            f"{name} must have shape (H, W), (N, H, W) or (N, 1, H, W) with H and W >= 1; got {shape}. "
            "Pass frames of different sizes as a list of (H, W) arrays"
        )
    return array


def checked_frames(probability: Frames, target: Frames) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Checked frames one by one: probability `(H, W)` in [0, 1] and the target mask `(H, W)`."""
    if isinstance(probability, (list, tuple)) or isinstance(target, (list, tuple)):
        if len(probability) != len(target):
            raise ValueError(
                f"probability and target must hold as many frames; got {len(probability)} and {len(target)}"
            )
        for one_probability, one_target in zip(probability, target, strict=True):
            yield from checked_frames(one_probability, one_target)
        return
    probabilities = _to_frames(probability, "probability")
    targets = _to_frames(target, "target")
    if probabilities.shape != targets.shape:
        raise ValueError(
            "probability and target must have the same frames and size; got shapes "
            f"{tuple(np.shape(probability))} and {tuple(np.shape(target))}. Compare at the frame's own size"
        )
    for frame, truth in zip(probabilities, targets, strict=True):
        low, high = frame.min(), frame.max()  # NaN anywhere makes both NaN
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("probability must be finite; got NaN or infinity")
        if low < 0 or high > 1:
            raise ValueError(
                f"probability must lie in [0, 1]; got {low} to {high}. "
                "Logits need a sigmoid first, 8-bit maps a division by 255"
            )
        if truth.dtype.kind == "f" and np.isnan(truth.min()):
            raise ValueError("target must not hold NaN")
        yield frame, truth > 0.5


def components(mask: NDArray[np.bool_]) -> ComponentTable:
    """Components of a mask `(H, W)`; equal to `component_table(*label_components(mask))` and faster."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return component_table(np.zeros((1, 1), np.int32), 0)
    # masks are mostly empty: only the part that holds components is labelled
    top, left = rows[0], columns[0]
    table = component_table(*label_components(mask[top : rows[-1] + 1, left : columns[-1] + 1]))
    areas, shift = table.areas[:, None], np.array([left, top])
    # through the sums, which are whole numbers, so that centroids are the same to the last bit
    centroids = (np.rint(table.centroids * areas) + shift * areas) / areas
    return ComponentTable(table.areas, centroids, table.boxes + np.tile(shift, 2))


def _pairs_in_reach(
    predictions: ComponentTable, targets: ComponentTable, max_distance: float
) -> Iterator[tuple[float, int, int]]:
    """(distance, target, prediction) of centroids less than `max_distance` apart, in scan order."""
    # target by target, so that a noisy prediction of many thousand components needs little memory
    for target, centroid in enumerate(targets.centroids):
        distance = np.sqrt(np.square(predictions.centroids - centroid).sum(axis=1))
        # float noise must decide neither ties nor distances of exactly max_distance
        distance = distance.round(9)
        for prediction in np.flatnonzero(distance < max_distance):
            yield float(distance[prediction]), target, int(prediction)


def match(
    predictions: ComponentTable, targets: ComponentTable, max_distance: float, protocol: Protocol
) -> list[tuple[float, int, int]]:
    """Matched components, one to one: (distance in px, index of the target, index of the prediction)."""
    pairs = _pairs_in_reach(predictions, targets, max_distance)
    free = set(range(len(targets)))
    taken = np.zeros(len(predictions), dtype=np.bool_)
    matches = []
    # the released code takes pairs as they come: each target, in scan order, gets its first free prediction
    for distance, target, prediction in sorted(pairs) if protocol == "standard" else pairs:
        if target in free and not taken[prediction]:
            free.remove(target)
            taken[prediction] = True
            matches.append((distance, target, prediction))
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
    predictions: ComponentTable, targets: ComponentTable, matches: Sequence[tuple[float, int, int]], protocol: Protocol
) -> Counts:
    """Counts of one frame's components, matched by `match`."""
    false = np.ones(len(predictions), dtype=np.bool_)
    false[[prediction for _, _, prediction in matches]] = False
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


def _matched_counts(
    predicted: NDArray[np.bool_], targets: ComponentTable, max_distance: float, protocol: Protocol
) -> Counts:
    """Counts of one frame's components."""
    predictions = components(predicted)
    return count_regions(predictions, targets, match(predictions, targets, max_distance, protocol), protocol)


def _total(counts: Iterator[Counts]) -> Counts:
    """Sum over frames, of which there must be one at least."""
    total = sum(counts, Counts())
    _require_frames(total.frames)
    return total


def _require_frames(frames: int) -> None:
    if frames == 0:
        raise ValueError("no frames to measure: probability and target must hold at least one frame")


def ratio(numerator: float, denominator: float, empty: float = float("nan")) -> float:
    return numerator / denominator if denominator else empty


def _iou(counts: Counts, protocol: Protocol) -> float:
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
    """What `DetectionMetrics.compute` gives."""
    if counts.frames == 0:
        raise ValueError("no frames to measure: call update() before compute()")
    precision, recall, f1 = _precision_recall_f1(counts, protocol)
    return {
        "iou": _iou(counts, protocol),
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


def iou(probability: Frames, target: Frames, threshold: float = 0.5, protocol: Protocol = "standard") -> float:
    """Intersection over union of target pixels, counted over the whole set.

    Args:
        probability: target probability in [0, 1], `(H, W)`, `(N, H, W)` or `(N, 1, H, W)`, an array or a
            tensor, or a list of these for frames of different sizes.
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
    return _iou(total, protocol)


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
        targets = components(truth)
        size = Counts(frames=1, pixels=truth.size)
        for i, cut in enumerate(cuts):
            totals[i] += size + _matched_counts(frame > cut, targets, max_distance, protocol)
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


class DetectionMetrics:
    """All metrics at one threshold, accumulated over calls.

    It keeps a few integers, whatever the number of frames. They are exact, so neither the order of frames nor
    their split into calls or instances changes the result.

    Args:
        threshold: as for `iou`.
        max_distance: as for `pd_fa`, in pixels.
        protocol: as for `iou`, `niou` and `pd_fa`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> metrics = DetectionMetrics()
        >>> metrics.update(np.array([[0.9, 0.1]]), np.array([[1, 0]]))
        >>> metrics.compute()["pd"]
        1.0
    """

    def __init__(self, threshold: float = 0.5, max_distance: float = 3.0, protocol: Protocol = "standard") -> None:
        check_protocol(protocol)
        self.threshold = check_threshold(threshold)
        self.max_distance = check_distance(max_distance)
        self.protocol = protocol
        self._counts = Counts()

    def __repr__(self) -> str:
        return (
            f"DetectionMetrics(threshold={self.threshold}, max_distance={self.max_distance}, "
            f"protocol={self.protocol!r})"
        )

    def reset(self) -> None:
        """Forgets all frames."""
        self._counts = Counts()

    def update(self, probability: Frames, target: Frames) -> None:
        """Adds frames; all of them or, when one is invalid, none.

        Args:
            probability: as for `iou`.
            target: as for `iou`.

        Raises:
            ValueError: shapes differ or probability is not in [0, 1].
        """
        added = Counts()
        for frame, truth in checked_frames(probability, target):
            predicted = frame > self.threshold
            added += count_pixels(predicted, truth, self.protocol)
            added += _matched_counts(predicted, components(truth), self.max_distance, self.protocol)
        self._counts += added

    def merge(self, other: DetectionMetrics) -> None:
        """Adds what another instance has counted, for example one received from another process.

        Args:
            other: an instance of the same threshold, distance and protocol; left as it is.

        Raises:
            ValueError: the settings differ.
        """
        if repr(self) != repr(other):
            raise ValueError(f"other must have the same settings; got {other!r} to merge into {self!r}")
        self._counts += other._counts

    def compute(self) -> dict[str, float]:
        """The metrics of all frames since the last reset.

        Returns:
            A dict of

            - `iou`, `niou`, `pd` in [0, 1] and `fa` in false pixels per pixel, as from the functions of these
              names; `pd` is NaN without targets
            - `precision`, `recall`, `f1` of pixels over the whole set, in [0, 1]. Standard: precision is NaN
              without predicted pixels, recall NaN without target pixels, f1 1 without both. Released:
              precision and recall have 0.001 added to their denominators and f1 1e-5, so all are 0 there
            - `false_components`, unmatched predicted components per frame, whatever their areas
            - `frames` and `targets`, how many there were

        Raises:
            ValueError: no frame was added.
        """
        return summary(self._counts, self.protocol)
