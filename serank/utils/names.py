"""Names in messages and tables: close matches of misspelt ones, and file names of any bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "printable"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'detect'?"` for the known name that is closest to `name`, or `""` if none is close."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def printable(text: str) -> str:
    r"""A file name as text that every UTF-8 file takes: bytes that are not UTF-8 become `\xNN`."""
    escaped = re.sub("[\udc80-\udcff]", lambda match: rf"\x{ord(match[0]) - 0xDC00:02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")
