"""Files are written whole or not at all; locks; signals that end a run."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serank.cli import main
from serank.utils.files import locked, replacing
from serank.utils.signals import stop_signals

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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell the umask")
def test_the_umask_is_read_without_setting_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda _: pytest.fail("another thread may make a file at this moment"))
            with replacing(tmp_path / "log.csv"):
                pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log.csv").stat().st_mode) == 0o640


HOLDER = """
import sys, time
from serank.utils.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@posix
def test_a_lock_is_held_by_one_and_freed_by_a_kill(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with locked(lock):
        assert lock.exists()
        with pytest.raises(BlockingIOError), locked(lock):
            pytest.fail("it is held")
        assert lock.exists()
    assert not lock.exists()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError), locked(lock):
        pytest.fail("it is held")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert lock.exists()
    with locked(lock):
        pass
    assert not lock.exists()


@posix
def test_a_lock_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), locked(tmp_path / "nowhere" / ".lock"):
        pytest.fail("there is no folder")


@posix
def test_stop_signals_raise_in_the_main_thread_alone() -> None:
    with stop_signals() as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as received:
            signal.raise_signal(signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)

    def other() -> None:
        with stop_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize("command", ["train", "evaluate --output", "evaluate --save", "detect"])
@pytest.mark.parametrize("place", ["a file", "/proc"])
def test_an_output_that_cannot_be_written_is_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    if place == "/proc" and not Path(place).is_dir():
        pytest.skip("needs /proc")
    (tmp_path / "a file").touch()
    target = Path(place if place == "/proc" else tmp_path / place) / "inside" / "run"
    name, *option = command.split()
    if name == "detect":  # frames are looked for first, so that none is read from where it writes
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "frame.png")
        arguments = [str(tmp_path / "frame.png"), "--output", str(target)]
    else:
        more = ["--budget", "1e-5"] if option == ["--save"] else []
        arguments = [str(tmp_path / "missing"), *(option or ["--output"]), str(target), *more]
    assert main([name, *arguments]) == 1
    error = capsys.readouterr().err
    shown = target.parent if name == "evaluate" else target
    assert f"serank {name}: {shown}: can't be written to: " in error
    assert "missing" not in error
