"""What a report shows of frames: overlays, and contact sheets of the worst misses and false alarms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from serank.evaluation.by_boxes import BoxFrameScore, BoxScore
from serank.evaluation.report.contact_sheet import Cell, contact_sheet, false_alarm_cell
from serank.evaluation.report.folder import Pictures
from serank.evaluation.report.overlays import MatchMasks, match_overlay
from serank.evaluation.results import FrameScore, FrameView, TargetScore

View = TypeVar("View")
Score = TypeVar("Score", FrameScore, BoxFrameScore)
Miss = TypeVar("Miss", TargetScore, BoxScore)


class Shown(NamedTuple):
    """A frame as its pictures show it."""

    view: FrameView
    masks: MatchMasks
    caption: str
    """Of its overlay."""


def worst_false_alarms(frames: Sequence[Score]) -> list[Score]:
    """Those of `frames` with false components, most false pixels first, more components first of equal ones."""
    wrong = [score for score in frames if score.false_components]
    return sorted(wrong, key=lambda score: (-score.false_pixels, -score.false_components))


@dataclass
class FrameGallery(Pictures, ABC, Generic[View, Score, Miss]):
    """Draws frames, whatever they were measured by; `of_set` gets the kinds misses and false_alarms."""

    worst: int
    """Most entries of a contact sheet."""

    @abstractmethod
    def show(self, view: View, score: Score) -> Shown:
        """What is to be seen of a frame that was measured."""

    @abstractmethod
    def miss_cell(self, number: int, miss: Miss, shown: Shown) -> Cell:
        """The entry of a miss in its contact sheet, numbered from 1."""

    def draw_more(self, name: str, view: FrameView) -> None:
        """Further pictures of a frame."""

    def draw(
        self,
        frames: Sequence[Score],
        misses: Sequence[Miss],
        look: Callable[[str], View],
        *,
        overlays: bool,
        more: Collection[str] = (),
    ) -> None:
        """Draws overlays and contact sheets, and `draw_more` of the frames `more`; calls `look` once for each frame."""
        misses, alarms = misses[: self.worst], worst_false_alarms(frames)[: self.worst]
        wanted = {miss.frame for miss in misses} | {score.name for score in alarms} | set(more)
        sheets: dict[str, dict[int, Cell]] = {"misses": {}, "false_alarms": {}}
        for score in frames:
            if not overlays and score.name not in wanted:
                continue
            shown = self.show(look(score.name), score)
            _check_shapes(shown.view, score)
            if overlays:
                overlay = match_overlay(shown.view.background, shown.masks, shown.caption)
                self.save(overlay, f"overlays/{self.names[score.name]}", self.overlays, score.name)
            for i, miss in enumerate(misses):
                if miss.frame == score.name:
                    sheets["misses"][i] = self.miss_cell(i + 1, miss, shown)
            for i, alarm in enumerate(alarms):
                if alarm.name == score.name and shown.masks.false.any():
                    sheets["false_alarms"][i] = false_alarm_cell(i + 1, alarm, shown.view, shown.masks)
            if score.name in more:
                self.draw_more(score.name, shown.view)
        for kind, cells in sheets.items():
            if cells:
                sheet = contact_sheet([cells[i] for i in sorted(cells)])
                self.save(sheet, kind, self.of_set, kind, optimize=True)


def _check_shapes(view: FrameView, score: FrameScore | BoxFrameScore) -> None:
    shape = (score.height, score.width)
    for part, array in zip(FrameView._fields, view, strict=True):
        if array is not None and array.shape != shape:
            raise ValueError(f"look({score.name!r}) gave a {part} of shape {array.shape}; it was measured at {shape}")
