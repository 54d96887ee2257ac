"""Signals that ask a process to end, as exceptions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = ("SIGTERM", "SIGHUP")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as Ctrl-C does, so that results are kept.

    A signal that is ignored, such as SIGHUP under nohup, stays ignored. In another thread than the main one this does
    nothing, as Python sets handlers there alone.

    Yields:
        Numbers of the signals that came, in order.
    """
    received: list[int] = []
    owner = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a child that was forked, which ends as it would without this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in numbers if main and signal.getsignal(n) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
