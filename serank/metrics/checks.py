"""Checks of what the metrics take: frames, thresholds, distance and protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serank.utils.checks import check_number, check_threshold

if TYPE_CHECKING:
    from torch import Tensor

Protocol = Literal["standard", "released"]
Frames: TypeAlias = "NDArray[Any] | Tensor | Sequence[NDArray[Any] | Tensor]"

CURVE_THRESHOLDS = tuple(i / 10 for i in range(11))
"""Thresholds of the curves unless others are given: 0, 0.1 to 1."""


def check_protocol(protocol: str) -> None:
    """Raises ValueError for an unknown protocol."""
    if protocol not in get_args(Protocol):
        raise ValueError(f'protocol must be "standard" or "released"; got {protocol!r}')


def check_thresholds(thresholds: ArrayLike | None) -> list[float]:
    """`thresholds` as floats, `CURVE_THRESHOLDS` for `None`; raises ValueError where empty or outside [0, 1]."""
    try:
        values = np.asarray(CURVE_THRESHOLDS if thresholds is None else thresholds, dtype=np.float64)
    except (TypeError, ValueError):  # text, or rows of different lengths
        raise ValueError(
            f"thresholds must be a sequence of one or more numbers in [0, 1]; got {thresholds!r:.200}"
        ) from None
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"thresholds must be a sequence of one or more numbers; got shape {values.shape}")
    return [check_threshold(value, "thresholds") for value in values.tolist()]


def check_distance(max_distance: float) -> float:
    """`max_distance` as a float; raises ValueError unless it is a number > 0."""
    found = check_number(max_distance, "max_distance", "a number of pixels > 0")
    if not found > 0:
        raise ValueError(f"max_distance must be > 0 pixels; got {max_distance}")
    return found


def check_same_settings(one: object, other: object) -> None:
    """Raises ValueError unless both accumulators, whose `repr` gives their settings, can be merged."""
    if repr(one) != repr(other):
        raise ValueError(f"other must have the same settings; got {other!r} to merge into {one!r}")


def checked_frames(probability: Frames, target: Frames) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Probability `(H, W)` in [0, 1] and mask `(H, W)` bool of each frame, checked as `serank.metrics.iou` says."""
    if isinstance(probability, (list, tuple)) or isinstance(target, (list, tuple)):
        if len(probability) != len(target):
            raise ValueError(
                f"probability and target must hold as many frames; got {len(probability)} and {len(target)}"
            )
        for one_probability, one_target in zip(probability, target, strict=True):
            yield from checked_frames(one_probability, one_target)
        return
    probabilities = _to_frames(probability, "probability")
    targets = _to_frames(target, "target")
    if probabilities.shape != targets.shape:
        raise ValueError(
            "probability and target must have the same frames and size; got shapes "
            f"{tuple(np.shape(probability))} and {tuple(np.shape(target))}. Compare at the frame's own size"
        )
    for frame, truth in zip(probabilities, targets, strict=True):
        low, high = frame.min(), frame.max()  # NaN anywhere makes both NaN
        if not np.isfinite([low, high]).all():
            raise ValueError("probability must be finite; got NaN or infinity")
        if low < 0 or high > 1:
            raise ValueError(
                f"probability must lie in [0, 1]; got {low} to {high}. "
                "Logits need a sigmoid first, 8-bit maps a division by 255"
            )
        if truth.dtype.kind == "f" and np.isnan(truth.min()):
            raise ValueError("target must not hold NaN")
        yield frame, truth > 0.5


def _to_frames(value: Any, name: str) -> NDArray[Any]:
    """One array or tensor as a real `(N, H, W)` array on the CPU."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # thresholds near 1 are 1 in half precision, and numpy has no bfloat16
        value = value.float() if value.is_floating_point() and value.element_size() < 4 else value
        value = value.numpy()
    if isinstance(value, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(value).sum())):
        raise ValueError(
            f"{name} is a masked array with {masked} masked pixels, which no metric leaves out; "
            f"fill them first, for example with {name}.filled(0)"
        )
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers or bool; got dtype {array.dtype}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        raise ValueError(
            f"{name} of shape {shape} is one frame (H, W, 1) or frames of a single column; pass (H, W), or "
            "(N, 1, H, W) for such frames"
        )
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 4 and shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(
            f"{name} must have shape (H, W), (N, H, W) or (N, 1, H, W) with H and W >= 1; got {shape}. "
            "Pass frames of different sizes as a list of (H, W) arrays"
        )
    return array
