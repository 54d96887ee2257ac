"""Frames one after the other, out of image files, pages of TIFF files and videos."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from serank.errors import FrameError
from serank.frames.reading import FRAME_SUFFIXES, VIDEO_SUFFIXES, count_pages, decode_pages
from serank.frames.scaling import Array
from serank.frames.videos import read_video
from serank.utils.text import listing, natural_key

PAGED_SUFFIXES = frozenset({".tif", ".tiff", ".npy", ".npz"})
NAMED = 3
"""Files that are passed over and named in a warning; the others are counted."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame, or why there is none."""

    file: Path
    index: int | None
    """Number of the page or of the video's frame, from 0; `None` where the file is one frame."""
    pixels: Array | None
    """As `serank.frames.reading.decode` gives them."""
    reason: str = ""
    """What is wrong with the frame, or with the rest of the file."""
    order: tuple[int, int] = (0, 0)
    """Number of the file among those read, and of this frame among those taken of it."""

    @property
    def label(self) -> str:
        """What messages call the frame."""
        return str(self.file) if self.index is None else f"{self.file}, frame {self.index}"


def find_sources(paths: Iterable[str | os.PathLike[str]], *, recursive: bool = False) -> list[Path]:
    """Files named by `paths`; a folder stands for the images and videos in it, sorted by name, numbers by value.

    In a folder `2.png` comes before `10.png`, since numbers count frames (`serank.utils.text.natural_key`). Files that
    are named themselves keep the order in which they are given.

    A path that doesn't exist stays in the list: reading it says so. Files in a folder that are neither, and broken
    links, are passed over with a warning (`UserWarning`) that counts and names them.

    Args:
        paths: files and folders.
        recursive: take the files of a folder's sub-folders too, but for hidden ones.

    Raises:
        FileNotFoundError: a folder holds none; the message names the sub-folders that do.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        folders = [path, *_folders(path)] if recursive else [path]
        files = [file for folder in folders for file in _in_order(frame_files(folder, videos=True))]
        if not files:
            suffixes = ", ".join(sorted(FRAME_SUFFIXES))
            raise FileNotFoundError(
                f"{path}: no image or video in this folder; expected {suffixes} files{_hint(path, recursive=recursive)}"
            )
        found += files
        for folder in folders:
            _warn_passed_over(folder)
    return found


def _in_order(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (natural_key(path.stem), path.name))


def _folders(folder: Path) -> list[Path]:
    """Sub-folders at any depth, in order, none hidden; links are not followed, since they may lead in circles."""
    found: list[Path] = []
    for child in _in_order(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            found += [child, *_folders(child)]
    return found


def _hint(folder: Path, *, recursive: bool) -> str:
    inside = [] if recursive else [f"{child.name}/" for child in _folders(folder) if frame_files(child, videos=True)]
    return f". There are some in {listing(inside, NAMED)}: name that folder, or pass --recursive" if inside else ""


def passed_over(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files in a folder that are neither image nor video, and broken links; none hidden."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    others = [p for p in visible if p.is_file() and p.suffix.lower() not in FRAME_SUFFIXES | VIDEO_SUFFIXES]
    return others, [p for p in visible if p.is_symlink() and not p.exists()]


def _warn_passed_over(folder: Path) -> None:
    for kind, files in zip(("other file", "broken link"), passed_over(folder), strict=True):
        if files:
            names = listing([file.name for file in files], NAMED)
            many = f"{len(files)} {kind}{'s' if len(files) > 1 else ''}"
            warnings.warn(f"{folder}: {many} passed over ({names})", stacklevel=3)


def frame_files(folder: Path, *, videos: bool = False) -> list[Path]:
    """Images, and `videos` if asked for, in a folder, sorted as text.

    None is hidden (macOS's `._NAME.png`, unfinished output).
    """
    suffixes = FRAME_SUFFIXES | VIDEO_SUFFIXES if videos else FRAME_SUFFIXES
    with os.scandir(folder) as entries:  # which knows files from folders without asking for each
        visible = [e for e in entries if PurePath(e.name).suffix.lower() in suffixes and not e.name.startswith(".")]
        # a link that leads nowhere is an error for some of them
        names = [e.name for e in visible if (Path(e).is_file() if e.is_symlink() else e.is_file())]
    return [folder / name for name in sorted(names)]


def read_sources(files: Iterable[Path], rank: int = 0, processes: int = 1, every: int = 1) -> Iterator[SourceFrame]:
    """The frames of each file in turn, or one process's share of them.

    A file or frame that can't be read is one entry with its reason, and the other files follow.

    Args:
        files: images, TIFF files of several pages, stacks (NPY, NPZ) and videos.
        rank: of this process. It decodes its share of the files that hold one frame; TIFF files of several pages,
            stacks and videos are decoded by every process, which takes its share of their frames.
        processes: that share the frames; together they yield each of them once.
        every: of a file of several frames, take the first one and each `every`-th after it; these are shared.

    Raises:
        ImportError: a video, and the extra that reads it isn't installed.
    """
    for number, file in enumerate(files):
        shared = processes > 1 and (_is_video(file) or _is_paged(file))
        if not shared and number % processes != rank:
            continue
        for position, frame in enumerate(_kept_frames(file, every)):
            if not shared or (number + position) % processes == rank:
                yield replace(frame, order=(number, position))


def _kept_frames(file: Path, every: int) -> Iterator[SourceFrame]:
    for position, frame in enumerate(_frames(file)):
        if frame.index is None or position % every == 0:
            yield frame


def _frames(file: Path) -> Iterator[SourceFrame]:
    index = 0
    try:
        if _is_video(file):
            for pixels in read_video(file):
                yield SourceFrame(file, index, pixels)
                index += 1
            if index == 0:
                raise FrameError(f"{file}: a video without frames")
        else:
            for page, pixels in decode_pages(file):
                yield SourceFrame(file, page, pixels)
    except (FrameError, FileNotFoundError) as error:
        yield SourceFrame(file, None, None, str(error))


def may_hold_several(file: Path) -> bool:
    """Whether a file of this name can hold several frames: a video, a TIFF file or a stack."""
    return file.suffix.lower() in VIDEO_SUFFIXES | PAGED_SUFFIXES


def _is_paged(file: Path) -> bool:
    # a TIFF file under another suffix is left to one process, so that others need not be opened by all
    return file.suffix.lower() in PAGED_SUFFIXES and count_pages(file) > 1


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES
