"""Prefetching and mapping in threads: order, bounds, errors, and that no thread stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from serank.utils.prefetch import InOrder, prefetch, threaded_map


def test_order_is_kept() -> None:
    assert list(prefetch(range(100), 3)) == list(range(100))

    def slow_evens(n: int) -> int:
        time.sleep(0.002 * (n % 2 == 0))
        return n * n

    assert list(threaded_map(slow_evens, range(50), threads=4, pending=7)) == [n * n for n in range(50)]


def test_no_more_is_made_than_was_asked_for() -> None:
    made = []

    def items() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    source = prefetch(items(), 4)
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.3)
    assert len(made) <= 3 + 4 + 1
    source.close()


def test_results_that_wait_are_bounded() -> None:
    running: list[int] = []
    most = 0
    lock = threading.Lock()

    def items() -> Iterator[int]:
        nonlocal most
        for n in range(40):
            with lock:
                running.append(n)
                most = max(most, len(running))
            yield n

    def work(n: int) -> int:
        time.sleep(0.002)
        with lock:
            running.remove(n)
        return n

    assert list(threaded_map(work, items(), threads=2, pending=5)) == list(range(40))
    assert most <= 6


def test_an_error_comes_after_what_was_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    for source in (prefetch(items(), 2), threaded_map(lambda n: n, items(), threads=2, pending=3)):
        seen = []
        with pytest.raises(OSError, match="disk is gone"):  # noqa: PT012
            for n in source:
                seen.append(n)  # noqa: PERF402
        assert seen == [0, 1, 2, 3, 4]


def test_ctrl_c_lets_what_is_under_way_finish() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for n in threaded_map(lambda n: n, items(), threads=2, pending=10):
            seen.append(n)  # noqa: PERF402
    assert seen == [0, 1, 2]


def test_an_error_of_the_work_is_raised() -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    with pytest.raises(ValueError, match="two"):
        list(threaded_map(work, range(10), threads=1, pending=2))


def test_items_that_threads_finish_are_taken_in_order() -> None:
    taken: list[str] = []
    order = InOrder(taken.append)
    for number, item, so_far in ((2, "c", ""), (0, "a", "a"), (3, "d", "a"), (1, "b", "abcd"), (4, "e", "abcde")):
        order.put(number, item)
        assert "".join(taken) == so_far
    many: list[int] = []
    numbers = InOrder(many.append)

    def work(n: int) -> None:
        time.sleep(0.002 * (n % 3))
        numbers.put(n, n)

    list(threaded_map(work, range(60), threads=4, pending=8))
    assert many == list(range(60))


def test_a_reader_that_is_left_stops() -> None:
    before = threading.active_count()
    source = prefetch(iter(int, 1), 2)  # without an end
    assert next(source) == 0
    source.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == before
