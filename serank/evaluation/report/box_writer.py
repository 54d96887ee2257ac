"""Writes an evaluation by boxes as a folder: a page to open, pictures, tables, and everything as JSON."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from serank.evaluation.by_boxes import BoxEvaluation, BoxFrameScore, BoxFrameView, BoxScore
from serank.evaluation.report.box_pictures import BoxGallery, worst_missed_boxes
from serank.evaluation.report.folder import check_report_folder, file_names, report_folder
from serank.evaluation.report.gallery import worst_false_alarms


def write_box_report(
    evaluation: BoxEvaluation,
    folder: str | os.PathLike[str],
    *,
    look: Callable[[str], BoxFrameView],
    overlays: bool = True,
    worst: int = 12,
) -> Path:
    """Writes `index.html`, `report.json`, `frames.csv`, `boxes.csv` and `pictures/` into `folder`.

    Args:
        evaluation: what was measured.
        folder: as for `serank.evaluation.write_report`, and so are `overlays`, `worst`, what is returned, and the
            errors.
        look: gives a frame by its name, such as by `serank.evaluation.view_boxes` at `evaluation.threshold`; called
            once for each frame that is drawn.
        overlays: draw every frame with its outlines.
        worst: most entries in a contact sheet.
    """
    check_report_folder(folder)
    if worst < 1:
        raise ValueError(f"worst must be >= 1; got {worst}")
    names = file_names([score.name for score in evaluation.frames])
    with report_folder(folder) as report:
        report.write_json(evaluation.to_dict())
        report.write_table("frames.csv", BoxFrameScore, evaluation.frames)
        report.write_table("boxes.csv", BoxScore, evaluation.boxes)
        gallery = BoxGallery(report.path, names, worst, evaluation)
        gallery.draw_set()
        gallery.draw_frames(look, overlays)
        report.write_page(
            "boxes.html",
            evaluation=evaluation,
            pictures=gallery,
            misses=worst_missed_boxes(evaluation),
            false_alarms=worst_false_alarms(evaluation.frames),
        )
    return Path(folder).resolve() / "index.html"
