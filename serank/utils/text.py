"""Texts in messages and tables: lists, close matches of misspelt names, file names of any bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Text that begins so is a formula to spreadsheets."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'detect'?"` for the known name that is closest to `name`, or `""` if none is close."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def listing(entries: Sequence[object], most: int, separator: str = ", ") -> str:
    """The first `most` entries and how many more there are, such as `"a, b and 3 more"`.

    After another separator than `", "` the count stands as an entry of its own.
    """
    shown = separator.join(str(entry) for entry in entries[:most])
    if len(entries) <= most:
        return shown
    return f"{shown}{' ' if separator == ', ' else separator}and {len(entries) - most} more"


def printable(text: str) -> str:
    r"""A file name as text that every UTF-8 file takes: bytes that are not UTF-8 become `\xNN`."""
    escaped = re.sub("[\udc80-\udcff]", lambda match: rf"\x{ord(match[0]) - 0xDC00:02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def natural_key(text: str) -> list[tuple[str, int]]:
    """A key that sorts numbers in names by their value: `frame2` before `frame10`."""
    parts = re.split("([0-9]+)", text)
    return [(part, int(number)) for part, number in zip(parts[::2], [*parts[1::2], "-1"], strict=True)]


def no_formula(value: Any) -> Any:
    """A cell of a table; text that spreadsheets would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
