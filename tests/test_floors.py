"""The import contract of pyproject.toml: packages import downwards only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="needs the extra `lint`")

ROOT = Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's Python files and their contract."""
    shutil.copytree(ROOT / "serank", tmp_path / "serank", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_packages_import_downwards_only() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("serank/utils/files.py", "from serank.cli import main", "serank.utils is not allowed to import serank.cli"),
        (
            "serank/layers/ddc.py",
            "from serank.metrics import iou",
            "serank.layers is not allowed to import serank.metrics",
        ),
        # of one floor, but independent
        (
            "serank/metrics/components.py",
            "from serank.frames import read_frame",
            "serank.metrics is not allowed to import serank.frames",
        ),
    ],
)
def test_an_upward_import_breaks_the_contract(copy: Path, file: str, line: str, said: str) -> None:
    with (copy / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1
    assert said in done.stdout


def test_a_new_package_needs_a_floor(copy: Path) -> None:
    (copy / "serank" / "attic.py").write_text('"""Of no floor."""\n')
    done = lint(copy)
    assert done.returncode == 1
    assert "attic" in done.stdout + done.stderr
