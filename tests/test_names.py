"""Names that no file system takes for one."""

from __future__ import annotations

import pytest

from serank.utils.names import FreeNames


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["a", "a_2", "a"], ["a", "a_2", "a_3"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_3"]),
        (["Clip", "clip", "CLIP_2"], ["Clip", "clip_2", "CLIP_2_2"]),
        (["straße", "STRASSE"], ["straße", "STRASSE_2"]),
        (["caf\u00e9", "cafe\u0301"], ["caf\u00e9", "cafe\u0301_2"]),
        (["", ""], ["", "_2"]),
    ],
)
def test_names_differ_in_more_than_case(names: list[str], expected: list[str]) -> None:
    free = FreeNames()
    assert [free(name, owner) for owner, name in enumerate(names)] == expected
    assert [free(name, owner) for owner, name in enumerate(names)] == expected  # each owner keeps its own


def test_another_separator_and_names_that_are_refused() -> None:
    free = FreeNames("-")
    assert [free("a", owner, {"a", "a-3"}.__contains__) for owner in range(2)] == ["a-2", "a-4"]
    assert free("a", "asked later") == "a"
