"""The pictures of a report: curves, overlays of every frame, contact sheets, surfaces and top-k points."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from serank.evaluation.by_boxes import BoxFrameScore
from serank.evaluation.report.contact_sheet import Cell, cell_around, contact_sheet, false_alarm_cell
from serank.evaluation.report.figures import (
    group_figure,
    pd_fa_figure,
    reliability_figure,
    roc_figure,
    score_roc_figure,
)
from serank.evaluation.report.folder import Pictures
from serank.evaluation.report.frame_figures import surface_figure, top_k_figure
from serank.evaluation.report.overlays import MatchMasks, match_masks, match_overlay
from serank.evaluation.report.top_k import count_top_k
from serank.evaluation.results import Evaluation, FrameScore, FrameView, TargetScore
from serank.serankdet import SeRankDet

Score = TypeVar("Score", FrameScore, BoxFrameScore)


def worst_misses(evaluation: Evaluation) -> list[TargetScore]:
    """Undetected targets, lowest probability on the target first, the larger first of equal ones."""
    missed = [target for target in evaluation.targets if not target.detected]
    return sorted(missed, key=lambda target: (target.probability, -target.area))


def worst_false_alarms(frames: Sequence[Score]) -> list[Score]:
    """Those of `frames` with false components, most false pixels first, more components first of equal ones."""
    wrong = [score for score in frames if score.false_components]
    return sorted(wrong, key=lambda score: (-score.false_pixels, -score.false_components))


@dataclass
class Gallery(Pictures):
    """Draws the pictures of a report.

    `of_set` has the kinds roc, pd_fa, reliability, score_roc, size, scr, misses and false_alarms, each absent where
    there is nothing to draw.
    """

    evaluation: Evaluation
    worst: int
    """Most entries of a contact sheet."""
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
        misses = worst_misses(self.evaluation)[: self.worst]
        alarms = worst_false_alarms(self.evaluation.frames)[: self.worst]
        self.reasons = _select_frames(self.evaluation, misses, alarms)
        wanted = {target.frame for target in misses} | {score.name for score in alarms} | set(self.reasons)
        miss_cells: dict[int, Cell] = {}
        alarm_cells: dict[int, Cell] = {}
        for score in self.evaluation.frames:
            if not overlays and score.name not in wanted:
                continue
            view = _check_shapes(look(score.name), score)
            masks = match_masks(
                view.probability > self.evaluation.threshold,
                view.mask,
                self.evaluation.max_distance,
                self.evaluation.protocol,
            )
            if overlays:
                self._overlay(score, view, masks)
            for i, target in enumerate(misses):
                if target.frame == score.name:
                    miss_cells[i] = _miss_cell(i + 1, target, view, masks)
            for i, alarm in enumerate(alarms):
                if alarm.name == score.name and masks.false.any():
                    alarm_cells[i] = false_alarm_cell(i + 1, alarm, view, masks)
            if score.name in self.reasons:
                self._surface(score.name, view)
        for kind, cells in (("misses", miss_cells), ("false_alarms", alarm_cells)):
            if cells:
                sheet = contact_sheet([cells[i] for i in sorted(cells)])
                self.save(sheet, kind, self.of_set, kind, optimize=True)

    def _overlay(self, score: FrameScore, view: FrameView, masks: MatchMasks) -> None:
        caption = (
            f"{score.name}   {score.detected} of {score.targets} targets, {score.false_components} false, "
            f"IoU {score.iou:.3f}"
        )
        overlay = match_overlay(view.background, masks, caption)
        self.save(overlay, f"overlays/{self.names[score.name]}", self.overlays, score.name)

    def _surface(self, name: str, view: FrameView) -> None:
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


def _check_shapes(view: FrameView, score: FrameScore) -> FrameView:
    shape = (score.height, score.width)
    for part, array in zip(FrameView._fields, view, strict=True):
        if array is not None and array.shape != shape:
            raise ValueError(f"look({score.name!r}) gave a {part} of shape {array.shape}; it was measured at {shape}")
    return view


def _miss_cell(number: int, target: TargetScore, view: FrameView, masks: MatchMasks) -> Cell:
    scr = "" if math.isnan(target.scr) else f", SCR {target.scr:.1f}"
    lines = (f"{number}  {target.frame}", f"{target.area} px{scr}, probability {target.probability:.2f}")
    return cell_around(view, masks, (target.x, target.y), 4 * math.sqrt(target.area), lines)
