"""`serank train --license --dataset` makes a card that `serank publish` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from serank.checkpoints import read_metadata
from serank.cli.entry import main
from serank.datasets import write_folder
from serank.synthetic import SyntheticScenes


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    scenes = SyntheticScenes(6, 48, 48, targets=(1, 1), size=(3, 6), scr=(10, 30), seed=5)
    write_folder(scenes, tmp_path / "frames")
    names = [scene.name for scene in scenes]
    (tmp_path / "frames" / "train.txt").write_text("\n".join(names[:4]))
    (tmp_path / "frames" / "val.txt").write_text("\n".join(names[4:]))
    return tmp_path / "frames"


def train(frames: Path, output: Path, *more: str) -> None:
    options = ("--epochs", "1", "--batch-size", "2", "--width", "2", "--crop", "32", "--working-size", "0")
    assert main(["train", str(frames), "--output", str(output), *options, *more]) == 0


def test_a_card_with_licence_and_data_set_is_published_as_it_is(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    train(frames, output, "--license", "cc-by-4.0", "--dataset", "harbour-1", "--dataset", "harbour-2")
    card = read_metadata((output / "best" / "README.md").read_text(encoding="utf-8"))
    assert (card.licence, card.data_sets) == ("cc-by-4.0", ("harbour-1", "harbour-2"))
    assert [(result.data_set, result.split) for result in card.results] == [("harbour-1 + harbour-2", "val")]
    capsys.readouterr()
    assert main(["publish", str(output / "best"), "owner/name", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would push to ")


def test_without_them_publish_asks_for_both(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(frames, tmp_path / "run")
    assert main(["publish", str(tmp_path / "run" / "best"), "owner/name", "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "3 checks failed" in error
    for missing in ("no license in the metadata", "no datasets in the metadata", "metrics of an unknown data set"):
        assert missing in error
