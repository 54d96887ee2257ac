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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from serank.frames.options import FrameOptions
from serank.frames.reading import VIDEO_SUFFIXES
from serank.frames.sources import SourceFrame, may_hold_several
from serank.inference.detections import Detections
from serank.inference.detector import Detector
from serank.inference.frame_files import FrameWriter, PictureNames
from serank.inference.run_places import Places, checked_places
from serank.inference.streaming import StreamOptions, detect_sources
from serank.inference.table_formats import Record
from serank.inference.tables import TABLE_FORMATS, open_table, table_path
from serank.inference.video import DEFAULT_RATE, frame_rate, video_writer
from serank.utils.distributed import all_objects, is_main, rank, world_size
from serank.utils.one_run import only_run
from serank.utils.prefetch import InOrder, threaded_map

if TYPE_CHECKING:
    from PIL import Image

WRITER_THREADS = 2
PENDING_RESULTS = 4
"""Results that are being written or wait for it, at most."""


@dataclass
class BatchResult:
    """What `write_detections` did.

    Attributes:
        table: the written table, of YOLO the folder of labels.
        frames: number of frames that detection finished on.
        detections: number of detections in them.
        failures: number of frames and files that could not be read.
        seconds: from the common start of all processes to the finished table.
        interrupted: whether Ctrl-C ended the run early.
        video: where the video was asked for.
    """

    table: Path
    frames: int = 0
    detections: int = 0
    failures: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    video: Path | None = None

    def count(self, record: Record) -> None:
        """Adds one record to the counts."""
        if "reason" in record:
            self.failures += 1
        else:
            self.frames += 1
            self.detections += len(record["detections"])


def write_detections(
    model: Detector,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    tta: int | None = None,
    min_area: int = 1,
    min_score: float = 0.0,
    batch_size: int = 1,
    every: int = 1,
    track: bool = False,
    confirm: tuple[int, int] | None = None,
    max_distance: float = 10.0,
    probability: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    options: FrameOptions | None = None,
    pictures: bool = True,
    video: str | os.PathLike[str] | None = None,
    table: str = "json",
    recursive: bool = False,
    report: Callable[[Record], None] | None = None,
    progress: bool = False,
) -> BatchResult:
    """Runs `model.detect` on files and folders and writes what it finds; `detect_files` yields it instead.

    Each frame's picture is `NAME_detections.png`, or `NAME/000012_detections.png` for one of several frames of a file.
    The table has the frames that are finished, whatever ends the run: Ctrl-C, an error, or, but for the last second, a
    kill. Frames that don't exist or can't be read are failures of the result, and the others go on. Started by
    torchrun, every process takes its share of the frames, and the first one makes the table at the end, in the order
    of the frames, also where another one was killed; `output` must then be one folder for all.

    File names are written with bytes that aren't UTF-8 as `\\xNN`.

    Args:
        model: the detector.
        paths: image files (of a TIFF file or a stack every page), videos, and folders of them, or one of these.
        output: folder to write to, made if it doesn't exist; not one that frames are read from.
        threshold: as for `SeRankDet.detect`.
        tta: as for `SeRankDet.detect`.
        min_area: as for `SeRankDet.detect`.
        min_score: as for `SeRankDet.detect`.
        batch_size: frames that are run at once.
        every: as for `detect_files`.
        track: as for `detect_files`; the table then has the track numbers.
        confirm: as for `detect_files`.
        max_distance: as for `detect_files`.
        probability: folder for the probability of each frame at its own size, 8-bit grey `NAME.png` (or
            `NAME/000012.png`), 255 for 1: `serank.evaluation.PredictionFolder` scores them, and
            `FolderDataset(..., soft=...)` gives them to a training as soft targets. Not `output` where pictures are
            written there. `None` writes none.
        masks: folder for the mask of each frame at its own size, of the detections in the table, 8-bit grey
            `NAME.png` as for `probability`, 255 on targets: what a data set of single frames has as masks. A folder of
            its own, without other masks: labels are not written over.
        options: what is known of the frames, the last arguments of `SeRankDet.detect`; `None` for nothing.
        pictures: write them; without, only the table.
        video: write the pictures as the frames of this video (`.mp4`, `.mkv`, `.mov` or `.avi`; H.264, or MPEG-4 where
            PyAV's FFmpeg has no encoder of it) instead of files; of one video, one TIFF file or image files of one
            size. It appears when the run ends, with the frames that are finished after Ctrl-C, and not after an error.
        table: `"json"` (`detections.json`: every frame, with its size and detections, and the failures), `"jsonl"`
            (`detections.jsonl`: the same, a line each), `"csv"` (`detections.csv`: a row for each detection, and one
            with empty fields for a frame without any), `"coco"` (`detections.coco.json`, with masks as runs) or
            `"yolo"` (`labels/NAME.txt` for each frame).
        recursive: take the frames in sub-folders too, but for hidden ones, those in the folders that are written, and
            maps and masks of an earlier run.
        report: is called with each record of this process, in order.
        progress: show a bar on standard error.

    Returns:
        Counts over all processes.

    Raises:
        FileNotFoundError: a folder without frames, or no path at all exists.
        ValueError: `output`, `probability` or `masks` holds the frames or is an empty path, `masks` holds others, two
            kinds of files in one folder that would go over each other, an unknown `table`, an argument out of its
            range, or a `video` of several videos, of frames of several sizes, or in several processes.
        TypeError: `options` are no `FrameOptions`.
        ImportError: a video, and the extra that reads and writes it isn't installed.
        BlockingIOError: another run is writing to `output`.
        OSError: `output`, `probability`, `masks` or `video` can't be written.
    """
    stream = StreamOptions(
        threshold=threshold,
        tta=tta,
        min_area=min_area,
        min_score=min_score,
        batch_size=batch_size,
        every=every,
        track=track,
        confirm=confirm,
        max_distance=max_distance,
        frames=options,
    )
    stream.check(model)
    if table not in TABLE_FORMATS:
        raise ValueError(f"table must be one of {', '.join(TABLE_FORMATS)}; got {table!r}")
    places = checked_places(paths, output, probability, masks, video, pictures=pictures, recursive=recursive)
    write = FrameWriter(
        places.folder,
        places.maps,
        places.masks,
        PictureNames(places.files),
        pictures=pictures and places.clip is None,
        drawn=places.clip is not None,
        runs=table == "coco",
    )
    with only_run(places.folder, ".detections.lock", lambda: _remove_lines(places.folder)):
        result = BatchResult(table_path(places.folder, table), video=places.clip)
        started = time.perf_counter()
        with _joined_table(places.folder, result.table):
            try:
                _run(model, stream, places, write, result, report=report, progress=progress)
            except KeyboardInterrupt:
                result.interrupted = True
            if world_size() > 1:
                result = _added(result, all_objects(result))
        result.seconds = time.perf_counter() - started
        return result


