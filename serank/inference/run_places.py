"""What a run of detection reads, and where it writes: checked before the first frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from serank.frames.reading import VIDEO_SUFFIXES
from serank.frames.sources import frame_files
from serank.inference.maps import is_map_or_mask, is_mask
from serank.inference.streaming import existing_sources
from serank.inference.video import check_video
from serank.utils.distributed import world_size
from serank.utils.files import writable_folder


class Places(NamedTuple):
    """What a run reads and where it writes; the folders exist."""

    files: list[Path]
    folder: Path
    maps: Path | None
    masks: Path | None
    clip: Path | None


def checked_places(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    probability: str | os.PathLike[str] | None,
    masks: str | os.PathLike[str] | None,
    video: str | os.PathLike[str] | None,
    *,
    pictures: bool,
    recursive: bool,
) -> Places:
    """The files to read and the places to write to, whose folders are made; raises as `write_detections`."""
    given = {"output": output, "probability": probability, "masks": masks}
    folders: dict[str, Path] = {}
    for name, place in given.items():
        if place is not None:
            if not os.fspath(place):
                raise ValueError(f"{name} is an empty path; name a folder, '.' for this one")
            folders[name] = Path(place)
    given_paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not all(map(os.fspath, given_paths)):
        raise ValueError("paths holds an empty path; name a file or folder, '.' for this one")
    named = [Path(path) for path in given_paths]
    files = existing_sources(named, recursive=recursive)
    if recursive:
        files = _without_written(files, named, folders)
    for name, place in folders.items():
        _check_no_frames(name, place, files)
    clip = None if video is None else _check_clip(video, files)
    _check_apart(folders, pictures=pictures and clip is None)
    if "masks" in folders:
        _check_no_labels(folders["masks"], files, {place.resolve() for place in folders.values()})
    for place in folders.values():
        writable_folder(place)
    return Places(files, folders["output"], folders.get("probability"), folders.get("masks"), clip)


def _without_written(files: Sequence[Path], named: Sequence[Path], folders: dict[str, Path]) -> list[Path]:
    """The files of folders and their sub-folders without those that serank wrote: named ones all stay.

    Raises:
        ValueError: a folder to write to is one that is read.
        FileNotFoundError: nothing is left.
    """
    roots = {path.resolve() for path in named if path.is_dir()}
    for name, place in folders.items():
        if place.resolve() in roots:
            raise ValueError(
                f"{name} {str(place)!r} is read with its sub-folders (recursive), in which this run's files would be "
                "frames of the next one; choose a folder in it or another one"
            )
    inner = {place.resolve() for place in folders.values() if roots & set(place.resolve().parents)}
    within = {root for root in roots if inner & set(root.parents)}  # named, and so read
    by_name = set(named)
    kept = []
    for file in files:
        above = {(parent := file.parent.resolve()), *parent.parents}
        written = (inner & above and not within & above) or is_map_or_mask(file)
        if file in by_name or not written:
            kept.append(file)
    if not kept:
        raise FileNotFoundError(f"{', '.join(map(str, named))}: no frames but what serank detect wrote")
    return kept


def _check_no_frames(name: str, folder: Path, files: Sequence[Path]) -> None:
    """Raises ValueError where files are read from the folder that is to be written to."""
    if any(folder.resolve() == parent.resolve() for file in files for parent in (file.parent, file.resolve().parent)):
        raise ValueError(f"{name} {str(folder)!r} holds the frames themselves; choose another folder")


def _check_apart(folders: dict[str, Path], *, pictures: bool) -> None:
    """Raises ValueError where two kinds of files would go over each other."""
    resolved = {name: place.resolve() for name, place in folders.items()}
    masks, maps = resolved.get("masks"), resolved.get("probability")
    if masks is not None and masks == maps:
        raise ValueError(f"masks {str(folders['masks'])!r} is the folder of probability too; choose another folder")
    for name, place in resolved.items():
        # the picture of a.png would be the map of a_detections.png
        if pictures and name != "output" and place == resolved["output"]:
            raise ValueError(
                f"{name} {str(folders[name])!r} is the output folder, where the pictures go; choose another folder, or "
                "write no pictures (--no-pictures)"
            )


def _check_no_labels(folder: Path, files: Sequence[Path], written: set[Path]) -> None:
    """Raises ValueError where a folder of masks holds others than `serank detect` writes: labels, perhaps by hand.

    Looks at the folder and at those in it that the masks of files of several frames go to, but for other folders that
    this run writes to.
    """
    inner = [folder / stem for stem in sorted({file.stem for file in files})]
    for place in (folder, *(part for part in inner if part.resolve() not in written)):
        for file in frame_files(place) if place.is_dir() else ():
            if not is_mask(file):
                raise ValueError(
                    f"masks {str(folder)!r} holds {file.relative_to(folder).as_posix()!r}, which serank detect did not "
                    "write as a mask; choose another folder, so that labels stay"
                )


def _check_clip(video: str | os.PathLike[str], files: Sequence[Path]) -> Path:
    """The path of the video to write; raises ValueError where these files don't make one."""
    clip = check_video(video)
    if world_size() > 1:
        raise ValueError(f"video needs all frames in one process; got {world_size()} processes")
    if len(files) > 1 and any(file.suffix.lower() in VIDEO_SUFFIXES for file in files):
        raise ValueError(f"video {str(clip)!r} takes one video, or image files; got {len(files)} files")
    if any(clip.resolve() == file.resolve() for file in files):
        raise ValueError(f"video {str(clip)!r} is the file that is read; choose another name")
    return clip
