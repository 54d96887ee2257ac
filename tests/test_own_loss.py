"""Losses of one's own in the trainer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from serank import SeRankDet
from serank.datasets import Sample
from serank.losses import Loss, deep_supervision_loss, dice_loss, focal_loss, soft_iou_loss
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit

TINY = Recipe(epochs=2, batch_size=2, ema_decay=0.9, augmentation=Augmentation(crop=32, scale=(0.8, 1.25)))


class Tversky(nn.Module):
    """With alpha = beta = 0.5 the Dice loss, but for the smoothing."""

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        p = logits.sigmoid()
        both = (p * masks).flatten(1).sum(1)
        wrong = (0.5 * p * (1 - masks) + 0.5 * (1 - p) * masks).flatten(1).sum(1)
        return (1 - (both + 0.5) / (both + wrong + 0.5)).mean()


def scenes() -> list[Sample]:
    return list(SyntheticScenes(4, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5))


def tiny() -> SeRankDet:
    torch.manual_seed(0)
    return SeRankDet(width=2)


@pytest.mark.parametrize(
    ("own", "ours"), [(soft_iou_loss, "soft_iou"), (Tversky(), "dice"), (partial(focal_loss, gamma=2.0), "focal")]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_function_trains_as_the_loss_of_a_name(own: Loss, ours: str, precision: Any, accumulation_steps: int) -> None:
    recipe = replace(TINY, precision=precision, accumulation_steps=accumulation_steps)
    one, other = tiny(), tiny()
    found = fit(one, scenes(), recipe=replace(recipe, loss=own), progress=False)
    expected = fit(other, scenes(), recipe=replace(recipe, loss=ours), progress=False)
    # Dice's own form rounds otherwise
    assert [row["loss"] for row in found.rows] == pytest.approx([row["loss"] for row in expected.rows], rel=1e-3)
    if not isinstance(own, Tversky):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
def test_it_gets_maps_and_targets_in_float32(dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    def own(logits: Tensor, target: Tensor) -> Tensor:
        seen.extend((logits.dtype, target.dtype))
        return dice_loss(logits, target)

    logits = torch.randn(2, 1, 8, 8).bfloat16()
    target = (torch.rand(2, 1, 8, 8) > 0.9).to(dtype)
    deep_supervision_loss([logits, logits], target, loss=own)
    assert seen == [torch.float32] * 4


def per_image(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.sigmoid() - target).abs().flatten(1).mean(1)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (per_image, ValueError, r"loss .*per_image must give a scalar; got shape \(2,\); take its mean"),
        (lambda x, t: 0.5, TypeError, r"loss .*<lambda> must give a tensor; got 0.5 \(float\)"),
        (lambda x, t: x.detach().mean(), ValueError, r"<lambda> gives no gradient"),
        (lambda x, t: (x > 0).float().mean(), ValueError, r"<lambda> gives no gradient"),
        (Tversky, ValueError, r"got the class Tversky; pass Tversky\(\)"),
        (None, ValueError, r"loss must be one of .*; got None; give one of your own as a function"),
        (7, ValueError, r"loss must be one of .*; got 7; give one of your own"),
    ],
)
def test_what_is_no_loss_is_named(loss: Any, error: type[Exception], message: str) -> None:
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    with pytest.raises(error, match=message):
        deep_supervision_loss([logits], torch.zeros(2, 1, 4, 4), loss=loss)
    with pytest.raises(error, match=message):
        fit(tiny(), scenes(), recipe=replace(TINY, loss=loss), progress=False)


def test_a_run_is_resumed_with_the_same_loss_alone(tmp_path: Path) -> None:
    recipe = replace(TINY, loss=Tversky())
    fit(tiny(), scenes(), recipe=recipe, output=tmp_path, progress=False)
    fit(tiny(), scenes(), recipe=replace(recipe, loss=Tversky()), output=tmp_path, resume=True, progress=False)
    others: list[str | Callable[[Tensor, Tensor], Tensor]] = ["soft_iou", per_image, partial(focal_loss, gamma=1.0)]
    for other in others:
        with pytest.raises(ValueError, match=r"loss was .*\.Tversky, is "):
            fit(tiny(), scenes(), recipe=replace(recipe, loss=other), output=tmp_path, resume=True, progress=False)


def test_the_card_names_it(tmp_path: Path) -> None:
    recipe = replace(TINY, loss=partial(focal_loss, gamma=1.5, alpha=0.5))
    fit(tiny(), scenes(), recipe=recipe, output=tmp_path, progress=False)
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```json\n(.*?)```", card, re.S)
    assert block
    assert json.loads(block[1])["recipe"]["loss"] == "serank.losses.focal_loss(alpha=0.5, gamma=1.5)"


def test_workers_need_not_copy_it() -> None:
    recipe = replace(TINY, epochs=1, loss=lambda logits, target: soft_iou_loss(logits, target))
    one, other = tiny(), tiny()
    fit(one, scenes(), recipe=recipe, workers=1, progress=False)
    fit(other, scenes(), recipe=replace(recipe, loss="soft_iou"), progress=False)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_name_holds_no_address() -> None:
    name = Recipe(loss=partial(focal_loss, gamma=torch.sigmoid, alpha=per_image)).to_dict()["loss"]  # type: ignore[arg-type]
    assert "0x" not in name
    assert "per_image" in name
    assert "sigmoid" in name


def test_it_may_write_to_its_target() -> None:
    def own(logits: Tensor, target: Tensor) -> Tensor:
        return dice_loss(logits, target.mul_(0.5))

    logits, target = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.9).float()
    before = target.clone()
    two = deep_supervision_loss([logits, logits], target, loss=own)
    assert torch.equal(target, before)
    torch.testing.assert_close(two, 2 * dice_loss(logits, before / 2))
