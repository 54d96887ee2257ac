"""What a report's folder is made of, whatever it reports on: checks, tables, pictures and the page."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from serank._version import __version__
from serank.evaluation.report.figures import require_matplotlib, save_figure
from serank.utils.files import new_folder
from serank.utils.names import FreeNames
from serank.utils.text import no_formula

# of a report's folder
CONTENTS = frozenset({"index.html", "report.json", "frames.csv", "targets.csv", "boxes.csv", "pictures"})


@dataclass
class Pictures:
    """Pictures and their paths, relative to the report's folder, for the page."""

    folder: Path
    names: dict[str, str]
    """File name by frame, see `file_names`."""
    of_set: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Path by kind, of what shows the whole set."""
    overlays: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Path by frame."""

    def save(self, picture: Any, name: str, paths: dict[str, str], key: str, **options: Any) -> None:
        """Writes an image or a figure and notes its path in the page under a key of `paths`."""
        paths[key] = f"pictures/{name}.png"
        file = self.folder / paths[key]
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, Image):
            picture.save(file, **options)
        else:
            save_figure(picture, file)


@dataclass(frozen=True)
class ReportFolder:
    """A report that is being written, in a hidden folder that takes its place at the end."""

    path: Path
    about: dict[str, Any]
    """Versions and date."""

    def write_json(self, values: Mapping[str, Any]) -> None:
        """Writes `report.json`: `values`, versions and date."""
        self._write("report.json", json.dumps({**values, **self.about}, indent=1, allow_nan=False) + "\n")

    def write_table(self, name: str, kind: type[Any], rows: Sequence[Any]) -> None:
        """Writes instances of the data class `kind` as a CSV file."""
        columns = [column.name for column in fields(kind)]
        with (self.path / name).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            for row in rows:
                writer.writerow([_csv_value(getattr(row, column)) for column in columns])

    def write_page(self, template: str, **values: Any) -> None:
        """Writes `index.html`, which refers to nothing outside of the folder; all text of others is escaped."""
        # imported here: only reports need it
        from jinja2 import Environment, FunctionLoader, StrictUndefined

        environment = Environment(
            loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        versions = ", ".join(f"{name} {version}" for name, version in self.about["versions"].items())
        origin = f"Written {self.about['date']} with {versions}."
        self._write("index.html", environment.get_template(template).render(origin=origin, **values))

    def _write(self, name: str, text: str) -> None:
        # names of files that are no UTF-8 hold lone surrogates, which can't be encoded
        (self.path / name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def report_folder(folder: str | os.PathLike[str]) -> Iterator[ReportFolder]:
    """A folder to write a report into; takes the place of `folder` where the block ends without an error."""
    target = Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    versions = {"serank": __version__, "torch": torch.__version__, "numpy": np.__version__}
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    with new_folder(target, replace=True) as temporary:
        yield ReportFolder(temporary, {"versions": versions, "date": date})


def check_report_folder(path: str | os.PathLike[str]) -> None:
    """Raises as `write_report`, before anything is measured, where no report can be written to a folder."""
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


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A safe file name, without suffix, for each name; no two are equal on any file system.

    They are 1 to 80 ASCII letters, digits, `.`, `_` and `-`, and a number where two would be equal. Raises ValueError
    where a name occurs twice.
    """
    found: dict[str, str] = {}
    free = FreeNames("-")
    for name in names:
        if name in found:
            raise ValueError(f"two frames have the name {name!r}; give each its own")
        found[name] = free(re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".-") or "frame", name)
    return found


def _csv_value(value: Any) -> Any:
    """Booleans as 0 and 1, undefined numbers as an empty cell, text as no formula."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else no_formula(value)
