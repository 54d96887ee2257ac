"""Lists written for folders that have none."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serank.cli.entry import main
from serank.datasets import BoxFolder, FolderDataset, available_splits, describe_folder, split_folder, split_names
from serank.datasets.splitting import choose_validation, sequence_of

NAMES = [f"clip{clip:02d}_{i:06d}" for clip in range(10) for i in range(10)]


def folder(root: Path, names: list[str], *, masks: bool = True) -> Path:
    for kind in ("images", "masks") if masks else ("images",):
        (root / kind).mkdir(parents=True)
        for name in names:
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / kind / f"{name}.png")
    return root


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("clip03_000123", "clip03"),
        ("TH0517_3", "TH0517"),
        ("iraytek-167", "iraytek"),
        ("Misc_1", "Misc"),
        ("000012", ""),
        ("frame", "frame"),
        ("run 2 - 0001", "run 2"),
    ],
)
def test_sequence_of_a_name(name: str, sequence: str) -> None:
    assert sequence_of(name) == sequence


def test_choice_depends_on_names_and_seed_alone() -> None:
    chosen = choose_validation(NAMES, 0.2)
    assert len(chosen) == 20
    shuffled = NAMES.copy()
    random.Random(1).shuffle(shuffled)
    assert choose_validation(shuffled, 0.2) == chosen
    other = choose_validation(NAMES, 0.2, seed=1)
    assert len(set(chosen) & set(other)) < 12
    # of a set that grows, most frames stay where they were
    grown = choose_validation([*NAMES, *(f"more_{i}" for i in range(10))], 0.2)
    assert len(set(chosen) - set(grown)) <= 5


def test_sequences_stay_together() -> None:
    chosen = choose_validation(NAMES, 0.2, by_sequence=True)
    assert len(chosen) == 20
    assert len({sequence_of(name) for name in chosen}) == 2
    # one by one, neighbours fall apart
    assert len({sequence_of(name) for name in choose_validation(NAMES, 0.2)}) > 5


def test_sequences_of_unlike_lengths_come_close_to_the_share() -> None:
    names = [f"long_{i}" for i in range(80)] + [f"mid_{i}" for i in range(15)] + [f"short_{i}" for i in range(5)]
    for seed in range(6):
        chosen = choose_validation(names, 0.2, seed=seed, by_sequence=True)
        assert 5 <= len(chosen) <= 20
    # where even the smallest is larger than the share, it is taken
    two = [f"a_{i}" for i in range(50)] + [f"b_{i}" for i in range(49)]
    assert {sequence_of(name) for name in choose_validation(two, 0.01, by_sequence=True)} == {"b"}
    assert len(choose_validation(["a", "b"], 0.99)) == 1


def test_choice_refuses() -> None:
    with pytest.raises(ValueError, match=r"val must be a share of the frames between 0 and 1, such as 0.2; got 20"):
        choose_validation(NAMES, 20)
    with pytest.raises(ValueError, match=r"1 sequences \(all names begin with 'Misc'\) can't be split"):
        choose_validation(["Misc_1", "Misc_2"], 0.5, by_sequence=True)
    with pytest.raises(ValueError, match="0 frames can't be split"):
        choose_validation([], 0.5)


def test_split_writes_lists_that_training_reads(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", NAMES[:20])
    assert f"none; `serank split {root}` writes train.txt and val.txt" in str(describe_folder(root))
    result = split_folder(root, val=0.25)
    train, val = FolderDataset(root, "train"), FolderDataset(root, "val")
    assert (train.names, val.names) == (result.train, result.val)
    assert (len(train), len(val)) == (15, 5)
    assert sorted(train.names + val.names) == NAMES[:20]
    assert "serank split" not in str(describe_folder(root))
    with pytest.raises(FileExistsError, match=r"train\.txt: is there already"):
        split_folder(root)
    assert len(split_folder(root, val=0.5, overwrite=True).val) == 10


def test_split_leaves_out_test_frames_and_frames_without_masks(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", NAMES[:20])
    (root / "test.txt").write_text("\n".join(NAMES[:4]))
    (root / "masks" / f"{NAMES[19]}.png").unlink()
    result = split_folder(root)
    assert (result.held_out, result.unlabelled, len(result.train), len(result.val)) == (4, 1, 12, 3)
    assert not {*result.train, *result.val} & {*NAMES[:4], NAMES[19]}
    assert "1 without a mask left out; 4 test frames left out" in str(result)


def test_split_of_a_set_with_boxes_alone(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", NAMES[:10], masks=False)
    with pytest.raises(FileNotFoundError, match=r"none of 10 frames has a mask in masks/ or boxes in boxes\.json"):
        split_folder(root)
    (root / "boxes.json").write_text(json.dumps({name: [] for name in NAMES[:10]}))
    assert len(split_folder(root).val) == 2


def test_split_refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        split_folder(tmp_path / "nothing")
    folder(tmp_path / "set" / "train", NAMES[:3])
    with pytest.raises(FileNotFoundError, match="it is split into folders already: train"):
        split_folder(tmp_path / "set")


def test_split_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "set", NAMES[:40])
    assert main(["split", str(root), "--val", "0.25", "--seed", "3", "--by-sequence"]) == 0
    assert "train.txt 30 frames, val.txt 10, 4 sequences, each in one of them" in capsys.readouterr().out
    assert len({sequence_of(name) for name in (root / "val.txt").read_text().split()}) == 1
    assert main(["split", str(root)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["split", str(root), "--overwrite"]) == 0


@pytest.mark.parametrize("dataset", ["sirst", "sirst-v2", "irstd1k", "nudt-sirst"])
def test_published_lists(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [key.partition(":")[2] for key in available_splits() if key.startswith(f"{dataset}:")]
    names = sorted({name for part in parts for name in split_names(dataset, part)})
    (tmp_path / "images").mkdir()
    for name in [*names, "another"]:
        (tmp_path / "images" / f"{name}.png").touch()
    assert main(["split", str(tmp_path), "--published", dataset]) == 0
    said = capsys.readouterr().out
    for part in ("train", "val", "test"):
        file = tmp_path / f"{part}.txt"
        if part not in parts:
            assert not file.exists()
            continue
        assert file.read_text().split() == list(split_names(dataset, part))
        assert f"{part}.txt {len(split_names(dataset, part))}" in said
    with pytest.raises(FileExistsError, match=r"train\.txt: is there already"):
        split_folder(tmp_path, published=dataset)
    # without its test frames a set is trained on and validated, and its test list can't be written
    if "test" in parts:
        (tmp_path / "images" / f"{split_names(dataset, 'test')[0]}.png").unlink()
        (tmp_path / "test.txt").unlink()
        assert split_folder(tmp_path, published=dataset, overwrite=True).test == []
        assert not (tmp_path / "test.txt").exists()
    (tmp_path / "images" / f"{split_names(dataset, 'val')[0]}.png").unlink()
    (tmp_path / "train.txt").write_text("another\n")
    with pytest.raises(FileNotFoundError, match=rf"1 frames of the published split '{dataset}' are missing"):
        split_folder(tmp_path, published=dataset, overwrite=True)
    assert (tmp_path / "train.txt").read_text() == "another\n"


def test_published_lists_that_cannot_be(tmp_path: Path) -> None:
    folder(tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match="published must be one of sirst, sirst-v2, irstd1k, nudt-sirst; got 'nudt'"):
        split_folder(tmp_path, published="nudt")
    with pytest.raises(ValueError, match="leave out val, seed and by_sequence"):
        split_folder(tmp_path, published="sirst", val=0.3)


def test_names_in_decomposed_unicode(tmp_path: Path) -> None:
    """As macOS keeps them, where lists have the composed form."""
    names = [unicodedata.normalize("NFD", f"café_{i}") for i in range(6)]
    folder(tmp_path, names)
    test = [unicodedata.normalize("NFC", name) for name in names[:2]]
    (tmp_path / "test.txt").write_text("\n".join(test) + "\n", encoding="utf-8")
    made = split_folder(tmp_path, val=0.5)
    assert made.held_out == 2
    assert not set(test) & set(made.train + made.val)
    (tmp_path / "boxes.json").write_text(json.dumps({name: [] for name in names}))
    assert len(BoxFolder(tmp_path, "train")) == len(BoxFolder(tmp_path)) - 4 == 2
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in names:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(maps / f"{name}.png")
    assert FolderDataset(tmp_path, "train", soft=maps)[0].soft is not None
