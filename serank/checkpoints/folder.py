"""Checkpoint folders: the names of their files, and the bundled ones."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from serank.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FILES = (CONFIG, WEIGHTS, CARD)


def bundled() -> dict[str, Path]:
    """Folders of the checkpoints that come with the package, by name."""
    root = Path(str(resources.files("serank"))) / "weights"
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / CONFIG).is_file()}


def read_card(name: str | os.PathLike[str]) -> str | None:
    """Text of the model card of a bundled checkpoint or a local folder; `None` for any other name or without a card."""
    folder = (bundled().get(name) if isinstance(name, str) else None) or Path(name)
    return (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None


class Folder:
    """A checkpoint in a local folder; raises CheckpointError where a file of it is missing or no regular file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                hint = f"; did you mean {folder / 'best'}?" if (folder / "best" / file).is_file() else ""
                raise CheckpointError(f"{folder}: no {file}; a checkpoint folder holds {CONFIG} and {WEIGHTS}{hint}")

    def fetch(self, file: str, limit: int) -> Path:
        """Path of a file; raises CheckpointError if it has more than `limit` bytes."""
        path = self.folder / file
        if path.stat().st_size > limit:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, expected at most {limit}")
        return path
