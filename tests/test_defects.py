"""Dead pixels and lines are repaired from their neighbours, and nothing that optics could show is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serank.frames import FrameOptions, FramePreparer, FrameSpec, repair_defects

Array = NDArray[Any]
SKY = np.rint(100 + np.linspace(0, 20, 64)[:, None] + np.random.default_rng(0).normal(0, 2, (64, 80)))
TYPES: list[tuple[str, Array, float, float]] = [
    ("bytes", SKY.astype(np.uint8), 0, 255),
    ("14 bits", (7000 + 6 * SKY).astype(np.uint16), 0, 16383),
    ("16 bits", (7000 + 6 * SKY).astype(np.uint16), 0, 65535),
    ("signed", (6 * SKY - 900).astype(np.int16), -32768, 32767),
    ("wide", (7000 + 6 * SKY).astype(np.int64), -(2**40), 2**40),
    ("half", SKY.astype(np.float16), 0, 60000),
    ("kelvin", (273 + 0.1 * SKY).astype(np.float32), 0, 1e4),
    ("doubles", (273 + 0.1 * SKY).astype(np.float64), -1e300, 1e308),
]


def gaussian(sigma: float, x: float, y: float) -> NDArray[np.float64]:
    rows, columns = np.ogrid[:64, :80]
    spot: NDArray[np.float64] = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    return spot


@pytest.mark.parametrize(("values", "low", "high"), [t[1:] for t in TYPES], ids=[t[0] for t in TYPES])
def test_dead_pixels_take_the_median_of_their_neighbours(values: Array, low: float, high: float) -> None:
    broken = values.copy()
    places = [(0, 0), (5, 79), (63, 40), (20, 20), (30, 31), (40, 60)]
    for i, place in enumerate(places):
        broken[place] = high if i % 2 else low
    repaired = repair_defects(broken)
    assert repaired.dtype == values.dtype
    assert np.flatnonzero(repaired != broken).tolist() == sorted(r * 80 + c for r, c in places)
    for row, column in places[3:]:
        around = np.sort(np.delete(values[row - 1 : row + 2, column - 1 : column + 2].ravel(), 4))
        assert repaired[row, column] == around[3]
    assert np.isin(repaired, values).all()  # no new levels, which would change the frame's step


def test_two_dead_neighbours_are_repaired_and_a_block_is_not() -> None:
    values = (7000 + 6 * SKY).astype(np.uint16)
    pair = values.copy()
    pair[20, 20:22] = 16383
    pair[40, 40], pair[41, 41] = 0, 16383
    assert (repair_defects(pair) < 8000).all()
    assert (repair_defects(pair) > 7000).all()
    block = values.copy()
    block[20:22, 20:22] = 16383
    np.testing.assert_array_equal(repair_defects(block), block)


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("place", [(40.0, 30.0), (40.5, 30.0), (40.3, 30.4)])
def test_what_optics_show_stays(sigma: float, place: tuple[float, float]) -> None:
    for peak in (20, 60, 150):
        frame = np.rint(np.full((64, 80), 90.0) + peak * gaussian(sigma, *place)).astype(np.uint8)
        np.testing.assert_array_equal(repair_defects(frame), frame)
        noisy = np.rint(SKY + peak * gaussian(sigma, *place)).clip(0, 255).astype(np.uint8)
        np.testing.assert_array_equal(repair_defects(noisy), noisy)


def test_noise_and_edges_stay() -> None:
    rng = np.random.default_rng(3)
    frame = rng.normal(100, 10, (300, 300))
    frame[:, 150:] += 80
    for values in (frame.astype(np.float32), np.rint(frame).clip(0, 255).astype(np.uint8)):
        assert (repair_defects(values) != values).sum() == 0


@pytest.mark.parametrize("lines", [[0], [63], [30], [30, 31], [0, 1], [10, 40]])
@pytest.mark.parametrize("columns", [False, True])
def test_dead_lines_take_the_nearest_living_one(lines: list[int], columns: bool) -> None:
    values = (7000 + 6 * SKY[:, :64]).astype(np.uint16)
    values = values.T.copy() if columns else values
    broken = values.T.copy() if columns else values.copy()
    broken[lines] = [[0] if i % 2 else [65535] for i in range(len(lines))]
    broken[lines, 5] = 65535  # where another dead line crosses
    living = [line for line in range(64) if line not in lines]
    repaired = repair_defects(broken.T.copy() if columns else broken)
    repaired = repaired.T if columns else repaired
    for line in lines:
        nearest = min(living, key=lambda other: abs(other - line))
        np.testing.assert_array_equal(repaired[line], broken[nearest])
    np.testing.assert_array_equal(repaired[living], broken[living])


def test_letterboxes_and_flat_frames_stay() -> None:
    values = (7000 + 6 * SKY).astype(np.uint16)
    values[:3] = 0
    values[:, -4:] = 0
    np.testing.assert_array_equal(repair_defects(values), values)
    for flat in (np.zeros((9, 9), np.uint8), np.repeat(np.arange(9)[:, None], 9, 1), np.zeros((2, 9)), np.ones((1, 1))):
        np.testing.assert_array_equal(repair_defects(flat), flat)
    mask = np.zeros((9, 9), np.bool_)
    mask[4, 4] = True
    np.testing.assert_array_equal(repair_defects(mask), mask)


def test_the_given_frame_is_left_alone() -> None:
    values = (7000 + 6 * SKY).astype(np.uint16)
    values[3, 3] = 0
    values[30] = 0
    before = values.copy()
    repair_defects(values)
    np.testing.assert_array_equal(values, before)


def test_repair_is_part_of_the_preparation_unless_switched_off() -> None:
    values = SKY.astype(np.uint8)
    values[20, 20] = 255
    assert FramePreparer(FrameSpec())(values).grey[20, 20] < 0.5
    assert FramePreparer(FrameSpec(repair=False))(values).grey[20, 20] == 1
    assert FramePreparer(FrameSpec(), FrameOptions(repair=False))(values).grey[20, 20] == 1
    assert FramePreparer(FrameSpec(repair=False), FrameOptions(repair=True))(values).grey[20, 20] < 0.5
    with pytest.raises(ValueError, match="repair must be true, false or None; got 'no'"):
        FrameOptions(repair="no")  # type: ignore[arg-type]
