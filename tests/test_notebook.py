"""The notebook: valid, without outputs, and its cells run one after the other."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from serank import SeRankDet

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tutorial.ipynb"


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_notebook_runs_and_is_stored_without_outputs(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its fast form with one epoch, and without the export, which test_export runs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    monkeypatch.chdir(tmp_path)
    exported: list[dict[str, Any]] = []

    def export(_: SeRankDet, path: Path, **options: Any) -> None:
        exported.append(options)
        path.write_bytes(bytes(2_000_000))

    if not whole:
        monkeypatch.setattr(SeRankDet, "export", export)
    namespace: dict[str, object] = {}
    start = time.process_time()
    for cell in cells:
        source = cell.source if whole else re.sub(r"epochs=\d+", "epochs=1", cell.source)
        exec(compile(source, f"{NOTEBOOK.name}, {cell.id}", "exec"), namespace)
    assert time.process_time() - start < 90
    assert whole or exported == [{"name": "mine"}]
    assert (tmp_path / "tutorial" / "mine.onnx").stat().st_size > 1e6
    assert "iou  before" in capsys.readouterr().out
