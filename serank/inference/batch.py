"""Detection over files and folders: a picture for each frame, and one table of all detections.

Reading, the network and writing overlap, and nothing is kept in memory that grows with the number of frames: each
process puts its results into a file of lines, from which the table is made at the end.
"""

from __future__ import annotations

import csv
import heapq
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from serank.errors import FrameError
from serank.frames.reading import unit_frame
from serank.frames.sources import SourceFrame, find_sources, read_sources
from serank.inference.detections import Detections
from serank.inference.detector import Detector
from serank.utils.distributed import all_objects, is_main, rank, world_size
from serank.utils.files import replacing
from serank.utils.prefetch import ahead, behind

__all__ = ["BatchResult", "detect_files"]

COLUMNS = ("frame", "index", "x", "y", "score", "area", "x0", "y0", "x1", "y1", "picture")
AHEAD = 4
"""Frames that are read before they are needed, besides those of the next batch; few, since frames may be large."""
WRITERS = 2
UNDER_WAY = 4
"""Results that are written or wait for it, at most."""


@dataclass
class BatchResult:
    """What `detect_files` did.

    Attributes:
        table: the written table.
        frames: finished frames.
        detections: what was found in them.
        failures: frames and files that could not be read.
        seconds: from the common start of all processes to the finished table.
        interrupted: whether Ctrl-C ended the run early.
    """

    table: Path
    frames: int = 0
    detections: int = 0
    failures: int = 0
    seconds: float = 0.0
    interrupted: bool = False


Record = dict[str, Any]
"""Of a finished frame: `frame`, `index`, `picture` and `Detections.to_dict()`; of a failure: `frame`, `reason`."""


