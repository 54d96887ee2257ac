"""The pictures of a report: curves, outlines on every frame, contact sheets, surfaces and ranked points."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serank.evaluation.report import figures
from serank.evaluation.report.top_k import ranked_points
from serank.evaluation.results import Evaluation, FrameScore, TargetScore
from serank.inference import drawing as plot
from serank.metrics.components import component_table, label_components
from serank.metrics.functional import match
from serank.serankdet import SeRankDet

__all__ = ["FrameView", "Gallery", "file_names", "worst_false_alarms", "worst_misses"]

Float = NDArray[np.float32]

CROP = 48
"""Side in px of a contact sheet's crops, more around larger targets."""


class FrameView(NamedTuple):
    """What there is to see of a frame, at the size at which it was measured."""

    frame: Float | None
    """`(H, W)` float32 in [0, 1]; `None` where the predictions were scored without the frames."""
    probability: Float
    """`(H, W)` float32 in [0, 1]."""
    mask: NDArray[np.bool_]
    """`(H, W)` bool, the targets."""


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A safe file name, without suffix, for each name; no two are equal on any file system.

    Args:
        names: of frames, any characters.

    Returns:
        Names of ASCII letters, digits, `.`, `_` and `-`, 1 to 80 characters and a number where two would be equal.

    Raises:
        ValueError: a name occurs twice.
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


def worst_misses(evaluation: Evaluation, count: int) -> list[TargetScore]:
    """Undetected targets, lowest probability on the target first, the larger first of equal ones."""
    missed = [target for target in evaluation.targets if not target.detected]
    return sorted(missed, key=lambda target: (target.probability, -target.area))[:count]


def worst_false_alarms(evaluation: Evaluation, count: int) -> list[FrameScore]:
    """Frames with false components, most false pixels first, more components first of equal ones."""
    wrong = [score for score in evaluation.frames if score.false_components]
    return sorted(wrong, key=lambda score: (-score.false_pixels, -score.false_components))[:count]


@dataclass
class Gallery:
    """Draws the pictures; paths are relative to the report's folder and end up in the page."""

    evaluation: Evaluation
    folder: Path
    names: dict[str, str]
    worst: int
    model: SeRankDet | None
    of_set: dict[str, str] = field(default_factory=dict)
    """Path by kind: roc, pd_fa, size, scr, misses, false_alarms; absent where there is nothing to draw."""
    overlays: dict[str, str] = field(default_factory=dict)
    """Path by frame."""
    surfaces: dict[str, str] = field(default_factory=dict)
    ranked: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    """Frames with a surface, and why."""

    def path(self, name: str) -> tuple[Path, str]:
        """Where to write a picture, and what the page calls it."""
        relative = f"pictures/{name}.png"
        file = self.folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        return file, relative

    def draw_set(self) -> None:
        """The figures of the whole set."""
        curves = self.evaluation.curves
        if curves is not None and np.isfinite(curves.tpr + curves.fpr).any():
            self._figure("roc", figures.roc(curves))
        if curves is not None and np.isfinite(curves.pd + curves.fa).any():
            metrics = self.evaluation.metrics
            point = (self.evaluation.threshold, metrics["pd"], metrics["fa"])
            self._figure("pd_fa", figures.pd_fa(curves, operating=point))
        for kind, groups, label in (
            ("size", self.evaluation.by_area, "target area, px"),
            ("scr", self.evaluation.by_scr, "signal-to-clutter ratio"),
        ):
            if any(group.targets for group in groups):
                self._figure(kind, figures.groups(groups, label))

    def _figure(self, kind: str, figure: Any) -> None:
        file, self.of_set[kind] = self.path(kind)
        figures.save_figure(figure, file)

    def draw_frames(self, look: Callable[[str], FrameView], overlays: bool) -> None:
        """Everything that shows frames, each looked at once."""
        misses = worst_misses(self.evaluation, self.worst)
        alarms = worst_false_alarms(self.evaluation, self.worst)
        self.chosen = _chosen(self.evaluation, misses, alarms)
        wanted = {target.frame for target in misses} | {score.name for score in alarms} | set(self.chosen)
        miss_cells: dict[int, plot.Cell] = {}
        alarm_cells: dict[int, plot.Cell] = {}
        for score in self.evaluation.frames:
            if not overlays and score.name not in wanted:
                continue
            view = _checked(look(score.name), score)
            verdict = _verdict(view, self.evaluation)
            if overlays:
                self._overlay(score, view, verdict)
            for i, target in enumerate(misses):
                if target.frame == score.name:
                    miss_cells[i] = _miss_cell(i + 1, target, view, verdict)
            for i, alarm in enumerate(alarms):
                if alarm.name == score.name and verdict.false.any():
                    alarm_cells[i] = _alarm_cell(i + 1, alarm, view, verdict)
            if score.name in self.chosen:
                self._surface(score.name, view)
        for kind, cells in (("misses", miss_cells), ("false_alarms", alarm_cells)):
            if cells:
                file, self.of_set[kind] = self.path(kind)
                plot.contact_sheet([cells[i] for i in sorted(cells)]).save(file, optimize=True)

    def _overlay(self, score: FrameScore, view: FrameView, verdict: plot.Verdict) -> None:
        caption = (
            f"{score.name}   {score.detected} of {score.targets} targets, {score.false_components} false, "
            f"IoU {score.iou:.3f}"
        )
        file, self.overlays[score.name] = self.path(f"overlays/{self.names[score.name]}")
        plot.verdict_overlay(_base(view), verdict, caption).save(file)

    def _surface(self, name: str, view: FrameView) -> None:
        file, self.surfaces[name] = self.path(f"surface_{self.names[name]}")
        title = f"{name} ({self.chosen[name]})"
        figures.save_figure(figures.surface(view.frame, view.probability, title), file)
        if self.model is not None and view.frame is not None:
            levels = ranked_points(self.model, view.frame)
            if levels:
                file, self.ranked[name] = self.path(f"ranked_{self.names[name]}")
                figures.save_figure(figures.ranked(view.frame, levels, title), file)


