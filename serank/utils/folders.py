"""Writing folders whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serank.utils.files import share

__all__ = ["check_new_folder", "new_folder"]


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
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; on success it becomes `path`, on any error it is removed.

    Raises:
        FileExistsError: as `check_new_folder`.
        FileNotFoundError: as `check_new_folder`.
    """
    target = check_new_folder(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.absolute().parent))
    try:
        yield temporary
        share(temporary, 0o777)
        if target.exists():
            target.rmdir()  # empty; Windows does not replace folders
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
