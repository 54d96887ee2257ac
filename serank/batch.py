"""Detection over files and folders: a picture for each frame, and one table of all detections."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from serank.errors import FrameError
from serank.files import replacing
from serank.frames import find_frames
from serank.network import SeRankDet

__all__ = ["BatchResult", "detect_files"]

COLUMNS = ("frame", "x", "y", "score", "area", "x0", "y0", "x1", "y1", "picture")


@dataclass
class BatchResult:
    """What `detect_files` did.

    Attributes:
        table: the written table.
        frames: one entry for each finished frame: its file, its picture and `Detections.to_dict()`.
        failures: file and reason of each frame that could not be read.
        seconds: time spent on the finished frames, reading and writing included.
        interrupted: whether Ctrl-C ended the run early.
    """

    table: Path
    frames: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each detection, with the keys of the CSV table."""
        for frame in self.frames:
            for d in frame["detections"]:
                values = (frame["frame"], *d["centroid"], d["score"], d["area"], *d["box"], frame["picture"])
                yield dict(zip(COLUMNS, values, strict=True))


def detect_files(
    model: SeRankDet,
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    min_area: int = 1,
    table: str = "json",
    progress: bool = False,
) -> BatchResult:
    """Runs `model.detect` on files and folders, frame by frame, and writes what it finds.

    Each frame's picture `NAME_detections.png` is written as soon as it is done; the table `detections.json` or
    `detections.csv` at the end, with the frames that are finished, also after Ctrl-C or an error. Frames that don't
    exist or can't be read are failures of the result, and the others go on.

    Args:
        model: the detector.
        paths: image files, and folders of them.
        output: folder to write to, made if it doesn't exist; not one that frames are read from.
        threshold: as for `SeRankDet.detect`.
        min_area: as for `SeRankDet.detect`.
        table: `"json"` (every frame, with its size and detections) or `"csv"` (a row for each detection).
        progress: show a bar on standard error.

    Raises:
        FileNotFoundError: a folder without frames, or no path at all exists.
        ValueError: `output` holds the frames, an unknown `table`, or a bad `threshold` or `min_area`.
        OSError: `output` can't be written.
    """
    model.check_options(threshold, min_area)
    if table not in ("json", "csv"):
        raise ValueError(f'table must be "json" or "csv"; got {table!r}')
    files = find_frames(paths)
    if not any(file.exists() for file in files):
        raise FileNotFoundError(f"{', '.join(map(str, files)) or 'no paths'}: no such file or folder")
    folder = Path(output)
    if any(folder.resolve() == file.resolve().parent for file in files):
        raise ValueError(f"output {str(folder)!r} holds the frames themselves; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    result = BatchResult(folder / f"detections.{table}")
    started = time.perf_counter()
    try:
        for file, name in zip(tqdm(files, disable=not progress, unit="frame"), _names(files), strict=True):
            try:
                found = model.detect(file, threshold, min_area=min_area)
            except (FrameError, FileNotFoundError) as error:
                result.failures.append((file, str(error)))
                continue
            picture = folder / f"{name}_detections.png"
            found.save(picture)
            result.frames.append({"frame": str(file), "picture": picture.name, **found.to_dict()})
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        result.seconds = time.perf_counter() - started
        _write_table(result, result.table)
    return result


def _names(files: list[Path]) -> list[str]:
    """A name for each file's picture: its stem, numbered where several files share it."""
    names: dict[str, None] = {}
    for file in files:
        name, count = file.stem, 1
        while name in names:
            count += 1
            name = f"{file.stem}_{count}"
        names[name] = None
    return list(names)


def _write_table(result: BatchResult, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".json":
            failed = [{"frame": str(frame), "reason": reason} for frame, reason in result.failures]
            file.write(json.dumps({"frames": result.frames, "failed": failed}, indent=1) + "\n")
        else:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(result.rows())
