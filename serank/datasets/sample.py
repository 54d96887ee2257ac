"""What every data set is made of, several sets as one, and their grey levels."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError

T = TypeVar("T")


class Sample(NamedTuple):
    """A frame with its mask."""

    name: str
    frame: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1]."""
    mask: NDArray[np.bool_]
    """`(H, W)` bool, true on targets."""
    soft: NDArray[np.uint8] | None = None
    """`(H, W)` uint8, target probability in steps of 1/255 to learn beside the mask; `None` where there is none."""
    hidden: NDArray[np.bool_] | None = None
    """`(H, W)` bool, where nothing can be found: no data, ignored, or all of a constant frame; `None` for nowhere."""


class Samples(Sequence[T]):
    """A sequence whose items are made on access; an IndexError of making one is no end of the sequence."""

    def __iter__(self) -> Iterator[T]:
        return (self[i] for i in range(len(self)))

    def _position(self, index: int) -> int:
        """An item's number, from 0; raises IndexError, and TypeError for a slice."""
        if isinstance(index, slice):
            raise TypeError(
                "a data set gives one sample at a time; torch.utils.data.Subset(dataset, range(...)) is a part"
            )
        if isinstance(index, (bool, np.bool_)):
            raise TypeError("a data set takes positions, not a mask; pass numpy.flatnonzero(mask)")
        return range(len(self))[index]


class JoinedSamples(Samples[Sample]):
    """The samples of several sets, one set after the other.

    Args:
        sets: at least one.
        labels: of the sets, with which the names of their samples begin, as in `label/name`; `None` leaves them.

    Raises:
        ValueError: no set, or another number of labels.
    """

    def __init__(self, sets: Sequence[Sequence[Sample]], labels: Sequence[str] | None = None) -> None:
        if not sets:
            raise ValueError("sets is empty; expected at least one set of samples")
        if labels is not None and len(labels) != len(sets):
            raise ValueError(f"labels must be one for each of the {len(sets)} sets; got {len(labels)}")
        self.sets = list(sets)
        self.labels = labels
        self._ends = list(accumulate(len(s) for s in self.sets))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The sample at `index`; negative counts from the end."""
        index = self._position(index)
        which = bisect_right(self._ends, index)
        sample = self.sets[which][index - (self._ends[which - 1] if which else 0)]
        return sample if self.labels is None else sample._replace(name=f"{self.labels[which]}/{sample.name}")


def check_samples(samples: Any, name: str, kind: type[NamedTuple] = Sample, folder: str = "FolderDataset") -> None:
    """Checks that an argument is a data set, by its first sample.

    Args:
        samples: to be checked.
        name: of the argument in messages, such as `"train_set"`.
        kind: of the samples; anything with its fields will do.
        folder: the class that reads such samples from a folder, which messages advise.

    Raises:
        TypeError: no sequence, or one of something else; says what to pass.
        ValueError: an empty one.
    """
    expected = f"{name} must be a sequence of {kind.__name__} ({', '.join(kind._fields)})"
    if isinstance(samples, (str, os.PathLike)):
        raise TypeError(f"{expected}; got the path {str(samples)!r}; pass {folder}({str(samples)!r})")
    if isinstance(samples, kind):
        raise TypeError(f"{expected}; got a single one; pass [{name}]")
    if isinstance(samples, Mapping) or not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise TypeError(f"{expected}; got {type(samples).__name__}; pass {folder}(path) or a list of {kind.__name__}")
    if len(samples) == 0:
        raise ValueError(f"{name} is empty; expected at least one frame")
    try:
        first = samples[0]
    except (FrameError, OSError):  # of a data set of the right kind, and said where all of it is read
        return
    if not all(hasattr(first, field) for field in kind._fields):
        raise TypeError(
            f"{expected}; got {type(samples).__name__} of {type(first).__name__}; pass {folder}(path) or a list of "
            f"{kind.__name__}"
        )


def grey_statistics(samples: Sequence[Sample]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, three digits, as `SeRankDet` takes them.

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("samples is empty; expected at least one frame")
    count, total, squares = 0, 0.0, 0.0
    for i in range(len(samples)):
        frame = samples[i].frame.astype(np.float64)
        count, total, squares = count + frame.size, total + frame.sum(), squares + (frame**2).sum()
    mean = total / count
    return round(mean, 3), max(round(float(np.sqrt(max(squares / count - mean**2, 0.0))), 3), 1e-3)
