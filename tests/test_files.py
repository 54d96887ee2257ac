"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from serank.utils.files import replacing

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permission bits")


@pytest.mark.parametrize("name", ["frame.png", "log.csv", "plain", "archive.tar.gz", ".hidden"])
def test_success(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    with replacing(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary != target
        assert temporary.suffix == target.suffix
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_old_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "log.csv"
    target.write_text("old")
    with replacing(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", ["old", None])
def test_error_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: BaseException, old: str | None) -> None:
    target = tmp_path / "log.csv"
    if old is not None:
        target.write_text(old)

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert [p.read_text() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def test_temporary_that_is_gone(tmp_path: Path) -> None:
    """A writer that moves its file away leaves nothing to put in place; the old file stays."""
    target = tmp_path / "log.csv"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as temporary:
            temporary.unlink()

    with pytest.raises(FileNotFoundError):
        write()
    assert target.read_text() == "old"


def test_target_that_can_not_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "folder.png"
    (target / "inside").mkdir(parents=True)

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("new")

    with pytest.raises(OSError, match=r"folder\.png"):
        write()
    assert list(tmp_path.iterdir()) == [target]


def test_missing_folder(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "nowhere/log.csv"):
            pytest.fail("nothing can be written there")

    with pytest.raises(FileNotFoundError, match="nowhere"):
        write()


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with replacing("log.csv") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "log.csv").read_text() == "new"


@posix
@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, expected: int) -> None:
    target = tmp_path / "log.csv"
    before = os.umask(umask)
    try:
        with replacing(target) as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == expected
