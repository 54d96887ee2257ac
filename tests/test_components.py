"""Components against a flood fill in plain Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from serank.metrics import component_table, label_components
from serank.metrics.components import component_peaks, dilate

Mask = NDArray[np.bool_]
Pixel = tuple[int, int]

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def flood_fill(mask: Mask) -> Iterator[list[Pixel]]:
    """The (row, column) pixels of each 8-connected component, in the scan order of their first pixels."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        found, queue = [start], [start]
        while queue:
            row, column = queue.pop()
            for step in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                pixel = (row + step[0], column + step[1])
                if pixel in left:
                    left.remove(pixel)
                    found.append(pixel)
                    queue.append(pixel)
        yield found


@given(masks)
def test_agrees_with_flood_fill(mask: Mask) -> None:
    expected = list(flood_fill(mask))
    labels, count = label_components(mask)
    table = component_table(labels, count)
    assert len(table) == count == len(expected)
    np.testing.assert_array_equal(labels != 0, mask)
    for i, pixels in enumerate(expected):
        rows, columns = zip(*pixels, strict=True)
        assert {int(labels[pixel]) for pixel in pixels} == {i + 1}
        assert table.areas[i] == len(pixels)
        np.testing.assert_allclose(
            table.centroids[i], (sum(columns) / len(pixels), sum(rows) / len(pixels)), rtol=1e-14
        )
        assert table.boxes[i].tolist() == [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def test_known_components() -> None:
    mask = np.zeros((6, 9), dtype=np.bool_)
    mask[0, 0] = True
    mask[2:4, 4:8] = True
    mask[4, 3] = True  # touches the block by a corner
    table = component_table(*label_components(mask))
    assert table.areas.tolist() == [1, 9]
    assert table.centroids.tolist() == [[0, 0], [47 / 9, 24 / 9]]
    assert table.boxes.tolist() == [[0, 0, 1, 1], [3, 2, 8, 5]]


def test_types() -> None:
    labels, count = label_components(np.ones((2, 3), dtype=np.bool_))
    table = component_table(labels, count)
    assert isinstance(count, int)
    assert labels.dtype == np.int32
    assert labels.shape == (2, 3)
    assert table.areas.dtype == np.int64
    assert table.areas.shape == (1,)
    assert table.centroids.dtype == np.float64
    assert table.centroids.shape == (1, 2)
    assert table.boxes.dtype == np.int64
    assert table.boxes.shape == (1, 4)


@pytest.mark.parametrize("shape", [(4, 5), (0, 5), (5, 0)])
def test_nothing_found(shape: tuple[int, int]) -> None:
    labels, count = label_components(np.zeros(shape, dtype=np.bool_))
    table = component_table(labels, count)
    assert count == 0
    assert table.areas.shape == (0,)
    assert table.centroids.shape == (0, 2)
    assert table.boxes.shape == (0, 4)


def test_transposed_views() -> None:
    mask = np.random.default_rng(0).random((40, 30)) < 0.3
    plain = component_table(*label_components(np.ascontiguousarray(mask.T)))
    view = component_table(*label_components(mask.T))
    np.testing.assert_array_equal(view.boxes, plain.boxes)
    labels, count = label_components(mask)
    flipped = component_table(labels.T, count)
    np.testing.assert_array_equal(flipped.boxes, component_table(labels, count).boxes[:, [1, 0, 3, 2]])


@given(masks, st.integers(0, 15))
def test_dilation_is_that_by_a_square(mask: Mask, radius: int) -> None:
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.bool_)
    before = mask.copy()
    np.testing.assert_array_equal(dilate(mask, radius), ndimage.binary_dilation(mask, square))
    np.testing.assert_array_equal(mask, before)


def test_labels_that_are_not_components() -> None:
    """Any labels in 1 to count will do, also where one label's pixels do not touch."""
    table = component_table(np.array([[2, 0, 1], [0, 0, 2]], dtype=np.uint8), 2)
    assert table.areas.tolist() == [1, 2]
    assert table.centroids.tolist() == [[2, 0], [1, 0.5]]
    assert table.boxes.tolist() == [[2, 0, 3, 1], [0, 0, 3, 2]]


def test_bad_masks() -> None:
    with pytest.raises(ValueError, match=r"mask must be bool.*float64"):
        label_components(np.zeros((3, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask must have shape \(H, W\); got \(1, 3, 3\)"):
        label_components(np.zeros((1, 3, 3), dtype=np.bool_))


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        (np.zeros((3, 3)), 0, "labels must be integers"),
        (np.zeros((1, 3, 3), dtype=np.int32), 0, "labels must be integers"),
        (np.array([[0, 2]]), 1, "labels must lie in 0 to count=1; got 0 to 2"),
        (np.array([[0, -1]]), 1, "labels must lie in 0 to count=1; got -1 to 0"),
        (np.array([[1, 3]]), 3, "2 is missing"),
    ],
)
def test_bad_labels(labels: NDArray[np.int64], count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        component_table(labels, count)


@given(masks, st.integers(0, 2**32 - 1))
def test_peaks_are_the_largest_values_of_components(mask: Mask, seed: int) -> None:
    values = np.random.default_rng(seed).random(mask.shape, np.float32)
    peaks = component_peaks(*label_components(mask), values)
    assert peaks.dtype == np.float32
    assert peaks.tolist() == [max(values[pixel] for pixel in pixels) for pixels in flood_fill(mask)]
