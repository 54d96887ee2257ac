"""Connected components of a mask: labels, areas, centroids and boxes.

Shared by the metrics and by detection, so that both mean the same thing by a target. Components are
8-connected: pixels that touch by a side or a corner belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# scipy is imported in the functions, since it takes longer to import than all the rest of serank


@dataclass(frozen=True)
class ComponentTable:
    """Measures of N components; row i belongs to label i + 1.

    Attributes:
        areas: `(N,)` int64, pixels of each component, >= 1.
        centroids: `(N, 2)` float64, x and y in pixels: the mean of the component's pixel indices, so the
            centre of the top-left pixel of the frame is (0, 0).
        boxes: `(N, 4)` int64, x0, y0, x1, y1 in pixels; x1 and y1 are exclusive (largest index + 1).
    """

    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.areas)


def label_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Numbers the 8-connected components of a mask `(H, W)` bool.

    Returns:
        Labels `(H, W)` int32, 0 for background and 1 to N for the components in the scan order of their first
        pixels (rows from the top, each from the left), and N.

    Raises:
        ValueError: `mask` is not bool or not two-dimensional.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise ValueError(f"mask must be bool, for example `probability > 0.5`; got dtype {mask.dtype}")
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (H, W); got {mask.shape}")
    labels = np.zeros(mask.shape, dtype=np.int32)
    count: int = ndimage.label(mask, structure=np.ones((3, 3)), output=labels)
    return labels, count


def component_table(labels: NDArray[np.integer[Any]], count: int, origin: tuple[int, int] = (0, 0)) -> ComponentTable:
    """Measures the components that `label_components` found.

    Args:
        labels: `(H, W)` integers in 0 to `count`; each of 1 to `count` occurs.
        count: number of components, >= 0.
        origin: row and column in the frame of the first pixel of `labels`.

    Raises:
        ValueError: `labels` is not two-dimensional or not of integers, or does not hold exactly 0 to `count`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers (H, W); got dtype {labels.dtype}, shape {labels.shape}")
    # the mask is scanned as bool, which numpy does several times faster than integers
    flat = np.flatnonzero(labels != 0)
    rows, columns = np.divmod(flat, max(1, labels.shape[1]))
    owner = labels.ravel()[flat].astype(np.int64) - 1
    if len(owner) and (owner.min() < 0 or owner.max() >= count):
        raise ValueError(f"labels must lie in 0 to count={count}; got {labels.min()} to {labels.max()}")
    areas = np.bincount(owner, minlength=count).astype(np.int64)
    if not areas.all():
        missing = np.flatnonzero(areas == 0)[0] + 1
        raise ValueError(f"labels must hold every label from 1 to count={count}; {missing} is missing")
    top, left = origin
    # sums of pixel indices are integers below 2**53, so they are exact in float64
    sums = [np.bincount(owner, weights=index, minlength=count) for index in (columns + left, rows + top)]
    return ComponentTable(
        areas, np.stack(sums, axis=1) / areas[:, None], _boxes(owner, rows + top, columns + left, count)
    )


def component_peaks(labels: NDArray[np.integer[Any]], count: int, values: NDArray[Any]) -> NDArray[Any]:
    """Largest value of each component, `(count,)` of the dtype of `values`.

    Args:
        labels: `(H, W)`, as for `component_table`, and so is `count`.
        count: number of components.
        values: `(H, W)`, >= 0, such as probabilities.
    """
    flat = np.flatnonzero(labels)
    peaks = np.zeros(count, values.dtype)
    np.maximum.at(peaks, labels.ravel()[flat] - 1, values.ravel()[flat])
    return peaks


def _boxes(
    owner: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Boxes `(count, 4)` of pixels in scan order, each the `owner`'s."""
    boxes = np.zeros((count, 4), np.int64)
    boxes[:, 0] = np.iinfo(np.int64).max
    np.minimum.at(boxes[:, 0], owner, columns)
    np.maximum.at(boxes[:, 2], owner, columns + 1)
    # of assignments to one place the last stays
    boxes[owner[::-1], 1] = rows[::-1]
    boxes[owner, 3] = rows + 1
    return boxes


def find_components(mask: NDArray[np.bool_]) -> ComponentTable:
    """Components of a mask `(H, W)`: equal to `component_table(*label_components(mask))`, and faster."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # masks are mostly empty: only the part that holds components is labelled
    top, bottom, left, right = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 0, 0, 0)
    return component_table(*label_components(mask[top:bottom, left:right]), (top, left))


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """True within `radius` rows and columns of a true pixel of `mask`, `(H, W)` bool."""
    from scipy import ndimage

    grown: NDArray[np.bool_] = ndimage.maximum_filter(mask, 2 * radius + 1, mode="constant")
    return grown