def detect_files(
    model: Detector,
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    min_area: int = 1,
    batch_size: int = 1,
    pictures: bool = True,
    table: str = "json",
    report: Callable[[Record], None] | None = None,
    progress: bool = False,
) -> BatchResult:
    """Runs `model.detect` on files and folders and writes what it finds.

    Each frame's picture, `NAME_detections.png` or for one of several frames of a file `NAME/000012_detections.png`, is
    written as soon as it is done; the table `detections.json` or
    `detections.csv` at the end, with the frames that are finished, also after Ctrl-C or an error. Frames that don't
    exist or can't be read are failures of the result, and the others go on. Started by torchrun, every process takes
    its share of the frames, and the first one writes the table, in the order of the frames; `output` must then be one
    folder for all.

    Args:
        model: the detector.
        paths: image files (of a TIFF file every page), videos, and folders of them.
        output: folder to write to, made if it doesn't exist; not one that frames are read from.
        threshold: as for `SeRankDet.detect`.
        min_area: as for `SeRankDet.detect`.
        batch_size: frames that are run at once.
        pictures: write them; without, only the table.
        table: `"json"` (every frame, with its size and detections) or `"csv"` (a row for each detection).
        report: is called with each record of this process, in order.
        progress: show a bar on standard error.

    Returns:
        Counts over all processes.

    Raises:
        FileNotFoundError: a folder without frames, or no path at all exists.
        ValueError: `output` holds the frames, an unknown `table`, or a bad `threshold`, `min_area` or `batch_size`.
        OSError: `output` can't be written.
    """
    model.check_options(threshold, min_area)
    if table not in ("json", "csv"):
        raise ValueError(f'table must be "json" or "csv"; got {table!r}')
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1; got {batch_size}")
    files = find_sources(paths)
    if not any(file.exists() for file in files):
        raise FileNotFoundError(f"{', '.join(map(str, files)) or 'no paths'}: no such file or folder")
    folder = Path(output)
    if any(folder.resolve() == file.resolve().parent for file in files):
        raise ValueError(f"output {str(folder)!r} holds the frames themselves; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    result = BatchResult(folder / f"detections.{table}")
    names = Names(files)

    def prepared() -> Iterator[tuple[SourceFrame, Any]]:
        for item in read_sources(files, rank(), world_size()):
            yield _readable(item)

    def finished() -> Iterator[tuple[SourceFrame, Detections | None]]:
        items = ahead(prepared(), AHEAD + batch_size - 1)
        while group := list(islice(items, batch_size)):
            frames = [frame for _, frame in group if frame is not None]
            found = iter(model.detect(frames, threshold, min_area=min_area, batch_size=batch_size))
            for item, frame in group:
                yield item, None if frame is None else next(found)

    def write(entry: tuple[SourceFrame, Detections | None]) -> tuple[tuple[int, int], Record]:
        item, found = entry
        if found is None:
            return item.order, {"frame": str(item.file), "reason": item.reason}
        record: Record = {"frame": str(item.file)} | ({} if item.index is None else {"index": item.index})
        if pictures:
            picture = folder / names(item)
            picture.parent.mkdir(exist_ok=True)
            found.save(picture)
            record["picture"] = picture.relative_to(folder).as_posix()
        return item.order, record | found.to_dict()

    part = folder / f".detections-{rank():05d}.jsonl"
    all_objects(None)  # processes start together, so that their time is that of the work
    started = time.perf_counter()
    try:
        with part.open("w", encoding="utf-8") as lines, tqdm(disable=not progress, unit="frame") as bar:
            for order, record in behind(write, finished(), threads=WRITERS, count=UNDER_WAY):
                lines.write(json.dumps([order, record]) + "\n")
                _count(result, record)
                bar.update()
                if report:
                    report(record)
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        if world_size() == 1:
            _merge([part], result.table)
    if world_size() > 1:
        result = _together(result, part)
    result.seconds = time.perf_counter() - started
    return result


class Names:
    """Where each frame's picture goes: by its file's name, numbered where several share it; a folder for each video."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.of: dict[Path, str] = {}
        taken: set[str] = set()
        for file in files:
            name, count = file.stem, 1
            while name in taken:
                count += 1
                name = f"{file.stem}_{count}"
            taken.add(name)
            self.of.setdefault(file, name)

    def __call__(self, item: SourceFrame) -> str:
        name = self.of[item.file]
        return f"{name}_detections.png" if item.index is None else f"{name}/{item.index:06d}_detections.png"


def _readable(item: SourceFrame) -> tuple[SourceFrame, Any]:
    """The frame as `detect` takes it, or the reason why it is none."""
    if item.pixels is None:
        return item, None
    try:
        return replace(item, pixels=None), unit_frame(item.pixels, item.label)
    except FrameError as error:
        return replace(item, pixels=None, reason=str(error)), None


def _count(result: BatchResult, record: Record) -> None:
    if "reason" in record:
        result.failures += 1
    else:
        result.frames += 1
        result.detections += len(record["detections"])


def _together(mine: BatchResult, part: Path) -> BatchResult:
    """The counts of all processes; the first of them merges their parts."""
    parts = [Path(p) for p in all_objects(str(part))]
    results = all_objects(mine)
    if is_main():
        _merge(parts, mine.table)
    return BatchResult(
        mine.table,
        frames=sum(r.frames for r in results),
        detections=sum(r.detections for r in results),
        failures=sum(r.failures for r in results),
        interrupted=any(r.interrupted for r in results),
    )


def _merge(parts: list[Path], table: Path) -> None:
    """Makes the table of the processes' lines and removes these."""
    with ExitStack() as stack:
        files = [stack.enter_context(part.open(encoding="utf-8")) for part in parts]
        records = (record for _, record in heapq.merge(*map(_lines, files), key=lambda entry: entry[0]))
        with replacing(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            (_write_json if table.suffix == ".json" else _write_csv)(records, file)
    for part in parts:
        part.unlink()


def _lines(file: TextIO) -> Iterator[tuple[list[int], Record]]:
    for line in file:
        with suppress(json.JSONDecodeError):  # the last line of a process that was stopped
            order, record = json.loads(line)
            yield order, record


def _write_json(records: Iterator[Record], file: TextIO) -> None:
    failed = []
    separator = "\n  "
    file.write('{"frames": [')
    for record in records:
        if "reason" in record:
            failed.append(record)
            continue
        file.write(separator + json.dumps(record))
        separator = ",\n  "
    file.write(f'\n ],\n "failed": {json.dumps(failed, indent=1)}\n}}\n')


def _write_csv(records: Iterator[Record], file: TextIO) -> None:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for record in records:
        writer.writerows(rows(record))


def rows(record: Record) -> Iterator[Record]:
    """One row for each detection of a frame, with the keys of the CSV table."""
    place = {key: record.get(key, "") for key in ("frame", "index", "picture")}
    for found in record.get("detections", ()):
        names = ("x", "y", "score", "area", "x0", "y0", "x1", "y1")
        values = (*found["centroid"], found["score"], found["area"], *found["box"])
        yield place | dict(zip(names, values, strict=True))
