"""A look at every frame before the first step, so that a bad data set ends a training before it begins."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serank.datasets import FolderDataset, JoinedSamples, Sample, warn_overlap
from serank.errors import FrameError
from serank.metrics.components import label_components

__all__ = ["SetSummary", "inspect_samples", "warn_shared_frames"]

SHOWN = 10
"""Problems that an error lists."""


@dataclass(frozen=True)
class SetSummary:
    """What a set of samples holds.

    Attributes:
        frames: how many.
        empty: frames without a target.
        targets: 8-connected components of all masks.
        areas: smallest, median and largest target in pixels; zeros without targets.
        sides: shortest and longest side of any frame in pixels.
        digest: of the frames' names, sizes, pixels and masks in their order, which tells two sets apart.
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


def inspect_samples(samples: Sequence[Sample], name: str, *, need_targets: bool = True) -> SetSummary:
    """Reads every sample once.

    Args:
        samples: the set; one with a cache is filled by this.
        name: what errors call it, such as `"train_set"`.
        need_targets: whether a set without any target is an error.

    Raises:
        ValueError: an empty set, samples that can't be read or whose mask has another size than its frame, but for
            SIRST's known one (listed, all of them counted), masks that are mostly target in more than half of the
            frames (inverted; fewer are warned of), or no target at all.
    """
    if len(samples) == 0:
        raise ValueError(f"{name} is empty; expected at least one sample")
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
        if sample.mask.shape != sample.frame.shape:
            problems.append(f"{sample.name}: mask is {sample.mask.shape}, its frame {sample.frame.shape}")
            continue
        shortest, longest = min(shortest, height, width), max(longest, height, width)
        labels, count = label_components(sample.mask)
        areas += np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
        empty += count == 0
        if sample.mask.mean() > 0.5:
            inverted.append(sample.name)
    for part in _folders(samples):
        problems += [f"{m}; mend the file or take the name out of the list" for m in part.mismatches if not m.known]
    if problems:
        shown = problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        raise ValueError(f"{name}: {len(problems)} of {len(samples)} samples can't be used:\n  " + "\n  ".join(shown))
    if len(inverted) > len(samples) / 2:
        raise ValueError(
            f"{name}: in {len(inverted)} of {len(samples)} masks more than half of the pixels are target; are they "
            "inverted? Targets must be bright (1 or 255) on black"
        )
    if inverted:
        names = ", ".join(inverted[:SHOWN])
        warnings.warn(f"{name}: more than half of the mask is target in {names}; inverted?", stacklevel=2)
    if need_targets and not areas:
        raise ValueError(
            f"{name}: none of its {len(samples)} masks holds a target, so there is nothing to learn. "
            "Targets must be bright (1 or 255) on black; check that masks and lists belong together"
        )
    ordered = sorted(areas)
    sizes = (ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else (0, 0, 0)
    sides = (int(min(shortest, longest)), longest)
    return SetSummary(len(samples), empty, len(ordered), sizes, sides, digest.hexdigest()[:16])


def warn_shared_frames(train_set: Sequence[Sample], val_set: Sequence[Sample]) -> None:
    """Warns (`UserWarning`) when folders that make up the two sets share frames."""
    for train in _folders(train_set):
        for val in _folders(val_set):
            warn_overlap(train, val)


def _folders(samples: Sequence[Sample]) -> list[FolderDataset]:
    """The folders that a set is made of, as far as it is."""
    if isinstance(samples, JoinedSamples):
        return [folder for part in samples.sets for folder in _folders(part)]
    if isinstance(samples, FolderDataset):
        return [samples]
    within = getattr(samples, "samples", None)  # of NoisySIRST and SIRSTAug
    return [] if within is None else _folders(within)
