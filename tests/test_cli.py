"""The command: what it prints, writes and returns."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serank import Detections, SeRankDet
from serank.cli.entry import main
from serank.cli.parser import COMMANDS
from serank.datasets import write_folder
from serank.inference import Detector, write_detections
from serank.synthetic import SyntheticScenes
from serank.utils.files import locked

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    SeRankDet(width=4).save_pretrained(tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a", (32, 40)), ("b", (20, 33))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def detect(checkpoint: str, output: Path, *arguments: str) -> int:
    return main(["detect", *arguments, "--checkpoint", checkpoint, "--output", str(output)])


def test_detect_writes_pictures_and_a_json_table(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert detect(checkpoint, output, str(frames), "--threshold", "0") == 0
    assert sorted(p.name for p in output.iterdir()) == ["a_detections.png", "b_detections.png", "detections.json"]
    table = json.loads((output / "detections.json").read_text())
    assert table["failed"] == []
    assert [(Path(f["frame"]).name, f["height"], f["width"]) for f in table["frames"]] == [
        ("a.png", 32, 40),
        ("b.png", 20, 33),
    ]
    # at threshold 0 a frame is one detection
    assert [d["area"] for f in table["frames"] for d in f["detections"]] == [32 * 40, 20 * 33]
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["x", "y", "score", "area", "frame"]
    assert out[1].split()[:2] == ["19.5", "15.5"]
    assert out[1].split()[4:] == ["a.png"]
    assert out[-1].startswith("2 frames, 2 detections, 0 skipped, ")
    assert "frames/s" in out[-1]


def test_detect_writes_csv(checkpoint: str, frames: Path, tmp_path: Path) -> None:
    assert detect(checkpoint, tmp_path / "out", str(frames / "a.png"), "--threshold", "0", "--format", "csv") == 0
    with (tmp_path / "out" / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert (rows[0]["x0"], rows[0]["y0"], rows[0]["x1"], rows[0]["y1"], rows[0]["area"]) == (
        *("0", "0", "40", "32"),
        "1280",
    )


def test_unreadable_frames_are_skipped_and_said(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames / "aa.png").write_bytes((frames / "a.png").read_bytes()[:60])
    assert detect(checkpoint, tmp_path / "out", str(frames)) == 1
    captured = capsys.readouterr()
    assert "skipped" in captured.err
    assert "aa.png: truncated or corrupt" in captured.err
    assert "2 frames" in captured.out
    assert "1 skipped" in captured.out
    table = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(table["frames"]) == 2
    assert table["failed"][0]["frame"].endswith("aa.png")


def test_missing_frames_are_skipped_too(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(checkpoint, tmp_path / "out", str(frames / "nowhere.png"), str(frames / "a.png")) == 1
    captured = capsys.readouterr()
    assert "nowhere.png: no such file" in captured.err
    assert captured.out.splitlines()[-1].startswith("1 frames, ")


def test_an_error_keeps_the_table(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Detections.save

    def full(self: Detections, path: Path) -> None:
        if path.name.startswith("b"):
            raise OSError("No space left on device")
        original(self, path)

    monkeypatch.setattr(Detections, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_detections(SeRankDet(width=4).eval(), [frames], tmp_path / "out")
    table = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(f["frame"]).name for f in table["frames"]] == ["a.png"]


def test_wrong_options_leave_no_folder(checkpoint: str, frames: Path, tmp_path: Path) -> None:
    assert detect(checkpoint, tmp_path / "out", str(frames), "--threshold", "2") == 1
    assert not (tmp_path / "out").exists()


def test_interrupt_keeps_what_is_finished(
    checkpoint: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Detector.detect

    def interrupted(self: Detector, image: Any, *arguments: Any, **more: Any) -> Any:
        if image[0].shape == (20, 33):
            raise KeyboardInterrupt
        return original(self, image, *arguments, **more)

    monkeypatch.setattr(Detector, "detect", interrupted)
    assert detect(checkpoint, tmp_path / "out", str(frames)) == 130
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_detections.png", "detections.json"]
    table = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(f["frame"]).name for f in table["frames"]] == ["a.png"]


def test_interrupt_while_drawing_leaves_no_half_picture(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Image.Image, path: Path, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    result = write_detections(SeRankDet(width=4).eval(), [frames], tmp_path / "out")
    assert result.interrupted
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["detections.json"]


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_keep_what_is_finished(
    name: str, checkpoint: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored
    original = Detector.detect

    def stopped(self: Detector, image: Any, *arguments: Any, **more: Any) -> Any:
        if image[0].shape == (20, 33):
            os.kill(os.getpid(), number)
        return original(self, image, *arguments, **more)

    monkeypatch.setattr(Detector, "detect", stopped)
    assert detect(checkpoint, tmp_path / "out", str(frames), "--format", "csv") == 128 + number
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_detections.png", "detections.csv"]
    with (tmp_path / "out" / "detections.csv").open(newline="") as file:
        assert {Path(row["frame"]).name for row in csv.DictReader(file)} == {"a.png"}
    assert signal.getsignal(number) == signal.SIG_DFL


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_went_away_ends_a_command_as_sigpipe_does(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "serank", "checkpoints"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, b"")


def test_a_distance_without_tracks_is_refused(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(checkpoint, tmp_path / "out", str(frames), "--max-distance", "3") == 1
    assert "--max-distance is for --track and --confirm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_ports_that_there_are_not(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--port", port]) == 1
    assert f"--port must lie in 1 to 65535; got {port}" in capsys.readouterr().err


@posix
def test_a_closed_pipe_keeps_what_is_finished(
    checkpoint: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert detect(checkpoint, tmp_path / "out", str(frames), "--threshold", "0") == 128 + 13
        monkeypatch.undo()
    assert capsys.readouterr().err == ""
    table = json.loads((tmp_path / "out" / "detections.json").read_text())
    names = [Path(f["frame"]).stem for f in table["frames"]]
    assert names in (["a"], ["a", "b"])  # b was under way when the line of a couldn't be printed
    pictures = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert pictures == {f"{name}_detections.png" for name in names}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_any_bytes(checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (frames / "b.png").rename(frames / os.fsdecode(b"b\xff.png"))
    (frames / os.fsdecode(b"c\xfe.png")).write_bytes(b"no image")
    assert detect(checkpoint, tmp_path / "out", str(frames), "--threshold", "0", "--format", "csv") == 1
    with (tmp_path / "out" / "detections.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["frame"]).name for row in rows] == ["a.png", r"b\xff.png"]
    assert all((tmp_path / "out" / row["picture"]).is_file() for row in rows)
    captured = capsys.readouterr()
    assert r"b\xff.png" in captured.out
    assert r"c\xfe.png" in captured.err


def test_names_that_the_console_has_no_letters_for(checkpoint: str, frames: Path, tmp_path: Path) -> None:
    (frames / "a.png").rename(frames / "天.png")
    command = [sys.executable, "-m", "serank", "detect", str(frames), "--checkpoint", checkpoint, "--threshold", "0"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert r"\u5929.png" in done.stdout


@posix
def test_rows_and_progress_have_lines_of_their_own(checkpoint: str, frames: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    (frames / "bad.png").write_bytes(b"no image")
    command = [sys.executable, "-m", "serank", "detect", str(frames), "--checkpoint", checkpoint, "--threshold", "0"]
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen([*command, "--output", str(tmp_path / "out")], stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # Linux says so at the end
        while part := os.read(main_end, 4096):
            shown += part
    assert process.wait() == 1
    os.close(main_end)
    # what a terminal shows of each line: what follows the last return to its start
    lines = [line.rstrip("\r").rpartition("\r")[2].strip() for line in shown.decode().split("\n")]
    assert sum(line.endswith(("a.png", "b.png")) for line in lines) == 2
    assert all(len(line.split()) == 5 for line in lines if line.endswith(("a.png", "b.png")))
    assert sum(line.startswith("serank detect: skipped") for line in lines) == 1
    assert any("3/3" in line for line in lines)


def test_quiet_prints_errors_alone(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames / "bad.png").write_bytes(b"no image")
    assert detect(checkpoint, tmp_path / "out", str(frames), "--threshold", "0", "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("serank detect: skipped ")
    assert captured.err.count("\n") == 1


@posix
def test_a_second_run_into_a_folder_is_refused_at_its_start(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with locked(output / ".detections.lock"):
        assert detect(checkpoint, output, str(frames)) == 1
        assert "out: another run is writing to this folder" in capsys.readouterr().err
        assert [p.name for p in output.iterdir()] == [".detections.lock"]
    # what a run that was killed leaves: a lock that none holds, and parts
    for name in (".detections.lock", ".detections-00001.jsonl", ".detections-abc.json"):
        (output / name).write_text("")
    assert detect(checkpoint, output, str(frames)) == 0
    assert sorted(p.name for p in output.iterdir()) == ["a_detections.png", "b_detections.png", "detections.json"]


def test_frames_of_one_name_get_pictures_of_their_own(checkpoint: str, frames: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((frames / "a.png").read_bytes())
    (other / "a_2.png").write_bytes((frames / "a.png").read_bytes())
    assert detect(checkpoint, tmp_path / "out", str(frames), str(other)) == 0
    pictures = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert len(pictures) == 4


def test_frames_are_not_written_over(checkpoint: str, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detect(checkpoint, frames, str(frames)) == 1
    assert "holds the frames themselves" in capsys.readouterr().err
    assert len(list(frames.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "gone.png"], "nowhere.png, gone.png: no such file or folder"),
        (["FRAMES", "--device", "cuda:99"], "device 'cuda:99' is not available here"),
        (["FRAMES", "--threshold", "1.5"], "threshold must lie in [0, 1]; got 1.5"),
        (["FRAMES", "--min-area", "0"], "min_area must be >= 1; got 0"),
        (["FRAMES", "--checkpoint", "sirts"], "no Hub id (owner/name); did you mean 'sirst'?"),
        (["EMPTY"], "no image or video in this folder"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    checkpoint: str,
    frames: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"FRAMES": str(frames), "EMPTY": str(tmp_path / "empty")}
    arguments = [places.get(a, a) for a in arguments]
    status = main(["detect", "--checkpoint", checkpoint, "--output", str(tmp_path / "out"), *arguments])
    error = capsys.readouterr().err
    assert status == 1
    assert message in error
    assert error.startswith("serank detect: ")
    assert error.count("\n") == 1


def test_evaluate_prints_the_metrics(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ramp = np.arange(576, dtype=np.uint16).reshape(24, 24) // 3
    for kind, values in (("images", ramp), ("masks", np.full((24, 24), 255))):
        (tmp_path / kind).mkdir()
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / kind / "one.png")
    with pytest.warns(UserWarning, match="more than half of the mask is target"):
        assert main(["evaluate", str(tmp_path), "--checkpoint", checkpoint, "--threshold", "0"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "IoU 1.0000  nIoU 1.0000  Pd 1.0000  Fa 0.00e-6  false components 0.000 a frame  (1 frames, 1 targets)"
    )
    assert re.fullmatch(r"AUC nan  calibration error of scores 0\.\d{3}", second)  # there is no background


def test_checkpoints_lists_the_bundled_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints"]) == 0
    assert "sirst " in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_reads(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: serank")
    assert "None" not in out
    assert "SUPPRESS" not in out


COMPLETED = {  # words before the cursor, the last one begun: words that complete it
    "serank det": "detect",
    "serank detect --pol": "--polarity",
    "serank detect --polarity ": "white-hot black-hot",
    "serank evaluate --matc": "--match",
    "serank completion b": "bash",
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash isn't installed")
def test_completion_in_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out, "utf-8")
    for line, expected in COMPLETED.items():
        words = " ".join(f"'{word}'" for word in line.split(" "))
        ask = (
            f'. "{script}"; COMP_WORDS=({words}); COMP_CWORD={line.count(" ")}; _shtab_serank; echo "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected.split(), line


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_completion_of_other_shells_names_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_completion_without_shtab_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'serank[completion]'" in capsys.readouterr().err


def test_wrong_usage_returns_2() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["detect"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detct", "a.png"], "'detct' is no command; did you mean 'detect'?; the commands are detect, "),
        (["sing"], "'sing' is no command; the commands are "),
        (["--verson"], "required: COMMAND"),
        ([], "required: COMMAND"),
        (["detect", "a.png", "--treshold=0.5"], "unrecognized arguments: --treshold=0.5; did you mean '--threshold'?"),
        (["detect", "a.png", "--min_area", "2"], "unrecognized arguments: --min_area 2; did you mean '--min-area'?"),
        (["describe", "folder", "--zzz"], "unrecognized arguments: --zzz\n"),
    ],
)
def test_close_matches_are_suggested(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_python_m_serank() -> None:
    done = subprocess.run([sys.executable, "-m", "serank", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("serank ")
    assert done.stderr == ""


def test_pictures_are_of_the_frame(checkpoint: str, frames: Path, tmp_path: Path) -> None:
    detect(checkpoint, tmp_path / "out", str(frames / "a.png"), "--threshold", "1")
    with Image.open(tmp_path / "out" / "a_detections.png") as picture, Image.open(frames / "a.png") as frame:
        factor = picture.width // frame.width
        shown = np.asarray(picture.convert("RGB"))[::factor, ::factor]
        np.testing.assert_array_equal(shown[..., 0], np.minimum(np.asarray(frame), 254))  # 255 is the boxes' place


def test_no_detection_is_no_error(checkpoint: str, frames: Path, tmp_path: Path, capsys: Any) -> None:
    assert detect(checkpoint, tmp_path / "out", str(frames), "--threshold", "1") == 0
    assert capsys.readouterr().out.startswith("2 frames, 0 detections")


def test_describe_says_what_is_there_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = list(SyntheticScenes(3, 40, 48, seed=1))
    write_folder(samples, tmp_path / "good")
    assert main(["describe", str(tmp_path / "good")]) == 0
    assert "frames  3, 3 with a mask" in capsys.readouterr().out
    write_folder([s._replace(mask=~s.mask) for s in samples], tmp_path / "bad")
    assert main(["describe", str(tmp_path / "bad")]) == 1
    assert "masks of which more than half is target (inverted?): 3" in capsys.readouterr().out
    write_folder([s._replace(mask=s.mask & False) for s in samples], tmp_path / "black")
    assert main(["describe", str(tmp_path / "black")]) == 1
    assert "no mask holds a target" in capsys.readouterr().out


def test_warnings_are_lines_of_the_command(tmp_path: Path) -> None:
    write_folder(list(SyntheticScenes(4, 40, 48, seed=1)), tmp_path)
    mask = next((tmp_path / "masks").iterdir())
    Image.fromarray(np.full((20, 24), 255, np.uint8)).save(mask)
    command = [sys.executable, "-m", "serank", "evaluate", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stderr
    assert "serank evaluate: warning: " in done.stderr
    assert ".py:" not in done.stderr
    assert "more than half of the mask is target in 1 frames" in done.stderr


def test_tracks_are_printed_and_tables_have_other_formats(
    checkpoint: str, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--threshold", "0", "--confirm", "1/2", "--format", "jsonl")
    assert detect(checkpoint, tmp_path / "out", str(frames), *options) == 0
    assert "area  track  frame" in capsys.readouterr().out
    lines = (tmp_path / "out" / "detections.jsonl").read_text().splitlines()
    assert [json.loads(line)["detections"][0]["track"] for line in lines] == [1, 1]
    for kind, name in (("coco", "detections.coco.json"), ("yolo", "labels/a.txt")):
        assert detect(checkpoint, tmp_path / kind, str(frames), "--no-pictures", "--format", kind) == 0
        assert (tmp_path / kind / name).is_file()


@pytest.mark.parametrize("value", ["3", "3/2", "0/2", "a/b"])
def test_confirmation_is_m_of_n(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["detect", "x.png", "--confirm", value])
    assert "is not M/N with 1 <= M <= N, such as 3/5" in capsys.readouterr().err
