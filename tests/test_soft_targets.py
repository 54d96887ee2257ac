"""Soft targets beside the masks, and consistency between two orientations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import FolderDataset, Sample, write_folder
from serank.errors import FrameError
from serank.frames import FrameSpec
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit
from serank.train.augment import RandomCrops
from serank.train.consistency import TURNS, consistency_loss, turn, turn_back

TINY = Recipe(epochs=1, batch_size=2, ema_decay=0.0, augmentation=Augmentation(crop=32, scale=(0.8, 1.25), paste=0.5))


def scenes(soft: int | None = None) -> list[Sample]:
    made = SyntheticScenes(6, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5)
    return [s if soft is None else s._replace(soft=(s.mask * soft).astype(np.uint8)) for s in made]


def trained(samples: list[Sample], **changes: float) -> tuple[SeRankDet, float]:
    torch.manual_seed(0)
    model = SeRankDet(width=2)
    rows = fit(model, samples, recipe=replace(TINY, **changes), progress=False).rows  # type: ignore[arg-type]
    return model, rows[0]["loss"]


def test_soft_targets_are_cut_and_turned_like_frames() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 80)).astype(np.uint8)
    sample = Sample("a", (frame / 255).astype(np.float32), frame > 250, frame)
    augmentation = Augmentation(crop=32, blur=0, contrast=0)
    for epoch in range(8):
        x, targets, _ = RandomCrops([sample], augmentation, FrameSpec(), soft=True)[epoch, 0]
        plain = RandomCrops([sample._replace(soft=None)], augmentation, FrameSpec())[epoch, 0]
        assert targets.shape == (2, 32, 32)
        torch.testing.assert_close(targets[1:], x, atol=1e-6, rtol=0)
        assert torch.equal(x, plain[0])
        assert torch.equal(targets[:1], plain[1])


def test_both_terms_count_and_are_off_by_default() -> None:
    plain, loss = trained(scenes())
    same, _ = trained(scenes(255))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), same.parameters(), strict=True))
    still = {"lr": 1e-30, "freeze_statistics": True}
    base = trained(scenes(255), **still)[1]
    one, two = (trained(scenes(255), soft_weight=w, **still)[1] for w in (1.0, 2.0))
    assert two - base == pytest.approx(2 * (one - base), rel=1e-4)
    assert one > base
    assert trained(scenes(), consistency_weight=1e6, **still)[1] > base
    assert trained(scenes(), consistency_weight=1e6)[1] != loss


def test_turns_are_seven_and_turn_back() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    turned = [turn(x, orientation) for orientation in TURNS]
    assert len({tuple(t.flatten().tolist()) for t in [x, *turned]}) == 8
    assert all(torch.equal(turn_back(t, orientation), x) for orientation, t in zip(TURNS, turned, strict=True))
    assert consistency_loss(x, x) == 0
    assert float(consistency_loss(torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 2), 99.0))) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="one shape"):
        consistency_loss(x, x[..., :2])


def test_samples_without_a_soft_target_are_refused() -> None:
    with pytest.raises(ValueError, match="soft_weight needs a soft target"):
        trained(scenes(), soft_weight=1.0)
    for name in ("soft_weight", "consistency_weight"):
        with pytest.raises(ValueError, match=f"{name} must be >= 0 and finite"):
            replace(TINY, **{name: -1.0})  # type: ignore[arg-type]


def test_folders_the_command_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, maps = tmp_path / "data", tmp_path / "maps"
    write_folder(scenes(), data)
    maps.mkdir()
    for sample in scenes(200):
        assert sample.soft is not None
        Image.fromarray(sample.soft).save(maps / f"{sample.name}.png")
    options = ["--val-split", "", "--width", "2", "--epochs", "1", "--batch-size", "2", "--crop", "32"]
    command = ["train", str(data), *options, "--soft-targets", str(maps)]
    assert main([*command, "--soft-weight", "5", "--output", str(tmp_path / "run")]) == 0
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["setup"]["soft_weight"] == 5
    assert main([*command, "--output", str(tmp_path / "none")]) == 1
    assert "belong together" in capsys.readouterr().err
    for mask in (data / "masks").iterdir():
        mask.unlink()
    (data / "masks").rmdir()
    unlabelled = FolderDataset(data, "train", soft=maps, cache=True)
    for found, sample in zip(unlabelled, scenes(200), strict=True):
        np.testing.assert_array_equal(found.mask, sample.mask)
        np.testing.assert_array_equal(found.soft, sample.soft)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(maps / f"{unlabelled.names[0]}.png")
    with pytest.raises(FrameError, match="soft target is 9 x 9"):
        FolderDataset(data, "train", soft=maps)[0]
    (maps / f"{unlabelled.names[0]}.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 6 frames lack a soft target"):
        FolderDataset(data, "train", soft=maps)
