"""Writing files whole or not at all, and telling one content from another."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["remove_leftovers", "replacing", "sha256", "share"]

TEMPORARY = ".serank-"
"""How temporary names begin, by which those of a killed process are told from a user's hidden files."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name beside `path`; on success the file moves to `path`, on any error it is removed.

    The temporary name keeps the suffix, from which many writers tell the format.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: its folder doesn't exist; make it first")
    handle, name = tempfile.mkstemp(
        prefix=f"{TEMPORARY}{target.stem.lstrip('.')}-", suffix=target.suffix, dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        share(temporary, 0o666)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Removes what processes that were killed within `replacing(path)` left beside `path`; none may be writing it."""
    target = Path(path)
    for leftover in target.parent.glob(f"{glob.escape(TEMPORARY + target.stem.lstrip('.'))}-*{target.suffix}"):
        leftover.unlink(missing_ok=True)


def share(path: Path, mode: int) -> None:
    """Gives a file or folder of `tempfile`, which makes them private, the usual permissions: `mode` less the umask."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def sha256(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal digits."""
    with path.open("rb") as stream:
        # hashlib.file_digest needs Python 3.11
        digest = hashlib.sha256()
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
