"""The pictures of a report: curves, overlays of every frame, contact sheets, surfaces and top-k points."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from serank.evaluation.report.contact_sheet import Cell, cell_around
from serank.evaluation.report.figures import (
    group_figure,
    pd_fa_figure,
    reliability_figure,
    roc_figure,
    score_roc_figure,
)
from serank.evaluation.report.frame_figures import surface_figure, top_k_figure
from serank.evaluation.report.gallery import FrameGallery, Shown, worst_false_alarms
from serank.evaluation.report.overlays import match_masks
from serank.evaluation.report.top_k import count_top_k
from serank.evaluation.results import Evaluation, FrameScore, FrameView, TargetScore
from serank.serankdet import SeRankDet


def worst_misses(evaluation: Evaluation) -> list[TargetScore]:
    """Undetected targets, lowest probability on the target first, the larger first of equal ones."""
    missed = [target for target in evaluation.targets if not target.detected]
    return sorted(missed, key=lambda target: (target.probability, -target.area))


@dataclass
class Gallery(FrameGallery[FrameView, FrameScore, TargetScore]):
    """Draws the pictures of a report.

    `of_set` has the kinds roc, pd_fa, reliability, score_roc, size, scr, misses and false_alarms, each absent where
    there is nothing to draw.
    """

    evaluation: Evaluation
    model: SeRankDet | None
    """The network, for the top-k points; `None` leaves them out."""
    surfaces: dict[str, str] = field(default_factory=dict)
    """Path by frame, and so is the next one."""
    top_k: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each frame with a surface was selected."""

    def draw_set(self) -> None:
        """Draws the figures of the whole set."""
        curves = self.evaluation.curves
        if curves is not None and np.isfinite(curves.tpr + curves.fpr).any():
            self.save(roc_figure(curves), "roc", self.of_set, "roc")
        if curves is not None and np.isfinite(curves.pd + curves.fa).any():
            metrics = self.evaluation.metrics
            point = (self.evaluation.threshold, metrics["pd"], metrics["fa"])
            self.save(pd_fa_figure(curves, operating=point), "pd_fa", self.of_set, "pd_fa")
        quality = self.evaluation.score_quality
        if quality is not None:
            self.save(reliability_figure(quality), "reliability", self.of_set, "reliability")
            if np.isfinite(quality.true_kept).all():
                self.save(score_roc_figure(quality), "score_roc", self.of_set, "score_roc")
        for kind, groups, label in (
            ("size", self.evaluation.by_area, "target area, px"),
            ("scr", self.evaluation.by_scr, "signal-to-clutter ratio"),
        ):
            if any(group.targets for group in groups):
                self.save(group_figure(groups, label), kind, self.of_set, kind)

    def draw_frames(self, look: Callable[[str], FrameView], overlays: bool) -> None:
        """Draws everything that shows frames; calls `look` once for each."""
        misses, frames = worst_misses(self.evaluation), self.evaluation.frames
        self.reasons = _select_frames(self.evaluation, misses, worst_false_alarms(frames))
        self.draw(frames, misses, look, overlays=overlays, more=self.reasons)

    def show(self, view: FrameView, score: FrameScore) -> Shown:
        """The frame with the components of both masks."""
        predicted = view.probability > self.evaluation.threshold
        masks = match_masks(predicted, view.mask, self.evaluation.max_distance, self.evaluation.protocol)
        counts = f"{score.detected} of {score.targets} targets, {score.false_components} false, IoU {score.iou:.3f}"
        return Shown(view, masks, f"{score.name}   {counts}")

    def miss_cell(self, number: int, miss: TargetScore, shown: Shown) -> Cell:
        """A missed target, with its area, contrast and probability."""
        scr = "" if math.isnan(miss.scr) else f", SCR {miss.scr:.1f}"
        lines = (f"{number}  {miss.frame}", f"{miss.area} px{scr}, probability {miss.probability:.2f}")
        return cell_around(shown.view, shown.masks, (miss.x, miss.y), 4 * math.sqrt(miss.area), lines)

    def draw_more(self, name: str, view: FrameView) -> None:
        """The response as a surface, and the top-k points."""
        title = f"{name} ({self.reasons[name]})"
        surface = surface_figure(view.frame, view.probability, title)
        self.save(surface, f"surface_{self.names[name]}", self.surfaces, name)
        if self.model is not None and view.frame is not None and (levels := count_top_k(self.model, view.frame)):
            self.save(top_k_figure(view.frame, levels, title), f"top_k_{self.names[name]}", self.top_k, name)


def _select_frames(
    evaluation: Evaluation, misses: Sequence[TargetScore], alarms: Sequence[FrameScore]
) -> dict[str, str]:
    """Frames that get a surface, and why: the worst by three measures, and a typical one."""
    reasons: dict[str, list[str]] = defaultdict(list)
    if misses:
        reasons[misses[0].frame].append("worst miss")
    if alarms:
        reasons[alarms[0].name].append("most false pixels")
    ordered = sorted([s for s in evaluation.frames if s.targets] or evaluation.frames, key=lambda score: score.iou)
    if ordered[0].iou < ordered[-1].iou:
        reasons[ordered[0].name].append("lowest IoU")
    reasons[ordered[len(ordered) // 2].name].append("typical: median IoU")
    return {name: ", ".join(why) for name, why in reasons.items()}
