"""Names of files that are written side by side."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable


class FreeNames:
    """Gives out names, no two of them equal on any file system.

    Upper and lower case count as one, and so do the two ways in which Unicode writes an accented letter: some file
    systems take them for one.

    Args:
        separator: between a name and the number that it gets where it is taken.
    """

    def __init__(self, separator: str = "_") -> None:
        self._separator = separator
        self._given: dict[Hashable, str] = {}
        self._taken: set[str] = set()
        self._following: defaultdict[str, int] = defaultdict(lambda: 2)

    def __call__(self, name: str, owner: Hashable, refused: Callable[[str], bool] | None = None) -> str:
        """The owner's name, the same at each call: `name`, or `name`, separator and a number where it isn't free.

        Args:
            name: that the owner would have alone.
            owner: what the name is for.
            refused: tells of a name that is not taken whether it can't be used all the same.
        """
        if owner not in self._given:
            found, folded = name, fold(name)
            while fold(found) in self._taken or (refused is not None and refused(found)):
                found = f"{name}{self._separator}{self._following[folded]}"
                self._following[folded] += 1
            self._taken.add(fold(found))
            self._given[owner] = found
        return self._given[owner]


def fold(name: str) -> str:
    """What two names have in common that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
