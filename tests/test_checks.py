"""Checks of arguments, and names in messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from serank import DDC, SeRankAttention, SeRankDet, rank_size
from serank.utils.checks import check_count, check_threshold
from serank.utils.text import did_you_mean, printable


@pytest.mark.parametrize("value", [0, 0.25, 1, np.float32(0.25), np.int64(1), torch.tensor(0.25)])
def test_thresholds(value: Any) -> None:
    found = check_threshold(value)
    assert type(found) is float
    assert found == float(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", r"limit must be a number in \[0, 1\]; got '0.5' \(str\)"),
        (None, r"got None \(NoneType\)"),
        (True, r"got True \(bool\)"),
        ([0.5], r"got \[0.5\] \(list\)"),
        (1.5, r"limit must lie in \[0, 1\]; got 1.5"),
        (-1e-9, "got -1e-09"),
        (float("nan"), "got nan"),
    ],
)
def test_other_thresholds_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_threshold(value, "limit")


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(2), torch.tensor(4)])
def test_counts(value: Any) -> None:
    found = check_count(value, "tile")
    assert type(found) is int
    assert found == int(value)
    assert check_count(0, "overlap", minimum=0) == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5, r"batch_size must be a whole number >= 1; got 2.5 \(float\)"),
        (2.0, r"got 2.0 \(float\)"),
        ("2", r"got '2' \(str\)"),
        (True, r"got True \(bool\)"),
        (0, "batch_size must be >= 1; got 0"),
        (np.int64(-3), "got -3"),
    ],
)
def test_other_counts_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_count(value, "batch_size")


def test_close_names() -> None:
    known = ["detect", "describe", "train"]
    assert did_you_mean("detct", known) == "; did you mean 'detect'?"
    assert did_you_mean("quantise", known) == ""


def test_text_that_every_file_takes() -> None:
    assert printable("sky_ü_天.png") == "sky_ü_天.png"
    assert printable(b"a\xff\xe9.png".decode("utf-8", "surrogateescape")) == r"a\xff\xe9.png"
    assert printable("lone\ud800") == r"lone\ud800"


@pytest.mark.parametrize(
    "called",
    [
        SeRankDet(width=2),
        SeRankDet(width=2).forward_deep,
        SeRankDet(width=2).optimize(),
        DDC(1, 4),
        SeRankAttention(8),
    ],
    ids=["network", "deep", "optimized", "ddc", "attention"],
)
def test_what_is_no_map_is_refused_by_name(called: Any) -> None:
    with pytest.raises(TypeError, match=r"x must be a tensor .* got 'frame.png' \(str\); frames in files"):
        called("frame.png")
    with pytest.raises(TypeError, match=r"x must be a tensor .*got array.*ndarray\); frames in files"):
        called(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"shape \(B, [1C], H, W\); got \(1, 32, 32\); one map without .* x\[None\]"):
        called(torch.zeros(1, 32, 32))
    with pytest.raises(ValueError, match=r"floating dtype; got torch.uint8; convert it with x.float\(\)"):
        called(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))


def test_wrong_channels_are_said() -> None:
    for called in (DDC(3, 4), SeRankDet(width=2, in_channels=3)):
        with pytest.raises(ValueError, match=r"x must have 3 channels, shape \(B, 3, H, W\); got \(2, 1, 8, 9\)"):
            called(torch.zeros(2, 1, 8, 9))


def test_levels_of_rank_size() -> None:
    for level in (9, 0, 64):
        with pytest.raises(ValueError, match=rf"level must be 1 to 8.*; got {level}; the order is"):
            rank_size(64, level=level)
