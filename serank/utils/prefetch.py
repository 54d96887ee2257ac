"""Running one thing while another waits: reading ahead, and writing behind, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

__all__ = ["ahead", "behind"]

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 0.1
"""Seconds after which a thread that can't go on looks whether it still should."""


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items in order, made by a thread that is up to `count` of them in front.

    An error of `items` is raised here, after the items before it.
    """
    queue: Queue[tuple[bool, Any]] = Queue(count)
    stopped = Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                queue.put(entry, timeout=PATIENCE)
            except Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # whatever it is, the one who waits for items must hear of it
            put((False, error))

    Thread(target=read, daemon=True).start()
    try:
        while True:
            more, value = queue.get()
            if more:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stopped.set()


def behind(work: Callable[[T], R], items: Iterable[T], *, threads: int, count: int) -> Iterator[R]:
    """`work` of each item, in order, done by threads while the next items are made; at most `count` are under way.

    After an error of `items`, what was made before it is still worked on and given, then the error is raised.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        failure: BaseException | None = None
        source = iter(items)
        while failure is None:
            try:
                waiting.append(pool.submit(work, next(source)))
            except StopIteration:
                break
            except BaseException as error:  # Ctrl-C among them
                failure = error
            while waiting and (len(waiting) >= count or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
