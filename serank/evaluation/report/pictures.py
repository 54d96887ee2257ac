"""The pictures of a report: curves, overlays of every frame, contact sheets, surfaces and top-k points."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from serank.evaluation.report.contact_sheet import CROP_SIDE, Cell, contact_sheet, crop_window
from serank.evaluation.report.figures import (
    group_figure,
    pd_fa_figure,
    reliability_figure,
    roc_figure,
    save_figure,
    score_roc_figure,
)
from serank.evaluation.report.frame_figures import surface_figure, top_k_figure
from serank.evaluation.report.overlays import MatchMasks, match_masks, match_overlay
from serank.evaluation.report.top_k import count_top_k
from serank.evaluation.results import Evaluation, FrameScore, FrameView, TargetScore
from serank.metrics.components import find_components
from serank.serankdet import SeRankDet

MIN_CROP = 48  # side in px of a contact sheet's crops, more around larger targets


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A safe file name, without suffix, for each name; no two are equal on any file system.

    They are 1 to 80 ASCII letters, digits, `.`, `_` and `-`, and a number where two would be equal. Raises ValueError
    where a name occurs twice.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    following: dict[str, int] = defaultdict(lambda: 2)
    for name in names:
        if name in found:
            raise ValueError(f"two frames have the name {name!r}; give each its own")
        safe = base = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".-") or "frame"
        # some file systems take upper and lower case for one
        while safe.lower() in taken:
            safe = f"{base}-{following[base.lower()]}"
            following[base.lower()] += 1
        taken.add(safe.lower())
        found[name] = safe
    return found


def worst_misses(evaluation: Evaluation) -> list[TargetScore]:
    """Undetected targets, lowest probability on the target first, the larger first of equal ones."""
    missed = [target for target in evaluation.targets if not target.detected]
    return sorted(missed, key=lambda target: (target.probability, -target.area))


def worst_false_alarms(evaluation: Evaluation) -> list[FrameScore]:
    """Frames with false components, most false pixels first, more components first of equal ones."""
    wrong = [score for score in evaluation.frames if score.false_components]
    return sorted(wrong, key=lambda score: (-score.false_pixels, -score.false_components))


@dataclass
class Gallery:
    """Draws the pictures of a report and keeps their paths, relative to the report's folder, for the page."""

    evaluation: Evaluation
    folder: Path
    names: dict[str, str]
    """File name by frame, see `file_names`."""
    worst: int
    """Most entries of a contact sheet."""
    model: SeRankDet | None
    """The network, for the top-k points; `None` leaves them out."""
    of_set: dict[str, str] = field(default_factory=dict)
    """Path by kind: roc, pd_fa, reliability, score_roc, size, scr, misses, false_alarms; absent where there is nothing
    to draw."""
    overlays: dict[str, str] = field(default_factory=dict)
    """Path by frame, and so are the next two."""
    surfaces: dict[str, str] = field(default_factory=dict)
    top_k: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each frame with a surface was selected."""

    def _save(self, picture: Any, name: str, paths: dict[str, str], key: str, **options: Any) -> None:
        """Writes an image or a figure and notes its path in the page under a key of `paths`."""
        paths[key] = f"pictures/{name}.png"
        file = self.folder / paths[key]
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, Image):
            picture.save(file, **options)
        else:
            save_figure(picture, file)

    def draw_set(self) -> None:
        """Draws the figures of the whole set."""
        curves = self.evaluation.curves
        if curves is not None and np.isfinite(curves.tpr + curves.fpr).any():
            self._save(roc_figure(curves), "roc", self.of_set, "roc")
        if curves is not None and np.isfinite(curves.pd + curves.fa).any():
            metrics = self.evaluation.metrics
            point = (self.evaluation.threshold, metrics["pd"], metrics["fa"])
            self._save(pd_fa_figure(curves, operating=point), "pd_fa", self.of_set, "pd_fa")
        quality = self.evaluation.score_quality
        if quality is not None:
            self._save(reliability_figure(quality), "reliability", self.of_set, "reliability")
            if np.isfinite(quality.true_kept).all():
                self._save(score_roc_figure(quality), "score_roc", self.of_set, "score_roc")
        for kind, groups, label in (
            ("size", self.evaluation.by_area, "target area, px"),
            ("scr", self.evaluation.by_scr, "signal-to-clutter ratio"),
        ):
            if any(group.targets for group in groups):
                self._save(group_figure(groups, label), kind, self.of_set, kind)

    def draw_frames(self, look: Callable[[str], FrameView], overlays: bool) -> None:
        """Draws everything that shows frames; calls `look` once for each."""
        misses = worst_misses(self.evaluation)[: self.worst]
        alarms = worst_false_alarms(self.evaluation)[: self.worst]
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
                    alarm_cells[i] = _alarm_cell(i + 1, alarm, view, masks)
            if score.name in self.reasons:
                self._surface(score.name, view)
        for kind, cells in (("misses", miss_cells), ("false_alarms", alarm_cells)):
            if cells:
                sheet = contact_sheet([cells[i] for i in sorted(cells)])
                self._save(sheet, kind, self.of_set, kind, optimize=True)

    def _overlay(self, score: FrameScore, view: FrameView, masks: MatchMasks) -> None:
        caption = (
            f"{score.name}   {score.detected} of {score.targets} targets, {score.false_components} false, "
            f"IoU {score.iou:.3f}"
        )
        overlay = match_overlay(view.background, masks, caption)
        self._save(overlay, f"overlays/{self.names[score.name]}", self.overlays, score.name)

    def _surface(self, name: str, view: FrameView) -> None:
        title = f"{name} ({self.reasons[name]})"
        surface = surface_figure(view.frame, view.probability, title)
        self._save(surface, f"surface_{self.names[name]}", self.surfaces, name)
        if self.model is not None and view.frame is not None and (levels := count_top_k(self.model, view.frame)):
            self._save(top_k_figure(view.frame, levels, title), f"top_k_{self.names[name]}", self.top_k, name)


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
    return _cell(view, masks, target.x, target.y, 4 * math.sqrt(target.area), lines)


def _alarm_cell(number: int, score: FrameScore, view: FrameView, masks: MatchMasks) -> Cell:
    table = find_components(masks.false)
    largest = int(table.areas.argmax())
    x0, y0, x1, y1 = table.boxes[largest].tolist()
    lines = (f"{number}  {score.name}", f"{score.false_pixels} false px, {score.false_components} components")
    return _cell(view, masks, (x0 + x1) / 2, (y0 + y1) / 2, 2 * max(x1 - x0, y1 - y0), lines)


def _cell(view: FrameView, masks: MatchMasks, x: float, y: float, extent: float, lines: Sequence[str]) -> Cell:
    # the largest whole factor that shows all of it, then as much of the frame as fits
    side = CROP_SIDE // max(1, int(CROP_SIDE / max(MIN_CROP, extent)))
    window = crop_window(view.mask.shape, x, y, side)
    return Cell(view.background[window], view.probability[window], masks.crop(window), lines)
