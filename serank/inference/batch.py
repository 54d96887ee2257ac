"""Detection over files and folders: a picture for each frame, and one table of all detections.

Reading, the network and writing overlap, and nothing is kept in memory that grows with the number of frames. One
process writes the table as it goes; each of several writes its records to a file of lines, from which the first one
makes the table at the end.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from serank.errors import FrameError
from serank.frames.frame import FramePreparer
from serank.frames.options import FrameOptions
from serank.frames.sources import SourceFrame, find_sources, may_hold_several, read_sources
from serank.inference.detections import Detections
from serank.inference.detector import Detector
from serank.inference.tables import TABLE_FORMATS, Record, TableWriter
from serank.utils.checks import check_count
from serank.utils.distributed import all_objects, from_main, is_main, rank, world_size
from serank.utils.files import locked
from serank.utils.names import printable
from serank.utils.prefetch import prefetch, threaded_map

__all__ = ["BatchResult", "detect_files"]

PREFETCHED_FRAMES = 4
"""Frames that are read in advance, besides those of the next batch; few, since frames may be large."""
WRITER_THREADS = 2
PENDING_RESULTS = 4
"""Results that are being written or wait for it, at most."""


@dataclass
class BatchResult:
    """What `detect_files` did.

    Attributes:
        table: the written table.
        frames: number of frames that detection finished on.
        detections: number of detections in them.
        failures: number of frames and files that could not be read.
        seconds: from the common start of all processes to the finished table.
        interrupted: whether Ctrl-C ended the run early.
    """

    table: Path
    frames: int = 0
    detections: int = 0
    failures: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def count(self, record: Record) -> None:
        """Adds one record to the counts."""
        if "reason" in record:
            self.failures += 1
        else:
            self.frames += 1
            self.detections += len(record["detections"])


def detect_files(
    model: Detector,
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    min_area: int = 1,
    batch_size: int = 1,
    options: FrameOptions | None = None,
    pictures: bool = True,
    table: str = "json",
    report: Callable[[Record], None] | None = None,
    progress: bool = False,
) -> BatchResult:
    """Runs `model.detect` on files and folders and writes what it finds.

    Each frame's picture is `NAME_detections.png`, or `NAME/000012_detections.png` for one of several frames of a file.
    The table `detections.json` or `detections.csv` has the frames that are finished, whatever ends the run: Ctrl-C, an
    error, or, but for the last second, a kill. Frames that don't exist or can't be read are failures of the result,
    and the others go on. Started by torchrun, every process takes its share of the frames, and the first one makes the
    table at the end, in the order of the frames; `output` must then be one folder for all.

    File names are written with bytes that aren't UTF-8 as `\\xNN`.

    Args:
        model: the detector.
        paths: image files (of a TIFF file every page), videos, and folders of them.
        output: folder to write to, made if it doesn't exist; not one that frames are read from.
        threshold: as for `SeRankDet.detect`.
        min_area: as for `SeRankDet.detect`.
        batch_size: frames that are run at once.
        options: what is known of the frames, the last arguments of `SeRankDet.detect`; `None` for nothing.
        pictures: write them; without, only the table.
        table: `"json"` (every frame, with its size and detections, and the failures) or `"csv"` (a row for each
            detection, and one with empty fields for a frame without any).
        report: is called with each record of this process, in order.
        progress: show a bar on standard error.

    Returns:
        Counts over all processes.

    Raises:
        FileNotFoundError: a folder without frames, or no path at all exists.
        ValueError: `output` holds the frames, an unknown `table`, or a bad `threshold`, `min_area` or `batch_size`.
        BlockingIOError: another run is writing to `output`.
        OSError: `output` can't be written.
    """
    check_count(min_area, "min_area")
    check_count(batch_size, "batch_size")
    model.check_options(threshold, min_area)
    if table not in TABLE_FORMATS:
        raise ValueError(f'table must be "json" or "csv"; got {table!r}')
    files = find_sources(paths)
    if not any(file.exists() for file in files):
        raise FileNotFoundError(f"{', '.join(map(str, files)) or 'no paths'}: no such file or folder")
    folder = Path(output)
    if any(folder.resolve() == parent.resolve() for file in files for parent in (file.parent, file.resolve().parent)):
        raise ValueError(f"output {str(folder)!r} holds the frames themselves; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    names = PictureNames(files)
    preparer = FramePreparer(model.frame_spec.scaling, options)

    def read() -> Iterator[tuple[SourceFrame, Any]]:
        for item in read_sources(files, rank(), world_size()):
            yield _prepare(item, preparer)

    def detect() -> Iterator[tuple[SourceFrame, Detections | None]]:
        items = prefetch(read(), PREFETCHED_FRAMES + batch_size - 1)
        while group := list(islice(items, batch_size)):
            frames = [frame for _, frame in group if frame is not None]
            found = iter(model.detect(frames, threshold, min_area=min_area, batch_size=batch_size))
            for item, frame in group:
                yield item, None if frame is None else next(found)

    def write_picture(entry: tuple[SourceFrame, Detections | None]) -> tuple[tuple[int, int], Record]:
        item, found = entry
        record: Record = {"frame": printable(str(item.file))}
        if found is None:
            return item.order, record | {"reason": printable(item.reason)}
        if item.index is not None:
            record["index"] = item.index
        if pictures:
            picture = folder / names(item)
            picture.parent.mkdir(exist_ok=True)
            found.save(picture)
            record["picture"] = picture.relative_to(folder).as_posix()
        return item.order, record | found.to_dict()

    lines = folder / f".detections-{rank():05d}.jsonl"
    # of files that hold several frames the number is not known before they are read
    total = None if any(map(may_hold_several, files)) else len(range(rank(), len(files), world_size()))
    with _one_run(folder):
        result = BatchResult(folder / f"detections.{table}")
        started = time.perf_counter()
        try:
            with ExitStack() as stack:
                add = _record_writer(stack, result.table, lines)
                bar = stack.enter_context(tqdm(total=total, disable=not progress, unit="frame"))
                results = threaded_map(write_picture, detect(), threads=WRITER_THREADS, pending=PENDING_RESULTS)
                for order, record in results:
                    add(order, record)
                    result.count(record)
                    bar.update()
                    if report:
                        report(record)
        except KeyboardInterrupt:
            result.interrupted = True
        if world_size() > 1:
            result = _join(result, lines)
        result.seconds = time.perf_counter() - started
        return result


@contextmanager
def _one_run(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder; all processes of this run start together, or fail if it is taken."""
    with ExitStack() as stack:
        taken = False
        if is_main():
            try:
                stack.enter_context(locked(folder / ".detections.lock"))
            except BlockingIOError:
                taken = True
            else:
                for left in folder.glob(".detections-*"):  # by a run that was killed
                    left.unlink()
        if from_main(taken):
            raise BlockingIOError(f"{folder}: another run is writing to this folder; wait for it or choose another one")
        yield


