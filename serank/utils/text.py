"""Lists in messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listing"]


def listing(entries: Sequence[object], most: int, separator: str = ", ") -> str:
    """The first `most` entries joined by `separator`, and how many more there are.

    Args:
        entries: shown by `str`.
        most: entries shown, >= 1.
        separator: between entries; after another than `", "` the count stands as an entry of its own.

    Returns:
        Such as `"a, b and 3 more"`; empty without entries.
    """
    shown = separator.join(str(entry) for entry in entries[:most])
    if len(entries) <= most:
        return shown
    return f"{shown}{' ' if separator == ', ' else separator}and {len(entries) - most} more"
