"""The drivers in benchmarks/ run, on the smallest budget there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from serank import SeRankDet
from serank.datasets import Sample, write_folder
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import ablations
import box_masks
import busy
import general
import pretraining
import sirst

SMALL = ["--epochs", "1", "--width", "2", "--crop", "32", "--working-size", "64", "--batch-size", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes = SyntheticScenes(6, 64, 64, targets=(1, 2), size=(3, 8), scr=(8, 30), seed=1)
    root = tmp_path / "frames"
    write_folder(scenes, root)
    names = [scene.name for scene in scenes]
    (root / "train.txt").write_text("\n".join(names[:4]))
    (root / "val.txt").write_text("\n".join(names[4:]))
    return root


def test_every_ablation_builds() -> None:
    sizes = {
        name: sum(p.numel() for p in SeRankDet(width=4, **row.arguments).parameters())
        for name, row in ablations.ROWS.items()
    }
    assert len(set(sizes.values())) > 10
    assert sizes["lsff"] < sizes["baseline"] < sizes["ddc"] < sizes["full"] + 10_000


def test_ablation_driver(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    command = [str(folder), "--output", str(output), "--rows", "full", "after", "--seeds", "0", "1", *SMALL]
    ablations.main(command)
    text = (output / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "1 epochs on `train` of frames" in text
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
    results = json.loads((output / "results.json").read_text())
    assert {name: len(rows) for name, rows in results.items()} == {"full": 2, "after": 2}
    before = (output / "full-0" / "last.pt").stat().st_mtime_ns
    ablations.main(command)  # nothing is trained twice
    assert (output / "full-0" / "last.pt").stat().st_mtime_ns == before
    assert (output / "table.md").read_text() == text
    ablations.main([*command[:3], "--rows", "full", "--seeds", "0", "1", *SMALL])  # the other row stays in the table
    assert (output / "table.md").read_text() == text
    with pytest.raises(SystemExit, match="use another --output"):
        ablations.main([*command, "--epochs", "2"])


def test_pretraining_driver(folder: Path, tmp_path: Path) -> None:
    pretraining.main([str(folder), "--output", str(tmp_path / "out"), *SMALL])
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[4:]] == list(pretraining.VARIANTS)


def test_busy_driver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--widths", "2", "--workers", "0", "--crop", "32", "--working-size", "64", "--batch", "2"]
    busy.main([str(folder), *sizes])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 |")]
    assert [row[1] for row in rows] == ["in memory", "decoded anew"]
    assert all(0 < float(row[4].rstrip("%")) < 100 for row in rows)


def recorded(monkeypatch: pytest.MonkeyPatch, driver: ModuleType) -> list[list[str]]:
    """Names of the training frames of each `fit` that `driver` will call."""
    taken: list[list[str]] = []

    def keep(model: SeRankDet, train_set: Sequence[Sample], *arguments: Any, **options: Any) -> Any:
        taken.append([sample.name for sample in train_set])
        return fit(model, train_set, *arguments, **options)

    monkeypatch.setattr(driver, "fit", keep)
    return taken


def test_frames_with_a_target_are_taken_more_often(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    for kind in ("images", "masks"):
        (tmp_path / "more" / kind).symlink_to(folder / kind)
    names = (folder / "train.txt").read_text().splitlines()
    for name in names[1:]:  # all but one without a target
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "masks" / f"{name}.png")
    for name in ("train", "val"):
        (tmp_path / "more" / f"{name}.txt").write_text((folder / f"{name}.txt").read_text())
    SeRankDet(width=2).save_pretrained(tmp_path / "init")
    given = recorded(monkeypatch, general)
    command = [str(folder), str(tmp_path / "more"), "--init", str(tmp_path / "init"), "--output", str(tmp_path / "out")]
    sizes = ["--working-size", "64", "--crop", "32", "--batch-size", "2", "--epochs", "1", "--validate-every", "1"]
    general.main([*command, *sizes, "--repeat", "3"])
    assert given[0] == [*names, *names, names[0], names[0]]
    monkeypatch.setattr(general, "false_alarms", lambda model, samples: [2, 3])
    command[command.index("--output") + 1] = str(tmp_path / "hard")
    general.main([*command, *sizes, "--repeat", "1", "--hard", "3"])
    assert given[1] == [*names, *names, *names[2:4], *names[2:4]]
    assert SeRankDet.from_pretrained(tmp_path / "out" / "best").frame_spec.working_size == 64


def test_each_stage_goes_on_from_the_one_before(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(epochs=1, batch_size=2, augmentation=Augmentation(crop=32))
    still = replace(recipe, learning_rate=1e-30, average=0.0, freeze_statistics=True)  # what came in goes out
    stages = (sirst.Stage("first", 64, recipe), sirst.Stage("second", 96, still, large=3, hard=2))
    monkeypatch.setattr(sirst, "STAGES", stages)
    monkeypatch.setattr(sirst, "wrong_pixels", lambda model, samples: [0, sirst.HARD, sirst.HARD + 1, 500])
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:30] = 255
    names = (folder / "train.txt").read_text().splitlines()
    Image.fromarray(mask).save(folder / "masks" / f"{names[1]}.png")
    taken = recorded(monkeypatch, sirst)
    sirst.main([str(folder), "--output", str(tmp_path / "out")])
    assert taken == [names, [*names, names[1], names[1], names[2], names[3]]]
    first, second = (SeRankDet.from_pretrained(tmp_path / "out" / stage.name / "best") for stage in stages)
    assert (first.frame_spec.working_size, second.frame_spec.working_size) == (64, 96)
    for (name, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-12, msg=name)
    written = (tmp_path / "out" / "second" / "last.pt").stat().st_mtime_ns
    sirst.main([str(folder), "--output", str(tmp_path / "out")])  # nothing is trained twice
    assert (tmp_path / "out" / "second" / "last.pt").stat().st_mtime_ns == written


def test_a_stage_may_start_from_the_mean_of_several(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(epochs=1, batch_size=2, augmentation=Augmentation(crop=32))
    still = replace(recipe, learning_rate=1e-30, average=0.0, freeze_statistics=True)
    stages = (
        sirst.Stage("first", 64, recipe),
        sirst.Stage("second", 64, replace(recipe, seed=1)),
        sirst.Stage("third", 64, still, close=3, start=("first", "second", "second")),
    )
    monkeypatch.setattr(sirst, "STAGES", stages)
    names = (folder / "train.txt").read_text().splitlines()
    monkeypatch.setattr(sirst, "has_close_targets", lambda sample: sample.name == names[2])
    taken = recorded(monkeypatch, sirst)
    sirst.main([str(folder), "--output", str(tmp_path / "part"), "--until", "first"])
    assert taken == [names]
    taken.clear()
    sirst.main([str(folder), "--output", str(tmp_path / "out")])
    assert taken == [names, names, [*names, names[2], names[2]]]
    states = [SeRankDet.from_pretrained(tmp_path / "out" / stage.name / "best").state_dict() for stage in stages]
    assert any(not torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    for name, value in states[2].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (states[0][name] + 2 * states[1][name]) / 3, msg=name)


def test_a_stage_may_learn_from_a_mean(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(epochs=1, batch_size=2, augmentation=Augmentation(crop=32))
    taught = sirst.Stage("third", 64, replace(recipe, distil_weight=1.0), teacher=("first", "second"))
    stages = (sirst.Stage("first", 64, recipe), sirst.Stage("second", 64, replace(recipe, seed=1)), taught)
    monkeypatch.setattr(sirst, "STAGES", stages)
    teachers: list[SeRankDet | None] = []

    def keep(*arguments: Any, teacher: SeRankDet | None, **options: Any) -> Any:
        teachers.append(teacher)
        return fit(*arguments, teacher=teacher, **options)

    monkeypatch.setattr(sirst, "fit", keep)
    sirst.main([str(folder), "--output", str(tmp_path)])
    first, second = (SeRankDet.from_pretrained(tmp_path / stage.name / "best").state_dict() for stage in stages[:2])
    assert teachers[:2] == [None, None]
    assert teachers[2] is not None
    assert not torch.equal(first["head.weight"], second["head.weight"])
    for name, value in teachers[2].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2, msg=name)


@pytest.mark.parametrize(("free", "close"), [(2, True), (3, False)])
def test_close_targets_are_those_at_most_three_pixels_apart(free: int, close: bool) -> None:
    mask = np.zeros((32, 32), np.bool_)
    mask[8:12, 8:12] = True
    sample = Sample(frame=np.zeros((32, 32), np.float32), mask=mask, name="one")
    assert not sirst.has_close_targets(sample)
    mask[12:16, 12 + free : 16 + free] = True
    assert sirst.has_close_targets(sample) is close


def test_wrong_pixels_are_those_of_both_kinds() -> None:
    scenes = list(SyntheticScenes(2, 48, 64, targets=(1, 2), size=(3, 8), scr=(8, 30), seed=1))
    model = SeRankDet(width=2)
    assert model.head.bias is not None
    targets = [int(scene.mask.sum()) for scene in scenes]
    for bias, wrong in ((-1e4, targets), (1e4, [48 * 64 - n for n in targets])):
        torch.nn.init.constant_(model.head.bias, bias)
        assert sirst.wrong_pixels(model, scenes) == wrong


def test_false_alarms_are_those_in_frames_without_a_target() -> None:
    scenes = [*SyntheticScenes(2, 48, 64, targets=(1, 1), seed=1), *SyntheticScenes(2, 48, 64, targets=(0, 0), seed=2)]
    model = SeRankDet(width=2)
    assert model.head.bias is not None
    for bias, indices in ((-1e4, []), (1e4, [2, 3])):
        torch.nn.init.constant_(model.head.bias, bias)
        assert general.false_alarms(model, scenes) == indices


def test_box_masks_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    margins = ["--margins", "0", "--box-fractions", "0.3", "--point-fractions", "0.3"]
    box_masks.main([str(folder), "--split", "train", *margins])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["box", "box + 0 px, 0.3", "point, 0.3"]
    whole, rule = (float(line.split("|")[2].split(",")[0]) for line in lines[2:4])
    assert 0 < whole < rule <= 1  # synthetic targets are blurred discs, which do not fill their boxes
