"""The table of published checkpoints and the names of the paper's data sets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serank import SeRankDet
from serank.checkpoints import bundled, published
from serank.cli.entry import main
from serank.errors import CheckpointError
from serank.train import PRESETS

PAPER = ("sirst", "irstd1k", "nudt-sirst", "sirstaug")


def test_every_data_set_of_the_paper_has_a_row_and_a_preset() -> None:
    assert set(PAPER) <= set(published())
    assert {f"paper-{name}" for name in PAPER} <= set(PRESETS)


@pytest.mark.parametrize("name", PAPER)
def test_a_name_loads_trained_weights_or_says_that_there_are_none(name: str) -> None:
    row = published()[name]
    if row.source != "none":
        assert SeRankDet.from_pretrained(name).config["width"] == row.width
        return
    with pytest.raises(CheckpointError) as error:
        SeRankDet.from_pretrained(name)
    for part in ("no weights are published", f"--preset paper-{name} ", f"runs/{name}/best", "serank convert"):
        assert part in str(error.value)


def test_a_folder_of_that_name_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SeRankDet(width=1, threshold=0.3).save_pretrained("sirstaug")
    assert SeRankDet.from_pretrained("sirstaug").threshold == 0.3
    SeRankDet(width=1).save_pretrained("sirst")  # bundled names come first
    assert SeRankDet.from_pretrained("sirst").config["width"] == published()["sirst"].width


def test_figures_of_bundled_rows_are_those_of_their_cards() -> None:
    for name, folder in bundled().items():
        row = published()[name]
        assert row.source == "bundled"
        assert row.licence
        assert row.data_sets
        assert row.results
        text = (folder / "README.md").read_text(encoding="utf-8").partition("\n---\n")[2]
        for result in row.results:
            assert set(result.metrics) == {"iou", "niou", "pd", "fa"}
            table = re.search(rf"^\| {re.escape(result.data_set)} {result.split}.*$", text, re.M)
            assert table, f"the card of {name} has a row of {result.data_set} {result.split}"
            stated = [float(cell) for cell in re.findall(r"\| *(\d[\d.]*) *(?=\|)", table[0])]
            figures = [value * (1e6 if key == "fa" else 1) for key, value in result.metrics.items()]
            assert stated == pytest.approx(figures)


def test_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints"]) == 0
    out = capsys.readouterr().out
    for name, row in published().items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert row.source in line
        for result in row.results:
            assert f"{result.metrics['iou']:.4f}" in out
    assert "serank train --preset paper-NAME" in out
