"""CUDA graphs of a network, one for each input shape.

A frame of 512 x 512 px is some 200 kernels, and at batch 1 their launches take longer than their work. A CUDA graph
holds the launches of one pass, and replaying it costs one.

Shapes are recorded as they are. Padding them up to a few sizes would save recordings, but change results: SeRank ranks
over the whole map, so that rows which the network doesn't pad today would be ranked with the others, and the columns
of the positional table would move. What bounds the work on a folder of many sizes is that a shape is recorded when it
comes again, and a number of graphs.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from serank.utils.cuda_graph import record_graph

LOGGER = logging.getLogger("serank.inference")

Replay: TypeAlias = Callable[[Tensor], Tensor]
Recorder: TypeAlias = Callable[[Replay, Tensor], Replay]
"""From a function and an example of its input to a replay of that function for inputs of the example's shape."""

MOST_GRAPHS = 8
MOST_COUNTED = 256
"""Shapes without a graph whose meetings are counted."""
WARM_UPS = 2
"""Runs before a recording, in which libraries choose their algorithms and allocate."""


class GraphCache:
    """Runs a function by replaying recordings of it; several threads may use one.

    A shape is recorded when it is met for the second time; once a recording was dropped for another, only after twice
    as many meetings as before, so that sizes which come in turn don't record without end. The first runs, and shapes
    that can't be recorded, call the function.

    Args:
        record: makes the recordings; it is called, and these are, by one thread at a time.
        most: recordings kept; the least recently used goes.
    """

    def __init__(self, record: Recorder, most: int = MOST_GRAPHS) -> None:
        self._record = record
        self._most = most
        self._meetings_needed = 2
        self._meetings: OrderedDict[torch.Size, int] = OrderedDict()
        self._replays: OrderedDict[torch.Size, Replay | None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, function: Replay, x: Tensor) -> Tensor:
        """`function(x)`; always the same function, whose result depends on `x` alone and has no gradient."""
        with self._lock:
            replay = self._find(function, x)
            if replay is not None:
                return replay(x)
        return function(x)

    def _find(self, function: Replay, x: Tensor) -> Replay | None:
        if x.shape in self._replays:
            self._replays.move_to_end(x.shape)
            return self._replays[x.shape]
        meetings = self._meetings.pop(x.shape, 0) + 1
        if meetings < self._meetings_needed:
            self._meetings[x.shape] = meetings
            if len(self._meetings) > MOST_COUNTED:
                self._meetings.popitem(last=False)
            return None
        replay = self._recorded(function, x)
        # after the recording, which has waited for the device: no replay of what goes is still at work
        self._replays[x.shape] = replay
        if len(self._replays) > self._most:
            self._replays.popitem(last=False)
            self._meetings_needed *= 2
        return replay

    def _recorded(self, function: Replay, x: Tensor) -> Replay | None:
        try:
            return self._record(function, x)
        except RuntimeError as error:  # out of memory too; if the function itself fails, its next call says so
            LOGGER.info("no CUDA graph for input %s, it runs without: %s", tuple(x.shape), error)
            return None


class CudaRecorder:
    """Records CUDA graphs that share one memory pool, so that all of them take little more than the largest.

    Replays are for one thread at a time. Their order on the device is kept whatever stream each caller uses, since the
    graphs share their memory. Settings such as `torch.backends.cudnn.allow_tf32` stay as they were at the recording.

    Args:
        device: of all that is recorded, of type CUDA.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None
        self._last_replay: torch.cuda.Event | None = None

    def __call__(self, function: Replay, x: Tensor) -> Replay:
        """A replay of `function` for tensors of the shape, dtype, format and device of `x`."""
        # no tensors of inference mode, to which nothing can be copied outside of it
        with torch.cuda.device(self._device), torch.inference_mode(False), torch.no_grad():
            if self._stream is None or self._last_replay is None:
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._last_replay = torch.cuda.Event()  # type: ignore[no-untyped-call]
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            last_replay = self._last_replay
            held = torch.empty_like(x).copy_(x)
            try:
                start, result = record_graph(
                    lambda: function(held), self._device, warm_ups=WARM_UPS, stream=self._stream, pool=self._pool
                )
            except RuntimeError:
                self._pool = None  # a pool that no graph came to own can't be used again
                raise

        def replay(x: Tensor) -> Tensor:
            with torch.cuda.device(self._device):
                current = torch.cuda.current_stream()
                current.wait_event(last_replay)
                held.copy_(x)
                start()
                copied = result.clone()  # before the next replay writes over it
                current.record_event(last_replay)
                return copied

        return replay


def graphs_on(device: torch.device) -> GraphCache | None:
    """Where recordings are made of what runs on `device`: on CUDA."""
    return GraphCache(CudaRecorder(device)) if device.type == "cuda" else None
