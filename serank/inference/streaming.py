"""Detections of many frames, one after the other: folders, files and videos, tracked if asked for.

Reading runs ahead of the network in a thread of its own, and nothing is kept that grows with the number of frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from serank.errors import FrameError
from serank.frames.frame import FramePreparer
from serank.frames.options import FrameOptions
from serank.frames.reading import VIDEO_SUFFIXES
from serank.frames.sources import SourceFrame, find_sources, read_sources
from serank.inference.detections import Detections, FrameSource
from serank.inference.detector import Detector
from serank.inference.tracking import CentroidTracker, check_tracking
from serank.utils.checks import check_count
from serank.utils.distributed import rank, world_size
from serank.utils.prefetch import prefetch

PREFETCHED_FRAMES = 4
"""Frames that are read in advance, besides those of the next batch; few, since frames may be large."""


@dataclass(frozen=True)
class StreamOptions:
    """What `detect_files` and `write_detections` are asked for; their arguments say what each means."""

    threshold: float | None = None
    tta: int | None = None
    min_area: int = 1
    min_score: float = 0.0
    batch_size: int = 1
    every: int = 1
    track: bool = False
    confirm: tuple[int, int] | None = None
    max_distance: float = 10.0
    frames: FrameOptions | None = None

    @property
    def tracks(self) -> bool:
        """Whether frames are tracked: asked for, or needed to confirm."""
        return self.track or self.confirm is not None

    def check(self, model: Detector) -> None:
        """Raises ValueError for what can't be run."""
        model.check_options(
            self.threshold,
            tta=self.tta,
            min_area=self.min_area,
            min_score=self.min_score,
            batch_size=self.batch_size,
        )
        check_count(self.every, "every")
        if self.frames is not None and not isinstance(self.frames, FrameOptions):
            raise TypeError(f"options must be serank.frames.FrameOptions; got {type(self.frames).__name__}")
        check_tracking(self.max_distance, self.confirm)
        if self.tracks and world_size() > 1:
            raise ValueError(
                f"track and confirm need all frames of a sequence in one process; got {world_size()} processes"
            )


