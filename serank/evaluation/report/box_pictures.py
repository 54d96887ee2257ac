"""The pictures of a report by boxes: curve, sizes, overlays of every frame, contact sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from serank.evaluation.by_boxes import BoxEvaluation, BoxFrameView, BoxScore, box_window
from serank.evaluation.report.contact_sheet import Cell, cell_around, contact_sheet, false_alarm_cell
from serank.evaluation.report.figures import box_figure, group_figure
from serank.evaluation.report.folder import Pictures
from serank.evaluation.report.overlays import Mask, MatchMasks, match_overlay
from serank.evaluation.report.pictures import worst_false_alarms
from serank.evaluation.results import FrameView, Group
from serank.metrics.boxes import match_boxes


def worst_missed_boxes(evaluation: BoxEvaluation) -> list[BoxScore]:
    """Boxes that no detection found, lowest probability in the box first, the larger first of equal ones."""
    missed = [box for box in evaluation.boxes if not box.found]
    return sorted(missed, key=lambda box: (box.probability, -(box.x1 - box.x0) * (box.y1 - box.y0)))


def groups_of(evaluation: BoxEvaluation) -> list[Group]:
    """The boxes by size, as the report's table and figure take groups."""
    return [Group(group.label, group.low, group.high, group.boxes, group.found) for group in evaluation.by_size]


def box_masks(view: BoxFrameView, tolerance: float) -> MatchMasks:
    """Boxes, as the pixels that they touch, and detections, by how `serank.metrics.match_boxes` matches them.

    Detections that lie only in boxes found by another are among the matched ones.
    """
    shape = view.frame.shape
    match = match_boxes(view.detections.centroids, view.boxes, view.peaks, tolerance=tolerance)
    found = np.isin(np.arange(len(view.boxes)), match.box)

    def boxes(picked: Iterable[bool]) -> Mask:
        mask = np.zeros(shape, np.bool_)
        for box, wanted in zip(view.boxes, picked, strict=True):
            mask[box_window(box, shape)] |= wanted
        return mask

    inside = np.isin(view.detections.labels, 1 + np.flatnonzero(match.inside))
    return MatchMasks(boxes(found), boxes(~found), inside, view.detections.mask & ~inside)


@dataclass
class BoxGallery(Pictures):
    """Draws the pictures of a report by boxes.

    `of_set` has the kinds curve, size, misses and false_alarms, each absent where there is nothing to draw.
    """

    evaluation: BoxEvaluation
    worst: int
    """Most entries of a contact sheet."""

    def draw_set(self) -> None:
        """Draws the figures of the whole set."""
        if self.evaluation.by_size:
            metrics = self.evaluation.metrics
            point = (self.evaluation.threshold, metrics["pd"], metrics["false_components"])
            self.save(box_figure(self.evaluation.curve, operating=point), "pd_false", self.of_set, "curve")
            figure = group_figure(groups_of(self.evaluation), "longer side of the box, px")
            self.save(figure, "size", self.of_set, "size")

    def draw_frames(self, look: Callable[[str], BoxFrameView], overlays: bool) -> None:
        """Draws everything that shows frames; calls `look` once for each."""
        misses = worst_missed_boxes(self.evaluation)[: self.worst]
        alarms = worst_false_alarms(self.evaluation.frames)[: self.worst]
        wanted = {box.frame for box in misses} | {score.name for score in alarms}
        miss_cells: dict[int, Cell] = {}
        alarm_cells: dict[int, Cell] = {}
        for score in self.evaluation.frames:
            if not overlays and score.name not in wanted:
                continue
            view = look(score.name)
            if view.frame.shape != (score.height, score.width):
                raise ValueError(
                    f"look({score.name!r}) gave a frame of shape {view.frame.shape}; it was measured at "
                    f"{(score.height, score.width)}"
                )
            masks = box_masks(view, self.evaluation.tolerance)
            if overlays:
                caption = f"{score.name}   {score.found} of {score.boxes} boxes, {score.false_components} false"
                overlay = match_overlay(view.frame, masks, caption)
                self.save(overlay, f"overlays/{self.names[score.name]}", self.overlays, score.name)
            shown = FrameView(view.frame, view.detections.probability, masks.detected | masks.missed)
            for i, box in enumerate(misses):
                if box.frame == score.name:
                    miss_cells[i] = _miss_cell(i + 1, box, shown, masks)
            for i, alarm in enumerate(alarms):
                if alarm.name == score.name and masks.false.any():
                    alarm_cells[i] = false_alarm_cell(i + 1, alarm, shown, masks)
        for kind, cells in (("misses", miss_cells), ("false_alarms", alarm_cells)):
            if cells:
                sheet = contact_sheet([cells[i] for i in sorted(cells)])
                self.save(sheet, kind, self.of_set, kind, optimize=True)


def _miss_cell(number: int, box: BoxScore, view: FrameView, masks: MatchMasks) -> Cell:
    width, height = box.x1 - box.x0, box.y1 - box.y0
    lines = (f"{number}  {box.frame}", f"{width:g} x {height:g} px, probability {box.probability:.2f}")
    return cell_around(view, masks, ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2), 4 * max(width, height), lines)
