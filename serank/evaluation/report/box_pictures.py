"""The pictures of a report by boxes: curve, sizes, overlays of every frame, contact sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from serank.evaluation.by_boxes import BoxEvaluation, BoxFrameScore, BoxFrameView, BoxScore, box_window
from serank.evaluation.report.contact_sheet import Cell, cell_around
from serank.evaluation.report.figures import box_figure, group_figure
from serank.evaluation.report.gallery import FrameGallery, Shown
from serank.evaluation.report.overlays import Mask, MatchMasks
from serank.evaluation.results import FrameView
from serank.metrics.boxes import match_boxes


def worst_missed_boxes(evaluation: BoxEvaluation) -> list[BoxScore]:
    """Boxes that no detection found, lowest probability in the box first, the larger first of equal ones."""
    missed = [box for box in evaluation.boxes if not box.found]
    return sorted(missed, key=lambda box: (box.probability, -(box.x1 - box.x0) * (box.y1 - box.y0)))


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
class BoxGallery(FrameGallery[BoxFrameView, BoxFrameScore, BoxScore]):
    """Draws the pictures of a report by boxes.

    `of_set` has the kinds curve, size, misses and false_alarms, each absent where there is nothing to draw.
    """

    evaluation: BoxEvaluation

    def draw_set(self) -> None:
        """Draws the figures of the whole set."""
        if self.evaluation.by_size:
            metrics = self.evaluation.metrics
            point = (self.evaluation.threshold, metrics["pd"], metrics["false_components"])
            self.save(box_figure(self.evaluation.curve, operating=point), "pd_false", self.of_set, "curve")
            figure = group_figure(self.evaluation.by_size, "longer side of the box, px")
            self.save(figure, "size", self.of_set, "size")

    def draw_frames(self, look: Callable[[str], BoxFrameView], overlays: bool) -> None:
        """Draws everything that shows frames; calls `look` once for each."""
        self.draw(self.evaluation.frames, worst_missed_boxes(self.evaluation), look, overlays=overlays)

    def show(self, view: BoxFrameView, score: BoxFrameScore) -> Shown:
        """The frame with boxes and detections."""
        masks = box_masks(view, self.evaluation.tolerance)
        caption = f"{score.name}   {score.found} of {score.boxes} boxes, {score.false_components} false"
        return Shown(FrameView(view.frame, view.detections.probability, masks.detected | masks.missed), masks, caption)

    def miss_cell(self, number: int, miss: BoxScore, shown: Shown) -> Cell:
        """A box that was not found, with its sides and probability."""
        width, height = miss.x1 - miss.x0, miss.y1 - miss.y0
        lines = (f"{number}  {miss.frame}", f"{width:g} x {height:g} px, probability {miss.probability:.2f}")
        centre = ((miss.x0 + miss.x1) / 2, (miss.y0 + miss.y1) / 2)
        return cell_around(shown.view, shown.masks, centre, 4 * max(width, height), lines)
