"""Signals that ask a process to end, as exceptions."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = ("SIGTERM", "SIGHUP")
INTERRUPTED = 128 + signal.SIGINT
"""Exit status of what Ctrl-C ended."""
SAME_STOP = 5.0
"""Seconds after a signal in which further ones ask for the same: torchrun hands on what its processes got as well."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as Ctrl-C does, so that results are kept.

    Signals within `SAME_STOP` of the last one that raised don't disturb what is being kept; in a process of torchrun
    this holds for Ctrl-C too. A signal that is ignored, such as SIGHUP under nohup, stays ignored. In another thread
    than the main one this does nothing, as Python sets handlers there alone.

    Yields:
        Numbers of the signals that came, in order.
    """
    received: list[int] = []
    owner, last = os.getpid(), -SAME_STOP

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != owner:  # a child that was forked, which ends as it would without this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if time.monotonic() - last < SAME_STOP:
            return
        last = time.monotonic()
        received.append(number)
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        numbers.append(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in numbers if main and signal.getsignal(n) in usual}
    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
