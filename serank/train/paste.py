"""Pasting a target of one training crop into another: more targets, on more backgrounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.float32]

MARGIN = 4
"""Pixels around a target that are pasted with it, fading out."""
GAIN = (0.4, 1.2)
"""Range of the log-uniform factor on the target's contrast."""
VISIBLE = 0.2
"""Share of the target's contrast that must be left where the range of grey levels ends."""
EIGHT = np.ones((3, 3), bool)


def paste_target(
    frame: Float,
    mask: Float,
    donor: Float,
    donor_mask: Float,
    rng: np.random.Generator,
    *,
    soft: Float | None = None,
    donor_soft: Float | None = None,
) -> bool:
    """Adds one target of `donor` to `frame`, in place, where there is no target yet.

    What is added is the target's contrast to the background around it, so that the new background keeps its texture.

    Args:
        frame: `(H, W)` float32 in [0, 1].
        mask: `(H, W)` float32, 0 or 1.
        donor: like `frame`, of any size.
        donor_mask: like `mask`, of the size of `donor`.
        rng: source of the random numbers.
        soft: soft target of `frame`, which takes over that of the target where both are given.
        donor_soft: soft target of `donor`.

    Returns:
        Whether a target was added. None is where the donor has no target, its border cuts the drawn one, another is
        within its margin, that one is larger than a quarter of `frame`, the drawn place already holds a target, or its
        background is so near to 0 or 1 that next to nothing of the target would be seen.
    """
    labels, count = ndimage.label(donor_mask > 0.5, structure=EIGHT)
    if not count:
        return False
    label = int(rng.integers(1, count + 1))
    rows, columns = ndimage.find_objects(labels)[label - 1]
    top, left = rows.start - MARGIN, columns.start - MARGIN
    height, width = rows.stop - rows.start + 2 * MARGIN, columns.stop - columns.start + 2 * MARGIN
    if top < 0 or left < 0 or top + height > donor.shape[0] or left + width > donor.shape[1]:
        return False
    if height > frame.shape[0] // 4 or width > frame.shape[1] // 4:
        return False
    patch = donor[top : top + height, left : left + width]
    window = labels[top : top + height, left : left + width]
    own = window == label
    distance = ndimage.distance_transform_edt(~own)
    if (window[distance < MARGIN] > 0).sum() > own.sum():
        return False  # a part of another target would come along, unlabelled
    # whatever else the window holds, another target or the own one's blur, is no background
    near = ndimage.binary_dilation(donor_mask[top : top + height, left : left + width] > 0.5, EIGHT, iterations=2)
    if near.all():
        return False
    corner = _free_corner(mask, own, rng)
    if corner is None:
        return False
    y, x = corner
    place = (slice(y, y + height), slice(x, x + width))
    weight = np.clip(1 - distance / MARGIN, 0, 1)
    gain = np.exp(rng.uniform(*np.log(GAIN)))
    contrast = weight * (patch - np.median(patch[~near]))
    pasted = np.clip(frame[place] + gain * contrast, 0, 1)
    if np.abs(pasted - frame[place])[own].sum() < VISIBLE * np.abs(contrast)[own].sum():
        return False  # a mask without a target to see
    frame[place] = pasted
    mask[place][own] = 1
    if soft is not None and donor_soft is not None:
        soft[place] = np.maximum(soft[place], weight * donor_soft[top : top + height, left : left + width])
    return True


def _free_corner(mask: Float, own: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int] | None:
    """A random place for the window of `own`; None if that one holds a target."""
    y, x = (int(rng.integers(0, side - part + 1)) for side, part in zip(mask.shape, own.shape, strict=True))
    return None if mask[y : y + own.shape[0], x : x + own.shape[1]].any() else (y, x)
