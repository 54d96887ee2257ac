"""Inside the library a name is imported from the module that defines it, not from a package that hands it on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "serank"


def handed_on(file: Path, package: Path) -> Iterator[str]:
    """Line and name of what `file` imports from an `__init__.py`, but for modules in its folder."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.module.split(".")[0] != package.name:
            continue
        folder = package.parent.joinpath(*node.module.split("."))
        if (folder / "__init__.py").is_file():
            for name in node.names:
                if not (folder / name.name).is_dir() and not (folder / f"{name.name}.py").is_file():
                    yield f"{file.name}:{node.lineno} {name.name}"


def test_names_come_from_the_modules_that_define_them() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    assert len(files) > 100
    assert [found for file in files for found in handed_on(file, PACKAGE)] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from serank.datasets import Sample", ["new.py:1 Sample"]),
        ("def f():\n    from serank.metrics import iou, niou", ["new.py:2 iou", "new.py:2 niou"]),
        ("from serank import losses", []),
        ("from serank.datasets import layouts", []),
        ("from serank.datasets.sample import Sample", []),
        ("from numpy import array", []),
    ],
)
def test_what_counts_as_handed_on(tmp_path: Path, line: str, found: list[str]) -> None:
    file = tmp_path / "new.py"
    file.write_text(line, encoding="utf-8")
    assert list(handed_on(file, PACKAGE)) == found
