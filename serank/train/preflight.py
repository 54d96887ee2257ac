"""Checks of the data sets before the first step of a training."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from serank.datasets.folder import FolderDataset, warn_overlap
from serank.datasets.masks import POLARITY, SizeMismatch, is_inverted
from serank.datasets.sample import JoinedSamples, Sample, check_samples
from serank.errors import FrameError
from serank.metrics.components import label_components
from serank.utils.text import listing

SHOWN = 10
"""Problems listed in an error."""


@dataclass(frozen=True)
class SetSummary:
    """Summary of a data set.

    Attributes:
        frames: number of frames.
        empty: frames without a target.
        targets: 8-connected components of all masks.
        areas: smallest, median and largest target in pixels; zeros without targets.
        sides: shortest and longest side of any frame in pixels.
        digest: SHA-256 of names, sizes, pixels, masks and learned soft targets in their order, 16 hexadecimal digits.
    """

    frames: int
    empty: int
    targets: int
    areas: tuple[int, int, int]
    sides: tuple[int, int]
    digest: str

    def __str__(self) -> str:
        small, middle, large = self.areas
        found = f"{self.targets} targets of {small} to {large} px (median {middle})" if self.targets else "no target"
        return f"{self.frames} frames of {self.sides[0]} to {self.sides[1]} px, {self.empty} without a target; {found}"


def inspect_samples(
    samples: Sequence[Sample], name: str, *, need_targets: bool = True, need_soft: bool = False
) -> SetSummary:
    """Reads every sample once.

    Args:
        samples: the data set; this fills its cache, if it has one.
        name: its name in errors, such as `"train_set"`.
        need_targets: whether a set without any target is an error.
        need_soft: whether a sample without a soft target is an error; soft targets then count in the digest.

    Raises:
        TypeError: no data set.
        ValueError: an empty set; samples that can't be read, or whose mask has another size than the frame, SIRST's
            known one excepted (the first are listed, all counted); masks that are mostly target in more than half of
            the frames (fewer are warned of); no target at all.
    """
    check_samples(samples, name)
    digest = hashlib.sha256()
    problems: list[str] = []
    areas: list[int] = []
    inverted: list[str] = []
    empty = 0
    shortest, longest = math.inf, 0
    for i in range(len(samples)):
        try:
            sample = samples[i]
        except (FrameError, OSError) as error:
            problems.append(str(error))
            continue
        height, width = sample.frame.shape
        digest.update(f"{sample.name}:{height}x{width}\n".encode(errors="surrogateescape"))
        digest.update(np.ascontiguousarray(sample.frame, np.float32).data)
        digest.update(np.packbits(np.asarray(sample.mask, np.bool_)).data)
        if need_soft:
            if sample.soft is None or sample.soft.shape != sample.frame.shape:
                size = "none" if sample.soft is None else f"one of shape {sample.soft.shape}"
                problems.append(f"{sample.name}: soft_weight needs a soft target of the frame's size; it has {size}")
                continue
            digest.update(np.ascontiguousarray(sample.soft).data)
        if sample.mask.shape != sample.frame.shape:
            mismatch = SizeMismatch(sample.name, (height, width), (sample.mask.shape[0], sample.mask.shape[1]))
            problems.append(f"{sample.name}: {mismatch.sizes}")
            continue
        shortest, longest = min(shortest, height, width), max(longest, height, width)
        labels, count = label_components(sample.mask)
        areas += np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
        empty += count == 0
        if is_inverted(sample.mask):
            inverted.append(sample.name)
    for part in _folders(samples):
        problems += [f"{m}; mend the file or take the name out of the list" for m in part.mismatches if not m.known]
    if problems:
        shown = listing(problems, SHOWN, separator="\n  ")
        raise ValueError(f"{name}: {len(problems)} of {len(samples)} samples can't be used:\n  {shown}")
    if len(inverted) > len(samples) / 2:
        raise ValueError(
            f"{name}: in {len(inverted)} of {len(samples)} masks more than half of the pixels are target; are they "
            f"inverted? {POLARITY.capitalize()}"
        )
    if inverted:
        names = listing(inverted, SHOWN)
        warnings.warn(f"{name}: more than half of the mask is target in {names}; inverted?", stacklevel=2)
    if need_targets and not areas:
        raise ValueError(
            f"{name}: none of its {len(samples)} masks holds a target, so there is nothing to learn. "
            f"{POLARITY.capitalize()}; check that masks and lists belong together"
        )
    ordered = sorted(areas)
    sizes = (ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else (0, 0, 0)
    sides = (int(min(shortest, longest)), longest)
    return SetSummary(len(samples), empty, len(ordered), sizes, sides, digest.hexdigest()[:16])


def warn_shared_frames(train_set: Sequence[Sample], val_set: Sequence[Sample]) -> None:
    """Warns (`UserWarning`) when folders of the two sets share frames."""
    for train in _folders(train_set):
        for val in _folders(val_set):
            warn_overlap(train, val)


def _folders(samples: Any, indices: Sequence[int] | None = None) -> list[FolderDataset]:
    """The folders that a set, or a part of it, is made of: through joined sets, PyTorch's parts and sets of others."""
    if isinstance(samples, FolderDataset):
        return [samples if indices is None else samples.subset(indices)]
    if isinstance(samples, Subset):
        chosen = samples.indices if indices is None else [samples.indices[i] for i in indices]
        return _folders(samples.dataset, chosen)
    if isinstance(samples, (JoinedSamples, ConcatDataset)):
        found, start = [], 0
        indices = None if indices is None else [range(len(samples))[i] for i in indices]  # those below 0 too
        for part in samples.sets if isinstance(samples, JoinedSamples) else samples.datasets:
            end = start + len(part)  # type: ignore[arg-type]
            found += _folders(part, None if indices is None else [i - start for i in indices if start <= i < end])
            start = end
        return found
    within = getattr(samples, "samples", None)  # of NoisySIRST and SIRSTAug
    crops = indices is not None and within is not None and len(within) != len(samples)  # several of a frame
    if within is None or crops:
        return []
    return _folders(within, indices)
