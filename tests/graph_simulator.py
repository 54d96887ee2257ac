"""CUDA graphs without a GPU: operations are noted down while a function runs, and repeated in the same places.

As on CUDA, what Python computes while a graph is recorded is part of it for ever, inputs are read where they lay, and
whatever must wait for the device, or brings numbers from Python to it, can't be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = ("_local_scalar_dense", "lift_fresh", "nonzero", "equal", "masked_select", "is_nonzero", "_unique2")
"""Operations that wait for the device, or copy a number of Python's there."""


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations run within, which `replay` repeats.

    Raises:
        RuntimeError: within, an operation that a CUDA graph can't hold.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if name in FORBIDDEN:
            raise RuntimeError(f"{name} can't be recorded")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, tree_leaves(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Repeats every operation on the same tensors; what it gives is written where it was first given."""
        for func, args, kwargs, places in self.operations:
            if func.is_view:
                continue
            for place, value in zip(places, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(place, Tensor) and place is not value:
                    place.copy_(value)


def record(run: Callable[[], Any], device: torch.device, *, warm_ups: int, **_: Any) -> tuple[Callable[[], None], Any]:
    """Stands in for `serank.utils.cuda_graph.record_graph` on a CPU."""
    for _number in range(warm_ups):
        run()
    with Recording() as recording:
        result = run()
    return recording.replay, result
