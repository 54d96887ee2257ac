"""A training step as one CUDA graph.

A step is thousands of kernels, whose launches take longer than their work for narrow networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from serank.utils.cuda_graph import record_graph

Results: TypeAlias = tuple[Tensor, Tensor]
Recorder: TypeAlias = Callable[[Callable[[], Results], Callable[[], None]], Callable[[], Results]]
"""From a step and what undoes it to a replay of it. The step may run a few times first, and is then undone."""

WARM_UPS = 3
CHECK_EVERY = 16
"""Steps between looks at loss and gradient on CUDA, each of which waits for the device."""


@dataclass(frozen=True)
class Execution:
    """How steps run on a device.

    Attributes:
        check_every: steps between looks at whether loss and gradient are finite.
        record: makes a step one operation; `None` where that can't be.
    """

    check_every: int = 1
    record: Recorder | None = None


def execution_on(device: torch.device) -> Execution:
    """Each step checked at once on a CPU; recorded and checked every `CHECK_EVERY` steps on CUDA."""
    return Execution(CHECK_EVERY, partial(record_on_cuda, device)) if device.type == "cuda" else Execution()


@dataclass(frozen=True)
class PendingStep:
    """Loss and gradient norm of a step, on the device, and what an error says about it."""

    loss: Tensor
    norm: Tensor
    epoch: int
    step: int
    lr: float
    names: Sequence[str]


class RecordedStep:
    """A step with inputs at fixed places, recorded with the first ones.

    Args:
        step: takes the inputs, changes weights and gives loss and gradient norm.
        inputs: of the first step.
        state: every tensor that the step changes; recording leaves their values as they are.
        record: see `Recorder`.
    """

    def __init__(
        self, step: Callable[..., Results], inputs: Sequence[Tensor], state: Sequence[Tensor], record: Recorder
    ) -> None:
        self._inputs = [value.detach().clone() for value in inputs]
        kept = [value.detach().clone() for value in state]

        @torch.no_grad()
        def undo() -> None:
            for value, old in zip(state, kept, strict=True):
                value.copy_(old)

        self._replay = record(lambda: step(*self._inputs), undo)

    def __call__(self, *inputs: Tensor) -> Results:
        """Runs the step; the results are written over by the next one."""
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        return self._replay()


def record_on_cuda(
    device: torch.device, step: Callable[[], Results], undo: Callable[[], None]
) -> Callable[[], Results]:
    """A `Recorder`, given a device; before the loader starts, since its thread pins memory all the time."""
    try:
        start, results = record_graph(step, device, warm_ups=WARM_UPS)
    finally:
        torch.cuda.synchronize(device)
        undo()

    def replay() -> Results:
        start()
        return results

    return replay
