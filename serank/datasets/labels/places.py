"""Where the frames of label files lie, their names, and which split a path speaks of."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from serank.datasets.splits import bare_name
from serank.frames.reading import FRAME_SUFFIXES, VIDEO_SUFFIXES

_SPLIT = re.compile(r"(?:^|[^a-z])(trainval|train|validation|valid|val|test)(?![a-z])")
_SAME = {"valid": "val", "validation": "val"}


def visible(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder whose names match a pattern, sorted, none hidden or in a hidden folder; follows links."""
    found, walked = [], set()
    for base, folders, names in os.walk(folder, followlinks=True):
        if (real := Path(base).resolve()) in walked:  # by way of a link
            folders.clear()
            continue
        walked.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(base, name) for name in names if not name.startswith(".") and fnmatchcase(name, pattern)]
    return sorted(p for p in found if p.is_file())


def split_of(path: Path) -> str | None:
    """The split that a relative path names, the file's own name before its folders: `train/_annotations.coco.json`,
    `instances_val2017.json`, `labels/test/a.txt`; `valid` and `validation` mean `val`."""
    for part in (path.stem, *reversed(path.parent.parts)):
        if found := _SPLIT.search(part.lower()):
            return _SAME.get(found[1], found[1])
    return None


def find_frame(name: str, folders: Iterable[Path], where: str) -> Path:
    """The file of a frame that a label file names, looked for in some folders.

    Tried in each folder: the name with its folders, then its last part; a name without an image's suffix with each.

    Raises:
        FileNotFoundError: in none of them, or a video.
    """
    folders = list(dict.fromkeys(folders))
    path = PurePosixPath(name.replace("\\", "/"))  # Windows tools write back slashes
    tries = [str(path)] if str(path) == path.name else [str(path), path.name]
    if path.suffix.lower() not in FRAME_SUFFIXES:
        tries = [t + suffix for t in tries for suffix in sorted(FRAME_SUFFIXES)]
    for attempt in tries:
        for folder in folders:
            if path.name and (folder / attempt).is_file():
                return folder / attempt
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise FileNotFoundError(
            f"{where}: {name!r} is a video; write its frames to files of their own and name these, since data sets "
            "take one frame a file"
        )
    looked = ", ".join(str(folder) for folder in folders[:6])
    raise FileNotFoundError(f"{where}: no frame {name!r} in {looked}; name the folder of the frames (--images)")


def frame_names(files: Sequence[Path], root: Path) -> list[str]:
    """A name without suffix for each frame file: its own, or with its folders where two would have one name.

    All frames of a folder are named in one way, so that a sequence stays one. Folders count from `root`, that of the
    data set.

    Raises:
        ValueError: a file occurs twice, or two names would still be equal.
    """
    names = [_safe(file.stem) for file in files]
    counts = Counter(name.lower() for name in names)  # some file systems take upper and lower case for one
    shared = {file.parent for name, file in zip(names, files, strict=True) if counts[name.lower()] > 1}
    for i, file in enumerate(files):
        if file.parent in shared:
            parts = file.relative_to(root).parent.parts if file.is_relative_to(root) else file.parent.parts[-2:]
            names[i] = _safe("_".join([*(part for part in parts if part != "images"), file.stem]))
    owner: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        other = owner.setdefault(name.lower(), file)
        if other is not file:
            if other == file:
                raise ValueError(
                    f"{file} is labelled twice; import the label files one by one or, where it is a recording, write "
                    "its frames to files of their own, since data sets take one frame a file"
                )
            raise ValueError(f"{file} and {other} would both be called {name!r}; rename a frame")
    return names


def _safe(stem: str) -> str:
    """A stem that a list gives back as it is: one that ends as an image file does would lose that ending there."""
    name = stem.strip().lstrip(".") or "frame"
    return name if bare_name(name) == name else name.replace(".", "_")