class PictureNames:
    """Where each frame's picture goes: by its file's name, numbered where several share it; a folder for each video."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._names: dict[Path, str] = {}
        taken: set[str] = set()
        for file in files:
            name, count = printable(file.stem), 1
            while name in taken:
                count += 1
                name = f"{printable(file.stem)}_{count}"
            taken.add(name)
            self._names.setdefault(file, name)

    def __call__(self, item: SourceFrame) -> str:
        name = self._names[item.file]
        return f"{name}_detections.png" if item.index is None else f"{name}/{item.index:06d}_detections.png"


def _prepare(item: SourceFrame, preparer: FramePreparer) -> tuple[SourceFrame, Any]:
    """The frame as `detect` takes it, or the reason why it is none."""
    if item.pixels is None:
        return item, None
    try:
        return replace(item, pixels=None), preparer.prepare(item.pixels, item.label, item.file)
    except FrameError as error:
        return replace(item, pixels=None, reason=str(error)), None


def _record_writer(stack: ExitStack, table: Path, lines: Path) -> Callable[[tuple[int, int], Record], object]:
    """Where records go: to the table in one process, to lines with their order in one of several."""
    if world_size() == 1:
        writer = stack.enter_context(TableWriter(table))
        return lambda _, record: writer.add(record)
    file = stack.enter_context(lines.open("w", encoding="utf-8"))
    return lambda order, record: file.write(json.dumps([order, record]) + "\n")


def _join(mine: BatchResult, lines: Path) -> BatchResult:
    """The counts of all processes; the first of them makes the table of their lines, and removes these."""
    parts = [Path(part) for part in all_objects(str(lines))]
    results = all_objects(mine)
    if is_main():
        with ExitStack() as stack:
            files = [stack.enter_context(part.open(encoding="utf-8")) for part in parts]
            writer = stack.enter_context(TableWriter(mine.table))
            for _, record in heapq.merge(*map(_read_lines, files), key=lambda entry: entry[0]):
                writer.add(record)
        for part in parts:
            part.unlink()
    return BatchResult(
        mine.table,
        frames=sum(r.frames for r in results),
        detections=sum(r.detections for r in results),
        failures=sum(r.failures for r in results),
        interrupted=any(r.interrupted for r in results),
    )


def _read_lines(file: TextIO) -> Iterator[tuple[list[int], Record]]:
    for line in file:
        with suppress(json.JSONDecodeError):  # the last line of a process that was stopped
            order, record = json.loads(line)
            yield order, record
