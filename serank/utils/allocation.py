"""How the process keeps memory that is freed."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, from malloc.h."""
LARGEST_THRESHOLD = 32 << 20
"""Bytes; glibc takes no higher `M_MMAP_THRESHOLD` on 64 bits."""
NEVER = -1
CHOSEN_BY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Variables by which users of glibc choose for themselves, besides `GLIBC_TUNABLES`."""


def keep_freed_memory() -> bool:
    """Lets glibc keep freed blocks of up to 32 MiB for what is allocated next, for the rest of the process.

    By default it gives them back to the system, which clears every page of the next ones. The process then holds its
    peak until it ends.

    Returns:
        Whether that was set: `False` with another C library, and where the environment chooses these thresholds.
    """
    chosen = any(name in os.environ for name in CHOSEN_BY) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
