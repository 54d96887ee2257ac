"""Checkpoint folders: the names of their files, the bundled ones, and reading and writing them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from serank.errors import CheckpointError
from serank.utils.files import share

__all__ = ["CARD", "CONFIG", "FILES", "WEIGHTS", "Folder", "bundled", "read_card", "replacing_files"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FILES = (CONFIG, WEIGHTS, CARD)

TEMPORARY = ".serank-save-"
"""Prefix of the folder in which a save writes its files before they move into place."""


def bundled() -> dict[str, Path]:
    """Folders of the checkpoints that come with the package, by name."""
    root = Path(str(resources.files("serank"))) / "weights"
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / CONFIG).is_file()}


def read_card(name: str | os.PathLike[str]) -> str | None:
    """Text of the model card of a bundled checkpoint or a local folder; `None` for any other name or without a card."""
    folder = bundled().get(str(name), Path(name))
    return (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None


class Folder:
    """A checkpoint in a local folder.

    Args:
        folder: holds `config.json` and `model.safetensors`.

    Raises:
        CheckpointError: one of the two is missing or no regular file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                hint = f"; did you mean {folder / 'best'}?" if (folder / "best" / file).is_file() else ""
                raise CheckpointError(f"{folder}: no {file}; a checkpoint folder holds {CONFIG} and {WEIGHTS}{hint}")

    def fetch(self, file: str, limit: int) -> Path:
        """Path of a file of at most `limit` bytes.

        Raises:
            CheckpointError: the file is larger.
        """
        path = self.folder / file
        if path.stat().st_size > limit:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, expected at most {limit}")
        return path


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder inside `folder`; on success its files move to `folder`, each replaced atomically.

    After an error nothing in `folder` has changed. Temporary folders that killed saves left are removed first.

    Args:
        folder: made if it doesn't exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{TEMPORARY}*"):
        _remove(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        yield temporary
        for path in sorted(temporary.iterdir(), key=lambda path: path.name != WEIGHTS):
            share(path, 0o666)
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(leftover: Path) -> None:
    """Removes the temporary folder of a killed save; anything else of that name stays."""
    if leftover.is_symlink() or not leftover.is_dir():
        return
    if all(path.name in FILES and not path.is_dir() for path in leftover.iterdir()):
        shutil.rmtree(leftover, ignore_errors=True)
