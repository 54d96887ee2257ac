"""Options that take numbers take negative ones in every notation of Python's `float`, in every command."""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
import pytest

from serank.cli.options import frame_options, frames_given
from serank.cli.parser import COMMANDS, Parser, add_command, build_parser
from serank.frames import FrameOptions, FramePreparer, FrameSpec

LOWEST = "-3.4028234663852886e+38"
"""Of float32, which GDAL writes where there are no data."""
FLOATS = ("-1", "-0.5", "-.5", "-5.", "-1e-05", "-1E30", "-1_0.5", LOWEST, "-inf", "-Infinity", "-nan")
INTEGERS = ("-1", "-1_000")


def actions(command: str) -> tuple[Parser, list[argparse.Action]]:
    parser, parsers = build_parser()
    add_command(parsers[command], command)
    return parser, parsers[command]._actions


def numeric() -> list[tuple[str, str]]:
    """Command and flag of every option that takes numbers, told by its type."""
    return [
        (command, action.option_strings[0])
        for command in COMMANDS
        for action in actions(command)[1]
        if action.type in (int, float) and action.option_strings
    ]


OPTIONS = numeric()


def parsed(command: str, flag: str, words: list[str]) -> argparse.Namespace:
    """What the command makes of the option, with what it needs besides."""
    parser, known = actions(command)
    line = [command]
    for action in known:
        if action.required and flag not in action.option_strings:
            line += [*action.option_strings[:1], str(next(iter(action.choices or ["x"])))]
    options, unknown = parser.parse_known_args([*line, flag, *words])
    assert unknown == []
    return options


def test_the_table_has_the_options() -> None:
    commands = {command for command, _ in OPTIONS}
    assert commands >= {"detect", "evaluate", "train", "split", "import", "convert", "export"}
    assert {("detect", "--range"), ("detect", "--no-data"), ("train", "--lr"), ("train", "--scale")} <= set(OPTIONS)


@pytest.mark.parametrize(("command", "flag"), OPTIONS)
def test_negative_numbers_are_values(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    (action,) = (a for a in actions(command)[1] if flag in a.option_strings)
    for text in FLOATS if action.type is float else INTEGERS:
        words = [text] * (action.nargs if isinstance(action.nargs, int) else 1)
        if action.choices is not None:
            with pytest.raises(SystemExit):
                parsed(command, flag, words)
            assert "invalid choice: " in capsys.readouterr().err
            continue
        value: Any = getattr(parsed(command, flag, words), action.dest)
        assert action.type in (int, float)
        np.testing.assert_array_equal(np.ravel(value), [action.type(word) for word in words])
    if action.type is int:
        with pytest.raises(SystemExit):
            parsed(command, flag, ["-1e5"])
        assert "invalid int value: '-1e5'" in capsys.readouterr().err


def test_a_box_may_begin_outside_of_the_frame() -> None:
    options = parsed("detect", "--ignore", ["-4,-1e1,30,48"])
    np.testing.assert_array_equal(np.asarray(frame_options(options).ignore), [[-4, -10, 30, 48]])


def test_what_is_no_number_is_an_option_still(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("-x", "--1", "-1e", "-,", "-infinite"):
        with pytest.raises(SystemExit):
            parsed("detect", "--no-data", [word])
        assert "argument --no-data: expected one argument" in capsys.readouterr().err


def test_the_range_that_a_warning_advises_is_taken() -> None:
    array = np.random.default_rng(0).normal(0, 1e-6, (64, 64)).astype(np.float32)
    array[0, 0] = 1.0
    with pytest.warns(UserWarning, match="90% of its pixels") as said:
        FramePreparer(FrameSpec())(array)
    advice = re.search(r"value_range=\((\S+), (\S+)\)", str(said[0].message))
    assert advice
    assert advice[1].startswith("-")
    assert "e-05" in advice[1]
    options = parsed("detect", "--range", [advice[1], advice[2]])
    FramePreparer(FrameSpec(), frame_options(options))(array)  # a warning would fail
    assert frames_given(options) == [f"--range {advice[1]} {advice[2]}"]


def test_options_are_reported_as_numbers_that_are_equal() -> None:
    for text in (LOWEST, "-9999", "-1e+30", "nan", "1234567.25"):
        (words,) = frames_given(parsed("detect", "--no-data", [text]))
        np.testing.assert_equal(float(words.removeprefix("--no-data ")), float(text))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("text", [LOWEST, "-3.4028235e+38", "-1.7976931348623157e+308", "-1e30", "-inf"])
def test_values_without_data_of_any_size(text: str, dtype: str) -> None:
    """A value that the frame's type rounds is met by the pixels that it rounds; one beyond it by none."""
    array = np.random.default_rng(0).uniform(270, 300, (32, 40)).astype(dtype)
    with np.errstate(over="ignore"):
        stored = np.dtype(dtype).type(float(text))
    if np.isfinite(stored) or text == "-inf":
        array[-8:] = stored
    frame = FramePreparer(FrameSpec(), FrameOptions(no_data=float(text)))(array)
    held = np.zeros(array.shape, np.bool_)
    held[-8:] = np.isfinite(stored) or text == "-inf"
    np.testing.assert_array_equal(np.zeros(array.shape, np.bool_) if frame.hidden is None else frame.hidden, held)
