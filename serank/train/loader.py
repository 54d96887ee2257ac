"""Crops for a whole training from one data loader, whose workers live as long as the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from serank.train.augment import RandomCrops
from serank.train.recipe import Recipe
from serank.utils.distributed import rank, world_size

Key = tuple[int, int]


class MicroBatches(Sampler[list[Key]]):
    """The (epoch, index) pairs of every micro-batch of this process, from a step of the run to its end.

    The order of an epoch follows from the seed and its number alone, so that a run that is continued sees the same.

    Args:
        count: training frames.
        recipe: gives seed, epochs, batch size and accumulation steps.
        first: step of the run to begin with, from 0.
    """

    def __init__(self, count: int, recipe: Recipe, first: int = 0) -> None:
        self.count, self.recipe, self.first = count, recipe, first
        self.steps = count // recipe.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        recipe = self.recipe
        share = recipe.batch_size // world_size()
        size = share // recipe.accumulation_steps
        start, skipped = divmod(self.first, self.steps)
        for epoch in range(start, recipe.epochs):
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
            order = torch.randperm(self.count, generator=generator).tolist()
            for step in range(skipped, self.steps):
                first = step * recipe.batch_size + rank() * share
                for at in range(first, first + share, size):
                    yield [(epoch, i) for i in order[at : at + size]]
            skipped = 0


def crop_loader(crops: RandomCrops, micro_batches: MicroBatches, *, workers: int, pin_memory: bool) -> Iterator[Any]:
    """Frames `(B, 1, crop, crop)`, masks alike and names of each micro-batch; its workers end with the iterator."""
    loader: DataLoader[Any] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=micro_batches,
        num_workers=workers,
        pin_memory=pin_memory,
    )
    return iter(loader)
