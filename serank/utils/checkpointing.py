"""Gradient checkpointing: a block's activations are recomputed in the backward pass instead of kept in memory.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """`block(*inputs)`, its activations recomputed in the backward pass: same gradients, less memory, more time.

    Batch norm updates its running statistics once, in the forward pass.

    Args:
        block: must draw no random numbers (no dropout), as their state is not restored.
        inputs: kept in memory until the backward pass.
    """
    result = checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _untracked(block)),
    )
    return cast(Tensor, result)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """Batch norms move copies of their running statistics, which are dropped at the end."""
    norms = [m for m in block.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    own = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({k: None if v is None else v.clone() for k, v in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, own, strict=True):
            norm._buffers.update(buffers)
