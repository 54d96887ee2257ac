"""Commands that are told to stop: what was done is kept, nothing half stays, and the exit status says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import write_folder
from serank.inference import write_detections
from serank.synthetic import SyntheticScenes
from serank.utils.signals import stop_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

FRAMES = 300
"""Far more than are done before the signal."""


def test_a_second_signal_does_not_disturb_what_the_first_one_began(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_signals() as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert received == [signal.SIGTERM]
        monkeypatch.setattr("serank.utils.signals.SAME_STOP", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_ctrl_c_under_torchrun_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the terminal, and once more from torchrun, which hands it on."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) == before


def data(folder: Path, count: int = 4) -> Path:
    scenes = SyntheticScenes(count, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5)
    return write_folder(scenes, folder)


def training(folder: Path, output: Path, *more: str) -> list[str]:
    given = ["--width", "2", "--working-size", "64", "--crop", "32", "--batch-size", "2", "--workers", "0"]
    return ["train", str(data(folder)), *given, "--val-split", "", "--output", str(output), *more]


def test_training_that_is_stopped_while_it_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = torch.save, 0

    def stopped(state: object, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGTERM)
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", stopped)
        assert main(training(tmp_path / "data", tmp_path / "run", "--epochs", "3")) == 128 + signal.SIGTERM
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["last.pt", "log.csv"]
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["epoch"] == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_report_that_is_stopped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `detect` and `train`, every command that writes takes SIGTERM as Ctrl-C."""
    SeRankDet(width=1, working_size=64).save_pretrained(tmp_path / "model")

    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    command = ["evaluate", str(data(tmp_path / "data")), "--checkpoint", str(tmp_path / "model")]
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", stopped)
        assert main([*command, "--output", str(tmp_path / "report")]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith("serank evaluate: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"]


# ---------- several processes ----------


def noise(file: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)).save(file)


def as_one_of_two(monkeypatch: pytest.MonkeyPatch, other_ends: Callable[[], None]) -> None:
    """Makes this process the first of two, of which the other is gone when they join."""

    def gone(_: object) -> None:
        other_ends()
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr("serank.inference.batch.world_size", lambda: 2)
    monkeypatch.setattr("serank.inference.batch.all_objects", gone)


def test_the_table_is_made_where_another_process_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(tmp_path / "a.png")
    other: dict[str, Any] = {"frame": "b.png", "height": 4, "width": 4, "detections": []}

    def killed() -> None:
        line = json.dumps([[1, 0], other])
        (tmp_path / "out" / ".detections-00001.jsonl").write_text(f"{line}\n{line[:-9]}")

    as_one_of_two(monkeypatch, killed)
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        write_detections(SeRankDet(width=1).eval(), [tmp_path / "a.png"], tmp_path / "out", pictures=False)
    table = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(frame["frame"]).name for frame in table["frames"]] == ["a.png", "b.png"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["detections.json"]


def test_an_earlier_table_stays_where_no_frame_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "detections.json").write_text("earlier")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    as_one_of_two(monkeypatch, lambda: None)
    monkeypatch.setattr(SeRankDet, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        write_detections(SeRankDet(width=1).eval(), [tmp_path / "a.png"], tmp_path / "out", pictures=False)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["earlier"]


class Started:
    """A command under torchrun, of two processes that talk through gloo."""

    def __init__(self, arguments: list[str]) -> None:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "serank"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        self.process = subprocess.Popen(
            [*start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    def when(self, ready: Callable[[], bool]) -> None:
        """Waits until the command has done what is looked for."""
        end = time.monotonic() + 120
        while not ready():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)

    def workers(self) -> dict[int, int]:
        """Process ids by rank."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    variables = (place / "environ").read_bytes().split(b"\0")
                    found[int(next(v for v in variables if v.startswith(b"RANK="))[5:])] = int(place.name)
            except (OSError, StopIteration):  # noqa: PERF203 - it ended just now, or it is none of the two
                continue
        return found

    def end(self) -> str:
        """What it printed; long before the kill that torchrun sends after 30 s."""
        output = self.process.communicate(timeout=25)[0]
        assert self.process.returncode != 0, output
        return output


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["SIGTERM", "SIGINT in a terminal", "a process is killed"])
def test_detection_by_two_processes_that_is_stopped(case: str, tmp_path: Path) -> None:
    frames, output = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 48), np.uint8)):
        Image.fromarray(pixels).save(frames / f"{i:03d}.png")
    SeRankDet(width=2, working_size=256, threshold=0.4).save_pretrained(tmp_path / "model")
    started = Started(["detect", str(frames), "--checkpoint", str(tmp_path / "model"), "--output", str(output)])
    started.when(lambda: len(list(output.glob("*.png"))) > 8)
    workers = started.workers()
    assert sorted(workers) == [0, 1]
    if case == "SIGTERM":
        started.process.terminate()
    elif case == "a process is killed":
        os.kill(workers[1], signal.SIGKILL)
    else:  # the terminal tells all, and torchrun the two once more
        for number in (started.process.pid, *workers.values()):
            os.kill(number, signal.SIGINT)
    printed = started.end()
    assert hidden(output) == [], printed
    table = json.loads((output / "detections.json").read_text())
    names = [Path(frame["frame"]).stem for frame in table["frames"]]
    pictures = {path.name for path in output.glob("*.png")}
    assert 8 < len(names) < FRAMES
    assert names == sorted(set(names))
    assert {f"{name}_detections.png" for name in names} <= pictures
    if case != "a process is killed":
        assert "serank detect: interrupted; the table holds the finished frames" in printed
        assert len(pictures) - len(names) <= 2  # one in each process may have been drawn when the signal came


@pytest.mark.slow
def test_training_by_two_processes_that_is_stopped(tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = training(tmp_path / "data", output, "--epochs", "100000", "--save-every", "1")
    started = Started(command)
    started.when((output / "log.csv").exists)
    started.process.terminate()
    printed = started.end()
    assert "serank train: interrupted" in printed
    assert hidden(output) == [], printed
    state = torch.load(output / "last.pt", weights_only=True)
    assert (state["epoch"], state["step"]) > (0, 0)
