"""Freed memory is kept for what is allocated next, by the command alone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

import serank.cli.train
from serank.cli.entry import main
from serank.utils.allocation import keep_freed_memory

glibc = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc, whose thresholds are set"
)
# eight blocks of 16 MiB are freed together and allocated anew; pages that the system had to bring, before and after
ROUNDS = """
import resource
from serank.utils.allocation import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [b"x" * (16 << 20) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults() and faults())
"""


@glibc
def test_memory_that_is_kept_is_not_brought_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True)
    before, was_set, after = done.stdout.split()
    assert was_set == "True"
    assert 5 * int(after) < int(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ],
)
def test_what_the_user_chose_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # as with musl
    assert not keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("cuda", 0)])
def test_the_command_sets_it_where_the_cpu_trains(
    device: str, times: int, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(serank.cli.train, "keep_freed_memory", lambda: calls.append(None))
    assert main(["train", f"{tmp_path}/none", "--output", f"{tmp_path}/run", "--device", device]) == 1  # no frames
    assert len(calls) == times
