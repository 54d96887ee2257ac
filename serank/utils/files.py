"""Text files; files and folders that are written whole or not at all, locks, and permissions."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".serank-"
"""How temporary names begin, by which those of a killed process are told from a user's hidden files."""


def text_file(file: Path) -> str:
    """Content of a UTF-8 file, a byte order mark left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Errors of writing that name no file."""


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
    except OSError as error:
        if error.errno not in NO_SPACE or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error  # of a full disk, which names no file
    finally:
        temporary.unlink(missing_ok=True)


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """`path`, a folder, made with its parents if it doesn't exist, once a file could be made in it.

    Raises:
        OSError: it can't be made or written to; names the folder and the reason.
    """
    target = Path(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=TEMPORARY, dir=target):
            pass
    except OSError as error:
        raise OSError(
            f"{target}: can't be written to: {error.strerror}; name another folder, or change its permissions"
        ) from error
    return target


def check_new_folder(path: str | os.PathLike[str]) -> Path:
    """`path`, once it is sure that a folder can be made there.

    Raises:
        FileExistsError: it is a file or a folder that is not empty.
        FileNotFoundError: its parent doesn't exist.
    """
    target = Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target}: is not an empty folder; name a new one or empty it first")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target}: its parent folder doesn't exist; make it first")
    return target


@contextmanager
def new_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; on success it becomes `path`, on any error it is removed.

    Args:
        path: new or empty, else `check_new_folder` raises; with `replace` also a folder that gives way on success.
        replace: whether it may hold something.
    """
    target = Path(path) if replace else check_new_folder(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name.lstrip('.')}-", dir=target.absolute().parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        share(temporary, 0o777)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        if old.exists() and not target.exists():  # whatever came between the two renames
            old.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


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


def remove_leftovers(path: str | os.PathLike[str], *, age: float = 0.0) -> None:
    """Removes what processes that were killed within `replacing(path)` left beside `path`.

    None may be writing it, unless only what wasn't changed for `age` seconds is removed.
    """
    target = Path(path)
    for leftover in target.parent.glob(f"{glob.escape(TEMPORARY + target.stem.lstrip('.'))}-*{target.suffix}"):
        with suppress(FileNotFoundError):  # another process removed it
            if time.time() - leftover.stat().st_mtime >= age:
                leftover.unlink()


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
