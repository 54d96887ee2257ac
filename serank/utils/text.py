"""Wording that messages share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["join_names"]


def join_names(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names, separated by commas, and how many more there are: `"a, b and 3 more"`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