def _run(
    model: Detector,
    stream: StreamOptions,
    places: Places,
    write: FrameWriter,
    result: BatchResult,
    *,
    report: Callable[[Record], None] | None,
    progress: bool,
) -> None:
    """Detects in this process's share of the frames and writes what it finds, counted in `result` as it is done."""
    files, clip = places.files, places.clip
    # of files that hold several frames the number is not known before they are read
    total = None if any(map(may_hold_several, files)) else len(range(rank(), len(files), world_size()))
    with ExitStack() as stack:
        add = _record_writer(stack, places.folder, result.table)

        def finish(entry: tuple[tuple[int, int], Record]) -> None:
            add(*entry)
            result.count(entry[1])

        # by the threads that draw, as this one may run the network for long
        finished = InOrder(finish)

        def work(entry: tuple[int, tuple[SourceFrame, Detections | None]]) -> tuple[Record, Image.Image | None]:
            number, (item, found) = entry
            record, picture = write(item, found)
            finished.put(number, (item.order, record))
            return record, picture

        show = stack.enter_context(video_writer(clip, _clip_rate(files, stream.every))).add if clip else None
        bar = stack.enter_context(tqdm(total=total, disable=not progress, unit="frame"))
        # closed here: an error that is held, as in a notebook, would keep their threads
        source = stack.enter_context(closing(detect_sources(model, files, stream)))
        results = threaded_map(work, enumerate(source), threads=WRITER_THREADS, pending=PENDING_RESULTS)
        for record, picture in stack.enter_context(closing(results)):
            if show and picture is not None:
                show(picture)
            bar.update()
            if report:
                report(record)


def _clip_rate(files: Sequence[Path], every: int) -> Fraction:
    """Frames a second that keep the speed of the source."""
    return (frame_rate(files[0]) / every) if files[0].suffix.lower() in VIDEO_SUFFIXES else DEFAULT_RATE


def _remove_lines(folder: Path) -> None:
    """Removes the records of processes of a run that was killed."""
    for left in folder.glob(".detections-*"):
        left.unlink()


def _lines(folder: Path, process: int) -> Path:
    """The records of one of several processes, each with its order, a line each."""
    return folder / f".detections-{process:05d}.jsonl"


def _record_writer(stack: ExitStack, folder: Path, table: Path) -> Callable[[tuple[int, int], Record], object]:
    """Where records go: to the table in one process, to lines with their order in one of several."""
    if world_size() == 1:
        writer = open_table(table)
        stack.enter_context(writer)
        return lambda _, record: writer.add(record)
    # line by line, for the table that is made where this process is killed
    file = stack.enter_context(_lines(folder, rank()).open("w", encoding="utf-8", buffering=1))
    return lambda order, record: file.write(json.dumps([order, record]) + "\n")


@contextmanager
def _joined_table(folder: Path, table: Path) -> Iterator[None]:
    """Process 0 of several makes the table of all their lines at the end, and removes these.

    After an error it takes what is there, since another process may be gone; without any record an earlier table stays.
    """
    parts, failed = [_lines(folder, process) for process in range(world_size())], True
    try:
        yield
        failed = False
    finally:
        if world_size() > 1 and is_main():
            left = [part for part in parts if part.exists()] if failed else parts
            if not failed or any(part.stat().st_size for part in left):
                _merge(left, table)
            for part in left:
                part.unlink()


def _merge(parts: Sequence[Path], table: Path) -> None:
    """Writes the records of all parts to the table, in the order of the frames."""
    with ExitStack() as stack:
        files = [stack.enter_context(part.open(encoding="utf-8")) for part in parts]
        writer = open_table(table)
        stack.enter_context(writer)
        for _, record in heapq.merge(*map(_read_lines, files), key=lambda entry: entry[0]):
            writer.add(record)


def _added(mine: BatchResult, results: Sequence[BatchResult]) -> BatchResult:
    """The counts of all processes."""
    return BatchResult(
        mine.table,
        frames=sum(r.frames for r in results),
        detections=sum(r.detections for r in results),
        failures=sum(r.failures for r in results),
        interrupted=any(r.interrupted for r in results),
        video=mine.video,
    )


def _read_lines(file: TextIO) -> Iterator[tuple[list[int], Record]]:
    for line in file:
        with suppress(json.JSONDecodeError):  # the last line of a process that was stopped
            order, record = json.loads(line)
            yield order, record
