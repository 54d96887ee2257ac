"""Atomic writes, permissions and digests of files."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked", "remove_leftovers", "replacing", "sha256", "share"]

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


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a lock file, removed at the end; the lock of a process that was killed counts no more.

    Windows and file systems without locks hold none: there this does nothing.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file can't be written.
    """
    if fcntl is None:
        yield
        return
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(handle)
                raise
        # whoever held it may have removed the file between opening and locking; then it locks nothing
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):  # noqa: PTH116
                break
        os.close(handle)
    try:
        yield
    finally:
        Path(path).unlink(missing_ok=True)
        os.close(handle)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Removes what processes that were killed within `replacing(path)` left beside `path`; none may be writing it."""
    target = Path(path)
    for leftover in target.parent.glob(f"{glob.escape(TEMPORARY + target.stem.lstrip('.'))}-*{target.suffix}"):
        leftover.unlink(missing_ok=True)


def share(path: Path, mode: int) -> None:
    """Gives a file or folder of `tempfile`, which makes them private, the usual permissions: `mode` less the umask."""
    path.chmod(mode & ~_umask())


def _umask() -> int:
    """The process's umask; where the system tells it, without setting it, which other threads would notice."""
    with suppress(OSError):
        found = re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
        if found:
            return int(found[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def sha256(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal digits."""
    with path.open("rb") as stream:
        # hashlib.file_digest needs Python 3.11
        digest = hashlib.sha256()
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
