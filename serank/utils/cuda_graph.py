"""Recording CUDA graphs by the rules that CUDA sets for it.

What is recorded must not wait for the device, copy from memory that isn't pinned, or use any stream but the current
one, and reads and writes the same places whenever it is replayed. Libraries choose their algorithms and allocate in
their first runs, which therefore come before, on the stream that is then recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")

RECORDING = threading.Lock()
"""Held while a graph is recorded: each recording begins by waiting for the whole device, which no other must see."""


def recording(device: torch.device) -> bool:
    """Whether the caller is recording a graph of what runs on `device`."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def record_graph(
    run: Callable[[], T],
    device: torch.device,
    *,
    warm_ups: int,
    stream: torch.cuda.Stream | None = None,
    pool: Any = None,
) -> tuple[Callable[[], None], T]:
    """Runs a function a few times, then records it.

    Other threads may use the device meanwhile, such as one that pins memory, but not wait for all of it
    (`torch.cuda.synchronize`), which ends the recording.

    Args:
        run: what to record.
        device: where it runs, of type CUDA; it need not be the current one.
        warm_ups: runs before the recording.
        stream: to record on, of `device`; `None` takes a new one.
        pool: of memory, shared with other recordings on the same stream; `None` takes a new one.

    Returns:
        A replay on the stream that is then current, and what `run` returned: tensors in the graph's memory, which hold
        nothing before the first replay, and which each replay writes over. They and the replay must be kept together.

    Raises:
        RuntimeError: CUDA can't record this; the current stream is what it was.
    """
    with RECORDING, torch.cuda.device(device):
        current = torch.cuda.current_stream()
        stream = torch.cuda.Stream() if stream is None else stream  # type: ignore[no-untyped-call]
        try:
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(warm_ups):
                    run()
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: a call that a recording doesn't allow ends it only if its own thread makes it
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                result = run()
        finally:
            # a recording that fails leaves its stream current
            torch.cuda.set_stream(current)
    return graph.replay, result
