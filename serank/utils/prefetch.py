"""Threads that make items before they are needed, and that work on several items at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

POLL_INTERVAL = 0.1
"""Seconds between looks of a blocked thread at whether its items are still wanted."""


def prefetch(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yields `items` in order while a background thread makes up to `count` of them in advance.

    An exception of `items` is raised here, after the items before it. Closing the generator stops the thread.
    """
    queue: Queue[tuple[bool, Any]] = Queue(count)
    stopped = Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                queue.put(entry, timeout=POLL_INTERVAL)
            except Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # the consumer, which waits for the next entry, raises it
            put((False, error))

    Thread(target=produce, daemon=True).start()
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


def threaded_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, pending: int
) -> Generator[R, None, None]:
    """Yields `function(item)` in the order of `items`, computed by `threads` threads.

    At most `pending` results are unfinished or not yet taken. After an exception of `items`, the results of the items
    before it are yielded first, then it is raised. Closing the generator waits for what is under way.
    """
    with ThreadPoolExecutor(threads) as pool:
        futures: deque[Future[R]] = deque()
        failure: BaseException | None = None
        source = iter(items)
        while failure is None:
            try:
                futures.append(pool.submit(function, next(source)))
            except StopIteration:
                break
            except BaseException as error:  # KeyboardInterrupt too
                failure = error
            while futures and (len(futures) >= pending or futures[0].done()):
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
        if failure is not None:
            raise failure


class InOrder(Generic[T]):
    """Hands on what threads finish in any order by its numbers, each item as soon as those before it are there.

    Args:
        take: is called with one item at a time, by the thread that brings it or one before it.
    """

    def __init__(self, take: Callable[[T], object]) -> None:
        self._take = take
        self._lock = Lock()
        self._waiting: dict[int, T] = {}
        self._next = 0

    def put(self, number: int, item: T) -> None:
        """Brings the item of this number, which count from 0; raises what `take` raises."""
        with self._lock:
            self._waiting[number] = item
            while self._next in self._waiting:
                self._next += 1
                self._take(self._waiting.pop(self._next - 1))
