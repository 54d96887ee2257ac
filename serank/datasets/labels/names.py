"""Names for frames that come from many folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from serank.datasets.splits import bare_name

__all__ = ["frame_names"]


def frame_names(files: Sequence[Path], root: Path) -> list[str]:
    """A name without suffix for each frame file: its own, or with its folders where two would have one name.

    Args:
        files: of frames.
        root: folder of the data set, from which folders count.

    Raises:
        ValueError: a file occurs twice, or two names would still be equal.
    """
    names = [_safe(file.stem) for file in files]
    counts = Counter(name.lower() for name in names)  # some file systems take upper and lower case for one
    for i, file in enumerate(files):
        if counts[names[i].lower()] > 1:
            parts = file.relative_to(root).parent.parts if file.is_relative_to(root) else file.parent.parts[-2:]
            names[i] = _safe("_".join([*(part for part in parts if part != "images"), file.stem]))
    owner: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        other = owner.setdefault(name.lower(), file)
        if other is not file:
            twice = "is labelled twice" if other == file else f"and {other} would both be called {name!r}"
            raise ValueError(f"{file} {twice}; rename a frame, or import the label files one by one")
    return names


def _safe(stem: str) -> str:
    """A stem that a list gives back as it is: one that ends as an image file does would lose that ending there."""
    name = stem.strip().lstrip(".") or "frame"
    return name if bare_name(name) == name else name.replace(".", "_")