def detect_files(
    model: Detector,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
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
    options: FrameOptions | None = None,
    recursive: bool = False,
    skipped: Callable[[FrameSource, str], None] | None = None,
) -> Iterator[Detections]:
    """Runs `model.detect` on the frames of folders, files and videos; yields what each frame holds, in order.

    The generator behind `serank detect`, with the same options. Each `Detections` says in `source` which file, page
    and frame it is of. Started by torchrun, every process yields its share of the frames.

    With `track`, detections that belong to one moving target share a number in `Detections.tracks`. A video, a TIFF
    file of several pages, and the image files of a folder that follow each other are a sequence each; no track goes
    from one to the next. A frame that can't be read counts as one without detections. See `CentroidTracker` for how.

    Args:
        model: the detector.
        paths: image files (of a TIFF file or a stack every page), videos, and folders of them, or one of these.
        threshold: as for `SeRankDet.detect`.
        tta: as for `SeRankDet.detect`.
        min_area: as for `SeRankDet.detect`.
        min_score: as for `SeRankDet.detect`.
        batch_size: frames that are run at once.
        every: of videos, stacks and TIFF files of several pages, run the first frame and each `every`-th after it.
        track: number detections by target.
        confirm: `(M, N)`: leave out detections whose target was not seen in M of the last N frames that were run, this
            one included. False alarms that come and go are left out so, and the first M - 1 sightings of targets.
            Implies `track`.
        max_distance: farthest that a target moves between two frames that are run, in pixels.
        options: what is known of the frames, the last arguments of `SeRankDet.detect`; `None` for nothing.
        recursive: take the frames in sub-folders too, but for hidden ones.
        skipped: is called for each frame or file that can't be read, with its place and the reason, and the others go
            on; `None` raises FrameError there.

    Raises:
        FileNotFoundError: a folder without frames, or no path at all exists.
        ValueError: an argument is out of its range, or `track` in several processes.
        ImportError: a video, and the extra that reads it isn't installed.
        serank.errors.FrameError: a frame or file can't be read, and `skipped` is `None`.
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
    files = existing_sources(paths, recursive=recursive)

    def results() -> Iterator[Detections]:
        with closing(detect_sources(model, files, stream)) as found_in:
            for item, found in found_in:
                if found is not None:
                    yield found
                elif skipped is not None:
                    skipped(frame_source(item), item.reason)
                else:
                    raise FrameError(f"{item.reason}; give skipped= a function to go on with the other frames")

    return results()  # what is wrong with the arguments is raised by the call, not by the first frame


def existing_sources(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, recursive: bool = False
) -> list[Path]:
    """The files that `paths` stands for, as `find_sources` gives them.

    Raises:
        FileNotFoundError: a folder without frames, or none of the files exists.
    """
    files = find_sources([paths] if isinstance(paths, (str, os.PathLike)) else paths, recursive=recursive)
    if not any(file.exists() for file in files):
        raise FileNotFoundError(f"{', '.join(map(str, files)) or 'no paths'}: no such file or folder")
    return files


def detect_sources(
    model: Detector, files: Sequence[Path], options: StreamOptions
) -> Generator[tuple[SourceFrame, Detections | None], None, None]:
    """This process's frames of the files, each with its detections, or `None` and a reason where it can't be read.

    Closing the generator stops the thread that reads.
    """
    preparer = FramePreparer(model.frame_spec, options.frames)
    read = prefetch(_read(files, options.every, preparer), PREFETCHED_FRAMES + options.batch_size - 1)
    with closing(read) as items:
        yield from _detected(model, items, options)


def _detected(
    model: Detector, items: Iterator[tuple[SourceFrame, Any]], options: StreamOptions
) -> Iterator[tuple[SourceFrame, Detections | None]]:
    tracker = CentroidTracker(options.max_distance, options.confirm) if options.tracks else None
    sequence: Path | None = None
    while group := list(islice(items, options.batch_size)):
        frames = [frame for _, frame in group if frame is not None]
        results = iter(
            model.detect(
                frames,
                options.threshold,
                tta=options.tta,
                min_area=options.min_area,
                min_score=options.min_score,
                batch_size=options.batch_size,
            )
        )
        for item, frame in group:
            if tracker is not None and _sequence(item) != sequence:
                tracker.reset()
                sequence = _sequence(item)
            if frame is None:
                if tracker is not None:
                    tracker.skip()
                yield item, None
                continue
            found = replace(next(results), source=frame_source(item))
            yield item, found if tracker is None else tracker.update(found)


def frame_source(item: SourceFrame) -> FrameSource:
    """The file, page and frame number of a frame that was read."""
    if item.file.suffix.lower() in VIDEO_SUFFIXES:
        return FrameSource(item.file, frame=item.index)
    return FrameSource(item.file, page=item.index)


def _sequence(item: SourceFrame) -> Path:
    """What the frames of one sequence have in common: their file, or the folder of files of one frame."""
    # a video that can't be read has no index
    single = item.index is None and item.file.suffix.lower() not in VIDEO_SUFFIXES
    return item.file.parent if single else item.file


def _read(files: Sequence[Path], every: int, preparer: FramePreparer) -> Iterator[tuple[SourceFrame, Any]]:
    for item in read_sources(files, rank(), world_size(), every):
        yield _prepare(item, preparer)


def _prepare(item: SourceFrame, preparer: FramePreparer) -> tuple[SourceFrame, Any]:
    """The frame as `detect` takes it, or the reason why it is none."""
    if item.pixels is None:
        return item, None
    try:
        return replace(item, pixels=None), preparer.prepare(item.pixels, item.label, item.file)
    except FrameError as error:
        return replace(item, pixels=None, reason=str(error)), None