def _chosen(evaluation: Evaluation, misses: Sequence[TargetScore], alarms: Sequence[FrameScore]) -> dict[str, str]:
    """Frames worth a closer look, and why: the worst by three measures, and a typical one."""
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


def _checked(view: FrameView, score: FrameScore) -> FrameView:
    shape = (score.height, score.width)
    for part, array in zip(FrameView._fields, view, strict=True):
        if array is not None and array.shape != shape:
            raise ValueError(f"look({score.name!r}) gave a {part} of shape {array.shape}; it was measured at {shape}")
    return view


def _base(view: FrameView) -> Float:
    return view.probability if view.frame is None else view.frame


def _verdict(view: FrameView, evaluation: Evaluation) -> plot.Verdict:
    """The frame's components as the evaluation counted them."""
    truth, truth_count = label_components(view.mask)
    labels, count = label_components(view.probability > evaluation.threshold)
    pairs = match(
        component_table(labels, count),
        component_table(truth, truth_count),
        evaluation.max_distance,
        evaluation.protocol,
    )
    found = np.isin(truth, [1 + target for _, target, _ in pairs])
    matched = np.isin(labels, [1 + prediction for _, _, prediction in pairs])
    return plot.Verdict(found, (truth > 0) & ~found, matched, (labels > 0) & ~matched)


def _miss_cell(number: int, target: TargetScore, view: FrameView, verdict: plot.Verdict) -> plot.Cell:
    scr = "" if math.isnan(target.scr) else f", SCR {target.scr:.1f}"
    lines = (f"{number}  {target.frame}", f"{target.area} px{scr}, probability {target.probability:.2f}")
    return _cell(view, verdict, target.x, target.y, 4 * math.sqrt(target.area), lines)


def _alarm_cell(number: int, score: FrameScore, view: FrameView, verdict: plot.Verdict) -> plot.Cell:
    table = component_table(*label_components(verdict.false))
    largest = int(table.areas.argmax())
    x0, y0, x1, y1 = table.boxes[largest].tolist()
    lines = (f"{number}  {score.name}", f"{score.false_pixels} false px, {score.false_components} components")
    return _cell(view, verdict, (x0 + x1) / 2, (y0 + y1) / 2, 2 * max(x1 - x0, y1 - y0), lines)


def _cell(view: FrameView, verdict: plot.Verdict, x: float, y: float, reach: float, lines: Sequence[str]) -> plot.Cell:
    # the largest whole factor that shows all of it, then as much of the frame as fits
    side = plot.CROP_SIDE // max(1, int(plot.CROP_SIDE / max(CROP, reach)))
    place = plot.crop(view.mask.shape, x, y, side)
    return plot.Cell(_base(view)[place], view.probability[place], verdict.cut(place), lines)
