"""Counting frames one by one into an `Evaluation`; see `serank.evaluation.results` for what that holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serank.evaluation.resolution import Resolution
from serank.evaluation.results import (
    AREA_BINS,
    SCR_BINS,
    Curves,
    DetectionScores,
    Evaluation,
    FrameScore,
    TargetScore,
)
from serank.evaluation.score_quality import score_quality
from serank.inference.scores import calibrated_scores, check_calibration
from serank.metrics.checks import (
    CURVE_THRESHOLDS,
    Frames,
    Protocol,
    check_same_settings,
    check_thresholds,
    checked_frames,
)
from serank.metrics.components import component_peaks, component_table, label_components
from serank.metrics.counting import (
    IOU_UNIT,
    Counts,
    count_frame,
    count_pixels,
    count_regions,
    match_components,
    pd_fa_rates,
    ratio,
    roc_rates,
    summary,
)
from serank.metrics.detection import DetectionMetrics
from serank.metrics.groups import group_targets
from serank.metrics.roc_auc import ScoreHistogram
from serank.metrics.signal_to_clutter import signal_to_clutter

DEFAULT_THRESHOLDS = tuple(sorted({*CURVE_THRESHOLDS, *(1 / (1 + math.exp(-step / 2)) for step in range(-20, 21))}))
"""Thresholds of the curves unless others are given: 0, 0.1 to 1, and logits of -10, -9.5 to 10, because networks
trained with the soft IoU loss give scores near 0 and 1, which even steps would not tell apart."""


class Evaluator:
    """Counts frames one by one and gives an `Evaluation`; knows no network.

    All totals are integers, so neither the order of frames nor their split into instances changes the result, and they
    equal those of `serank.metrics.DetectionMetrics`, `roc` and `pd_fa_curve`. Memory grows by a few numbers for each
    frame, target and detection.

    Args:
        threshold: probability above which a pixel is predicted, in [0, 1].
        max_distance: pixels within which a detection's centroid must lie of a target's, > 0.
        protocol: `"standard"` or `"released"`, see `serank.metrics`.
        curves: count the curves too, which takes several times longer.
        thresholds: `(T,)` in [0, 1], of the curves; `None` means `DEFAULT_THRESHOLDS`.
        score_calibration: of the detections' scores, see `serank.inference.scores.calibrated_scores`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        max_distance: float = 3.0,
        protocol: Protocol = "standard",
        *,
        curves: bool = True,
        thresholds: ArrayLike | None = None,
        score_calibration: Sequence[float] | None = None,
    ) -> None:
        settings = DetectionMetrics(threshold, max_distance, protocol)  # checks them
        self.threshold, self.max_distance, self.protocol = settings.threshold, settings.max_distance, protocol
        self.thresholds = tuple(check_thresholds(DEFAULT_THRESHOLDS if thresholds is None else thresholds))
        self.curves = curves
        self.score_calibration = check_calibration(score_calibration)
        self._entries: list[tuple[float, FrameScore, list[TargetScore], NDArray[np.float64]]] = []
        self._total = Counts()
        self._threshold_counts: list[Counts] = [Counts()] * len(self.thresholds)
        self._histogram = ScoreHistogram()

    def __repr__(self) -> str:
        return (
            f"Evaluator(threshold={self.threshold}, max_distance={self.max_distance}, protocol={self.protocol!r}, "
            f"curves={self.curves}, thresholds={self.thresholds}, score_calibration={self.score_calibration})"
        )

    def update(
        self,
        name: str,
        probability: Frames,
        target: Frames,
        frame: NDArray[np.floating] | None = None,
        *,
        position: int | None = None,
    ) -> None:
        """Adds a frame; all of it or, when it is invalid (ValueError), nothing.

        Args:
            name: of the frame.
            probability: `(H, W)` in [0, 1], array or tensor.
            target: `(H, W)`, a mask, true where > 0.5.
            frame: `(H, W)` in [0, 1], for the targets' signal-to-clutter ratio.
            position: place in the result's lists; `None` puts it after all that have one, in the order of the calls.
        """
        pairs = list(checked_frames(probability, target))
        if len(pairs) != 1:
            raise ValueError(f"{name}: expected one frame (H, W) at a time; got {len(pairs)}")
        scores, truth = pairs[0]
        if frame is not None and frame.shape != truth.shape:
            raise ValueError(f"{name}: frame must have the mask's shape {truth.shape}; got {frame.shape}")
        counts, targets, detections = self._measure(name, scores, truth, frame)
        if self.curves:
            at_thresholds = count_frame(scores, truth, self.thresholds, self.protocol, self.max_distance)
            self._add_to_curves(at_thresholds)
            self._histogram.add(scores, truth)
        self._total += counts
        score = FrameScore(
            name=name,
            height=truth.shape[0],
            width=truth.shape[1],
            iou=counts.iou_units / IOU_UNIT,
            targets=counts.targets,
            detected=counts.detected,
            false_components=counts.false_components,
            false_pixels=counts.false_pixels,
            predicted_pixels=counts.predicted,
            target_pixels=counts.positive,
            true_pixels=counts.true_positive,
            peak=float(scores.max()),
        )
        self._entries.append((math.inf if position is None else position, score, targets, detections))

    def _measure(
        self, name: str, scores: NDArray[Any], truth: NDArray[np.bool_], frame: NDArray[np.floating] | None
    ) -> tuple[Counts, list[TargetScore], NDArray[np.float64]]:
        """A frame's counts at the threshold, its targets, and its N detections.

        These are `(N, 5)`: x, y, area, peak, and 1 for those that match a target.
        """
        predicted = scores > self.threshold
        labels, number = label_components(truth)
        table = component_table(labels, number)
        found_labels, found_number = label_components(predicted)
        found = component_table(found_labels, found_number)
        matches = match_components(found, table, self.max_distance, self.protocol)
        distances = {match.target: match.distance for match in matches}
        peaks = component_peaks(labels, number, scores)
        detections = np.zeros((found_number, 5))
        detections[:, :2], detections[:, 2] = found.centroids, found.areas
        detections[:, 3] = component_peaks(found_labels, found_number, scores)
        detections[[match.prediction for match in matches], 4] = 1
        ratios = np.full(number, np.nan) if frame is None else signal_to_clutter(frame, labels, table)
        targets = [
            TargetScore(
                frame=name,
                x=float(table.centroids[i, 0]),
                y=float(table.centroids[i, 1]),
                area=int(table.areas[i]),
                scr=float(ratios[i]),
                detected=i in distances,
                distance=distances.get(i, float("nan")),
                probability=float(peaks[i]),
            )
            for i in range(number)
        ]
        counts = count_pixels(predicted, truth, self.protocol) + count_regions(found, table, matches, self.protocol)
        return counts, targets, detections

    def _add_to_curves(self, counts: Sequence[Counts]) -> None:
        self._threshold_counts = [mine + other for mine, other in zip(self._threshold_counts, counts, strict=True)]

    def merge(self, other: Evaluator) -> None:
        """Adds what another instance has counted, as `serank.metrics.DetectionMetrics.merge`."""
        check_same_settings(self, other)
        self._entries += other._entries
        self._total += other._total
        self._add_to_curves(other._threshold_counts)
        self._histogram.merge(other._histogram)

    def result(
        self,
        *,
        resolution: Resolution = "native",
        about: Mapping[str, str] | None = None,
        problems: Sequence[str] = (),
    ) -> Evaluation:
        """The metrics of all frames so far, with what is to be recorded; raises ValueError where there is no frame."""
        metrics = summary(self._total, self.protocol)
        entries = sorted(self._entries, key=lambda entry: entry[0])
        frames, targets = [score for _, score, *_ in entries], [t for _, _, found, _ in entries for t in found]
        empty = [frame.false_components for frame in frames if frame.targets == 0]
        detected = [target.detected for target in targets]
        detections = self._detections([found for *_, found in entries])
        return Evaluation(
            metrics=metrics | {"empty_frames": len(empty), "empty_false_components": ratio(sum(empty), len(empty))},
            frames=frames,
            targets=targets,
            by_area=group_targets(AREA_BINS, [target.area for target in targets], detected),
            by_scr=group_targets(SCR_BINS, [target.scr for target in targets], detected),
            detections=detections,
            score_quality=score_quality(detections, len(frames)),
            curves=self._curves() if self.curves else None,
            threshold=self.threshold,
            max_distance=self.max_distance,
            protocol=self.protocol,
            resolution=str(resolution),
            about=dict(about or {}),
            problems=list(problems),
        )

    def _detections(self, parts: list[NDArray[np.float64]]) -> DetectionScores:
        x, y, areas, peaks, true = np.concatenate(parts).T
        return DetectionScores(
            frames=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
            x=x,
            y=y,
            areas=areas.astype(np.int64),
            peaks=peaks.astype(np.float32),
            scores=calibrated_scores(peaks.astype(np.float32), self.score_calibration),
            true=true > 0,
        )

    def _curves(self) -> Curves:
        area, error = self._histogram.auc()
        tpr, fpr = roc_rates(self._threshold_counts, self.protocol)
        pd, fa = pd_fa_rates(self._threshold_counts)
        false_components = np.array([c.false_components / c.frames for c in self._threshold_counts])
        return Curves(np.array(self.thresholds), tpr, fpr, area, pd, fa, error, false_components)
