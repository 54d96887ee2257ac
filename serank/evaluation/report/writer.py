"""Writes an evaluation by masks as a folder: a page to open, pictures, tables, and everything as JSON."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from serank.evaluation.report.folder import check_report_folder, file_names, report_folder
from serank.evaluation.report.gallery import worst_false_alarms
from serank.evaluation.report.pictures import Gallery, worst_misses
from serank.evaluation.results import Evaluation, FrameScore, FrameView, TargetScore
from serank.serankdet import SeRankDet


def write_report(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    *,
    look: Callable[[str], FrameView],
    model: SeRankDet | None = None,
    overlays: bool = True,
    worst: int = 12,
) -> Path:
    """Writes `index.html`, `report.json`, `frames.csv`, `targets.csv` and `pictures/` into `folder`.

    The page needs no network and no other file. All is written to a hidden folder beside `folder`, which takes its
    place at the end, so that a run that fails leaves nothing behind and an older report as it was. Empty cells of the
    CSVs are values that are not defined, such as the distance of a missed target.

    Args:
        evaluation: what was measured.
        folder: made if absent, its parents too. An older report there is replaced.
        look: gives the arrays of a frame by its name; called once for each frame that is drawn.
        model: the network, for figures of its top-k points.
        overlays: draw every frame with its outlines.
        worst: most entries in a contact sheet.

    Returns:
        The page, `folder / "index.html"`.

    Raises:
        ImportError: matplotlib is missing; raised before anything else is done.
        ValueError: `folder` holds something else than a report, `worst` is below 1, the evaluation holds no frame or
            two of one name, or `look` gives another size than was measured.
        OSError: a file can't be written.
    """
    check_report_folder(folder)
    if worst < 1:
        raise ValueError(f"worst must be >= 1; got {worst}")
    if not evaluation.frames:
        raise ValueError("evaluation holds no frame; measure at least one")
    names = file_names([score.name for score in evaluation.frames])
    with report_folder(folder) as report:
        report.write_json(evaluation.to_dict())
        report.write_table("frames.csv", FrameScore, evaluation.frames)
        report.write_table("targets.csv", TargetScore, evaluation.targets)
        gallery = Gallery(report.path, names, worst, evaluation, model)
        gallery.draw_set()
        gallery.draw_frames(look, overlays)
        report.write_page(
            "masks.html",
            evaluation=evaluation,
            pictures=gallery,
            misses=worst_misses(evaluation),
            false_alarms=worst_false_alarms(evaluation.frames),
        )
    return Path(folder).resolve() / "index.html"
