"""Writes an evaluation as a folder: a page to open, pictures, tables, and everything as JSON."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serank._version import __version__
from serank.evaluation.report.figures import require_matplotlib
from serank.evaluation.report.pictures import Gallery, file_names, worst_false_alarms, worst_misses
from serank.evaluation.results import Evaluation, FrameScore, FrameView, TargetScore
from serank.serankdet import SeRankDet
from serank.utils.files import new_folder

CONTENTS = frozenset({"index.html", "report.json", "frames.csv", "targets.csv", "pictures"})  # of a report's folder


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
    target = Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(target, replace=True) as temporary:
        versions = {"serank": __version__, "torch": torch.__version__, "numpy": np.__version__}
        date = datetime.now().astimezone().isoformat(timespec="seconds")
        contents = evaluation.to_dict() | {"versions": versions, "date": date}
        _write_text(temporary / "report.json", json.dumps(contents, indent=1, allow_nan=False) + "\n")
        _write_csv(temporary / "frames.csv", FrameScore, evaluation.frames)
        _write_csv(temporary / "targets.csv", TargetScore, evaluation.targets)
        origin = f"Written {date} with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
        gallery = Gallery(evaluation, temporary, names, worst, model)
        gallery.draw_set()
        gallery.draw_frames(look, overlays)
        _write_text(temporary / "index.html", _render_page(evaluation, gallery, origin))
    return target / "index.html"


def check_report_folder(path: str | os.PathLike[str]) -> None:
    """Raises as `write_report`, before anything is measured, where it can't write to a folder."""
    require_matplotlib()
    folder = Path(path).resolve()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"folder {str(folder)!r} is a file; name a new folder or one that holds a report")
    if folder.is_mount():
        raise ValueError(f"folder {str(folder)!r} is a mount point and can't be replaced; name a folder inside it")
    present = {path.name for path in folder.iterdir()} - {".DS_Store", "Thumbs.db", "desktop.ini"}
    if other := sorted(present - CONTENTS):
        listed = ", ".join(repr(name) for name in other[:3])
        raise ValueError(
            f"folder {str(folder)!r} holds {listed}, which no report has; name a new folder, or move them away"
        )
    if present and not _is_report(folder / "report.json"):
        raise ValueError(f"folder {str(folder)!r} is not empty and holds no report; name an empty or new folder")


def _is_report(file: Path) -> bool:
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
        return "serank" in contents["versions"]
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _write_text(file: Path, text: str) -> None:
    # names of files that are no UTF-8 hold lone surrogates, which can't be encoded
    file.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def _render_page(evaluation: Evaluation, pictures: Gallery, origin: str) -> str:
    """HTML that refers to nothing outside of the report's folder; all text of others is escaped."""
    # imported here: only reports need it
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        evaluation=evaluation,
        pictures=pictures,
        misses=worst_misses(evaluation),
        false_alarms=worst_false_alarms(evaluation),
        origin=origin,
    )


def _write_csv(file: Path, kind: type[FrameScore | TargetScore], rows: Iterable[FrameScore | TargetScore]) -> None:
    with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([column.name for column in fields(kind)])
        for row in rows:
            writer.writerow([_csv_value(value) for value in asdict(row).values()])


def _csv_value(value: Any) -> Any:
    """Booleans as 0 and 1, undefined numbers as an empty cell."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else value
