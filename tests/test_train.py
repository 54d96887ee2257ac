"""Training: it learns, is repeatable, resumes exactly, and says what is wrong."""

from __future__ import annotations

import copy
import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serank import SeRankDet
from serank.cli import train as train_command
from serank.cli.entry import main
from serank.datasets import Sample, write_folder
from serank.errors import CheckpointError
from serank.evaluation import evaluate
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, History, Recipe, fit, preset
from serank.utils.files import replacing

TINY = Recipe(
    epochs=3,
    batch_size=2,
    lr=1e-3,
    ema_decay=0.9,
    augmentation=Augmentation(crop=32, scale=(0.8, 1.25)),
)

CLOCKS = ("seconds", "waiting")
"""What of a history's row depends on the machine."""


def scenes(count: int = 6) -> list[Sample]:
    return list(SyntheticScenes(count, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5))


def disc() -> Sample:
    """A bright disc in noise, the same under all flips; without noise, ranks would hang on rounding."""
    mask = np.hypot(*np.ogrid[-15.5:16, -15.5:16]) < 4
    noise = np.random.default_rng(0).uniform(0, 0.2, (32, 32))
    noise = np.mean([np.rot90(part, turns) for part in (noise, noise.T) for turns in range(4)], axis=0)
    return Sample("disc", (np.where(mask, 0.7, 0.3) + noise).astype(np.float32), mask)


def tiny() -> SeRankDet:
    torch.manual_seed(0)
    return SeRankDet(width=2)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[SeRankDet, History]:
    """A network that `TINY` trained, and how it went; not to be changed."""
    model = tiny()
    return model, fit(model, scenes(), recipe=TINY, progress=False)


def test_learns_synthetic_scenes_from_scratch() -> None:
    torch.manual_seed(0)
    samples = list(SyntheticScenes(8, 48, 48, targets=(1, 2), size=(3, 8), scr=(8, 30), noise=0.005, seed=1))
    model = SeRankDet(width=4)
    recipe = Recipe(
        epochs=80,
        batch_size=4,
        lr=1e-2,
        ema_decay=0.9,
        augmentation=Augmentation(crop=48, scale=(1, 1), blur=0, contrast=0, target_share=1),
    )
    history = fit(model, samples, recipe=recipe, progress=False)
    assert evaluate(model, samples, curves=False).metrics["iou"] > 0.7
    assert history.rows[-1]["loss"] < 0.5 * history.rows[0]["loss"]


def test_same_seed_same_weights(uninterrupted: tuple[SeRankDet, History]) -> None:
    first, history = uninterrupted
    second = tiny()
    again = fit(second, scenes(), recipe=TINY, progress=False)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert [r["loss"] for r in history.rows] == [r["loss"] for r in again.rows]
    other = tiny()
    fit(other, scenes(), recipe=replace(TINY, seed=1), progress=False)
    assert not torch.equal(other.head.weight, first.head.weight)


def test_resume_equals_an_uninterrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny()
    expected = fit(whole, scenes(), scenes(2), recipe=TINY, output=tmp_path / "whole", progress=False)

    class StopError(Exception):
        pass

    stopped = tiny()
    with monkeypatch.context() as patch:
        original = torch.optim.AdamW.step
        calls = 0

        def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 5:  # in the middle of the second epoch
                raise StopError
            return original(self, *arguments)

        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(StopError):
            fit(stopped, scenes(), scenes(2), recipe=TINY, output=tmp_path / "cut", progress=False)
    resumed = SeRankDet(width=2)  # other first weights: all must come from the file
    history = fit(resumed, scenes(), scenes(2), recipe=TINY, output=tmp_path / "cut", resume=True, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for row, other in zip(expected.rows, history.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in CLOCKS} == pytest.approx(
            {k: v for k, v in other.items() if k not in CLOCKS}, nan_ok=True
        )
    assert history.best["epoch"] == expected.best["epoch"]


def test_writes_a_log_and_the_best_checkpoint(tmp_path: Path) -> None:
    model = tiny()
    history = fit(model, scenes(), scenes(3), recipe=TINY, output=tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "curves.png", "last.pt", "log.csv"]
    card = (tmp_path / "best" / "README.md").read_text()
    assert f"{history.best['iou']:.4f}" in card
    assert '"lr": 0.001' in card
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(r["epoch"])) for r in rows] == [1, 2, 3]
    scores = [(float(r["iou"]) + float(r["niou"])) / 2 for r in rows]
    assert history.best["epoch"] == 1 + int(np.argmax(scores))
    again = SeRankDet.from_pretrained(tmp_path / "best")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert evaluate(again, scenes(3), curves=False).metrics["iou"] == pytest.approx(history.best["iou"], abs=1e-6)


def test_an_ema_decay_of_zero_keeps_the_raw_weights(tmp_path: Path) -> None:
    model = tiny()
    fit(model, scenes(), recipe=replace(TINY, ema_decay=0.0), output=tmp_path, progress=False)
    raw = torch.load(tmp_path / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(v, raw[k]) for k, v in model.state_dict().items())


def test_schedule_warms_up_and_decays_to_zero(tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=20, warmup=0.25)
    rows = fit(tiny(), scenes(4), recipe=recipe, progress=False).rows
    rates = [row["lr"] for row in rows]
    assert rates.index(max(rates)) in (4, 5)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    total, warm = 40, 10
    assert rates[-1] == pytest.approx(1e-3 * (1 - (total - 1 - warm) / (total - warm)) ** 0.9)


def test_bfloat16_stays_near_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        history = fit(tiny(), scenes(), recipe=replace(TINY, epochs=1, precision=precision), progress=False)
        losses.append(history.rows[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_nan_stops_with_its_place() -> None:
    model = tiny()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    names = {sample.name for sample in scenes()}
    with pytest.raises(
        FloatingPointError, match=r"loss is nan at epoch 1, step 1, learning rate 1\.00e-03, frames "
    ) as e:
        fit(model, scenes(), recipe=TINY, progress=False)
    named = str(e.value).partition("frames ")[2].partition(";")[0].split(", ")
    assert len(named) == 2
    assert set(named) <= names


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    next(model.head.parameters()).register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]
    with pytest.raises(FloatingPointError, match=r"the gradient's norm is nan at epoch 1, step 1"):
        fit(model, scenes(), recipe=TINY, progress=False)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another set-up: lr was 0\.001, is 0\.0005\."):
        fit(tiny(), scenes(), recipe=replace(TINY, lr=5e-4), output=tmp_path, resume=True, progress=False)


def test_another_network_or_set_does_not_resume(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    other = SeRankDet(width=4, mean=0.3)
    with pytest.raises(ValueError, match=r"another set-up: width was 2, is 4; mean was 0\.5, is 0\.3\."):
        fit(other, scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match=r"another set-up: train_set was \w+, is \w+\."):
        fit(tiny(), scenes(6)[::-1], recipe=TINY, output=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match=r"another set-up: val_set was None, is \w+\."):
        fit(tiny(), scenes(), scenes(2), recipe=TINY, output=tmp_path, resume=True, progress=False)


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run already; pass resume=True"):
        fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_row_that_a_stop_left_out_of_the_log_comes_back(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)
    assert (tmp_path / "log.csv").read_text() == whole


def test_a_state_of_another_kind_is_named(tmp_path: Path) -> None:
    for content, reason in ((torch.zeros(2), "it is a"), ({"epoch": 1}, "it lacks best, best_state, checksum, ema")):
        torch.save(content, tmp_path / "last.pt")
        with pytest.raises(CheckpointError, match=rf"last\.pt: can't be read: no state of a training, {reason}"):
            fit(tiny(), scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    fit(SeRankDet(width=2), scenes(), recipe=TINY, output=folder, progress=False)
    return folder / "last.pt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skipped": None}, "it lacks skipped"),
        ({"epoch": "three"}, "epoch must be of type int; got str"),
        ({"step": True}, "step must be of type int; got bool"),
        ({"rows": {}}, "rows must be of type list; got dict"),
        ({"model": [1, 2]}, "model must be of type dict; got list"),
        ({"step": 1}, "doesn't match its checksum"),
    ],
)
def test_entries_of_a_state_are_checked(finished: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    state = torch.load(finished, weights_only=True) | changes
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=rf"last\.pt: can't be read: .*{message}"):
        fit(tiny(), scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)


def test_a_flipped_bit_in_the_weights_is_found(finished: Path, tmp_path: Path) -> None:
    content = bytearray(finished.read_bytes())
    for name in ("model", "ema", "best_state"):
        weights = torch.load(finished, weights_only=True)[name]["encoder.0.merge.0.weight"].numpy().tobytes()
        damaged = content.copy()
        damaged[content.index(weights) + 2] ^= 1
        (tmp_path / "last.pt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.pt: can't be read"):
            fit(tiny(), scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)
    (tmp_path / "last.pt").write_bytes(content)
    assert len(fit(tiny(), scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False).rows) == 3


def test_leftovers_of_a_killed_run_go_and_hidden_files_of_users_stay(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    for name in ("last.pt", "log.csv", "best/model.safetensors", "best/config.json"):
        with replacing(tmp_path / name) as temporary:
            left = temporary
        (tmp_path / name).rename(left)  # as a process that was killed leaves it
    mine = [".last-abcdefgh.pt", ".notes-1.md", ".log-old.csv", "best/.config-mine.json", "notes.txt"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    fit(tiny(), scenes(), recipe=replace(TINY, epochs=1), output=tmp_path, resume=True, progress=False)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    written = {f"best/{name}" for name in ("README.md", "config.json", "model.safetensors")}
    assert names == {*mine, *written, "curves.png", "last.pt", "log.csv"}


def test_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"\x80\x02nothing")
    with pytest.raises(CheckpointError, match=r"last\.pt: can't be read"):
        fit(tiny(), scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)


def test_best_is_put_right_after_a_stop_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(SeRankDet, "save_pretrained", stop)
        with pytest.raises(StopError):
            fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    assert (tmp_path / "last.pt").exists()
    assert not (tmp_path / "best").exists()
    model = tiny()
    fit(model, scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)
    again = SeRankDet.from_pretrained(tmp_path / "best").state_dict()
    assert all(torch.equal(v, again[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("at", "save_every"), [(2, None), (2, 1), (6, 2), (7, None), (7, 1)])
def test_a_stop_within_an_epoch_changes_nothing(
    at: int,
    save_every: int | None,
    uninterrupted: tuple[SeRankDet, History],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class StopError(Exception):
        pass

    expected, run = uninterrupted
    steps = 0
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == at:
            raise StopError
        return original(self, *arguments)

    options: dict[str, Any] = {"recipe": TINY, "output": tmp_path, "save_every": save_every, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(StopError):
            fit(tiny(), scenes(), **options)
    resumed = tiny()
    if (tmp_path / "last.pt").exists():
        resumed = SeRankDet(width=2)  # other first weights: all must come from the file
        done = torch.load(tmp_path / "last.pt", weights_only=True)
        whole, rest = divmod(at - 1, 3)  # epochs of 3 steps, and the steps after them
        kept = 0 if save_every is None else rest // save_every * save_every
        assert (done["epoch"], done["step"]) == (whole, kept)
    history = fit(resumed, scenes(), resume=True, **options)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in expected.state_dict().items())
    for row, other in zip(run.rows, history.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in CLOCKS} == {k: v for k, v in other.items() if k not in CLOCKS}


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_share_of_waiting_for_crops(accumulation_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Slow(Sequence[Sample]):
        """Takes a second to read a frame."""

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
            nonlocal now
            now += 1
            return scenes()[index]

    def think(*_: Any) -> None:
        nonlocal now
        now += 6 / accumulation_steps

    model = tiny()
    model.head.register_forward_hook(think)  # once a forward pass
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    recipe = replace(TINY, epochs=2, batch_size=2, accumulation_steps=accumulation_steps)
    history = fit(model, Slow(), recipe=recipe, progress=False)
    assert [(row["seconds"], row["waiting"]) for row in history.rows] == [(24, 0.25)] * 2  # three steps of 2 + 6


def test_loader_workers_change_nothing() -> None:
    alone, helped = tiny(), tiny()
    fit(alone, scenes(), recipe=replace(TINY, epochs=1), progress=False)
    fit(helped, scenes(), recipe=replace(TINY, epochs=1), workers=2, progress=False)
    assert all(torch.equal(v, helped.state_dict()[k]) for k, v in alone.state_dict().items())


def test_micro_batches_add_up_to_their_batch() -> None:
    # one and the same crop everywhere, whatever its flips, so that batch norm sees the same statistics in each part
    recipe = replace(
        TINY, batch_size=4, augmentation=Augmentation(crop=32, scale=(1, 1), target_share=0, blur=0, contrast=0)
    )
    runs = []
    for accumulation_steps in (1, 2):
        model = tiny().double()  # in float32 the rounding of sums grows with the steps
        runs.append(
            (
                fit(model, [disc()] * 4, recipe=replace(recipe, accumulation_steps=accumulation_steps), progress=False),
                model,
            )
        )
    (whole, first), (parts, second) = runs
    assert [r["loss"] for r in whole.rows] == pytest.approx([r["loss"] for r in parts.rows], abs=1e-7)
    for value, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-7, rtol=1e-7)


def test_gradients_are_clipped_to_their_largest_norm() -> None:
    # AdamW divides by the gradient's size, but for what is small against its eps of 1e-8
    free, clipped, start = tiny(), tiny(), tiny()
    recipe = replace(TINY, epochs=1, ema_decay=0.0, weight_decay=0.0)
    row = fit(free, scenes(), recipe=recipe, progress=False).rows[0]
    fit(clipped, scenes(), recipe=replace(recipe, max_grad_norm=1e-9), progress=False)
    assert row["grad_norm"] > 1e-3
    moved = [
        sum(float((a - b).detach().abs().sum()) for a, b in zip(m.parameters(), start.parameters(), strict=True))
        for m in (free, clipped)
    ]
    assert 0 < moved[1] < 0.1 * moved[0]


def test_a_frozen_encoder_stays() -> None:
    model, start = tiny(), tiny().state_dict()
    fit(model, scenes(), recipe=replace(TINY, freeze_encoder=True, ema_decay=0.0), progress=False)
    for name, value in model.state_dict().items():
        frozen = name.startswith(("encoder.", "attention."))
        if frozen:
            assert torch.equal(value, start[name]), name
        elif value.is_floating_point():
            assert not torch.equal(value, start[name]), name
    assert all(p.requires_grad for p in model.parameters())


def test_frozen_statistics_stay_and_no_batch_is_seen() -> None:
    # no crop is like another, so batch norm of a part is not that of the whole unless its statistics are frozen
    recipe = replace(TINY, batch_size=4, freeze_statistics=True, ema_decay=0.0)
    models = []
    for accumulation_steps in (1, 4):
        models.append(tiny().double())
        fit(models[-1], scenes(8), recipe=replace(recipe, accumulation_steps=accumulation_steps), progress=False)
    start = tiny().state_dict()
    statistics = [name for name in start if "running_" in name]
    assert statistics
    assert all(torch.equal(models[0].state_dict()[name], start[name].double()) for name in statistics)
    for (name, value), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-7, rtol=1e-7)
        assert not torch.equal(value, start[name].double()), name


def test_without_deep_supervision_the_side_heads_stay() -> None:
    model, start = tiny(), tiny().state_dict()
    recipe = replace(TINY, deep_supervision=False, ema_decay=0.0)
    history = fit(model, scenes(), recipe=recipe, progress=False)
    assert 0 < history.rows[0]["loss"] <= 1
    assert torch.equal(model.state_dict()["side_heads.0.weight"], start["side_heads.0.weight"])
    assert not torch.equal(model.head.weight, start["head.weight"])


@pytest.mark.parametrize("loss", ["dice", "bce", "focal"])
def test_other_losses_train(loss: str) -> None:
    recipe = replace(
        TINY, loss=loss, epochs=15, lr=5e-3, augmentation=Augmentation(crop=32, scale=(1, 1), target_share=0)
    )
    losses = [row["loss"] for row in fit(tiny(), [disc()] * 6, recipe=recipe, progress=False).rows]
    assert losses[-1] < 0.9 * losses[0]


def test_float16_scales_its_loss() -> None:
    model = tiny()
    history = fit(model, scenes(), recipe=replace(TINY, epochs=1, precision="float16"), progress=False)
    expected = fit(tiny(), scenes(), recipe=replace(TINY, epochs=1), progress=False)
    assert history.rows[0]["loss"] == pytest.approx(expected.rows[0]["loss"], rel=0.02)
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_gradient_that_stays_infinite_stops_float16_too() -> None:
    model = tiny()
    next(model.head.parameters()).register_hook(lambda g: g * float("nan"))  # type: ignore[no-untyped-call]
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan at epoch 17, step 3"):
        fit(model, scenes(), recipe=replace(TINY, epochs=60, precision="float16"), progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # raised within torch's compiler
def test_compiled_training_learns_the_same() -> None:
    losses = []
    for compile in (False, True):
        history = fit(tiny(), scenes(), recipe=replace(TINY, epochs=2), compile=compile, progress=False)
        losses.append([row["loss"] for row in history.rows])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_tensorboard_has_every_row(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = fit(tiny(), scenes(), scenes(2), recipe=TINY, output=tmp_path, tensorboard=True, progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = events.Scalars("train/loss")
    assert [e.step for e in losses] == [1, 2, 3]
    assert [e.value for e in losses] == pytest.approx([row["loss"] for row in history.rows])
    assert [e.value for e in events.Scalars("val/iou")] == pytest.approx([row["iou"] for row in history.rows])
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    # a finished run that is resumed shows each epoch once
    fit(tiny(), scenes(), scenes(2), recipe=TINY, output=tmp_path, tensorboard=True, resume=True, progress=False)
    again = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in again.Scalars("train/loss")] == [1, 2, 3]


def test_fine_tuning_the_bundled_checkpoint_improves_on_a_few_frames(tmp_path: Path) -> None:
    # hard for it: dim, tiny targets in noise
    samples = list(SyntheticScenes(8, 64, 64, targets=(1, 2), size=(1.5, 2.5), scr=(3, 6), noise=0.03, seed=3))
    model = SeRankDet.from_pretrained("sirst").reconfigured(working_size=None)
    before = evaluate(model, samples, curves=False).metrics["iou"]
    recipe = Recipe(
        epochs=12,
        batch_size=4,
        lr=2e-3,
        pixel_weight=50.0,  # sees none of them at first, where soft IoU alone has next to no gradient
        ema_decay=0.9,
        augmentation=Augmentation(crop=64, scale=(1, 1.2)),
    )
    fit(model, samples, recipe=recipe, output=tmp_path, progress=False)
    again = SeRankDet.from_pretrained(tmp_path / "best")
    assert evaluate(again, samples, curves=False).metrics["iou"] > before + 0.1


def test_too_few_frames() -> None:
    with pytest.raises(ValueError, match="train_set has 1 frames, fewer than batch_size=2"):
        fit(tiny(), scenes(1), recipe=TINY)


def test_options_that_do_not_fit_together() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"resume": True}, "resume and tensorboard need output"),
        ({"tensorboard": True}, "resume and tensorboard need output"),
        ({"workers": -1}, "workers must be >= 0; got -1"),
        ({"workers": True}, "workers must be a whole number >= 0; got True"),
        ({"save_every": 0}, "save_every must be >= 1; got 0"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            fit(tiny(), scenes(), recipe=TINY, **options)
    with pytest.raises(
        ValueError, match="batch_size must be a multiple of 4, 1 processes times accumulation_steps=4; got 2"
    ):
        fit(tiny(), scenes(), recipe=replace(TINY, accumulation_steps=4))


@pytest.mark.parametrize(
    ("name", "size", "epochs", "batch"),
    [("sirst", 512, 500, 4), ("irstd1k", 512, 500, 4), ("sirstaug", 256, 500, 8), ("nudt-sirst", 256, 1500, 8)],
)
def test_presets_of_the_paper(name: str, size: int, epochs: int, batch: int) -> None:
    chosen = preset(f"paper-{name}")
    assert (chosen.working_size, chosen.recipe.augmentation.crop, chosen.width) == (size, size, 64)
    assert (chosen.recipe.epochs, chosen.recipe.batch_size, chosen.recipe.lr) == (epochs, batch, 1e-4)
    assert (chosen.recipe.power, chosen.recipe.weight_decay, chosen.recipe.loss) == (0.9, 0.01, "soft_iou")


def test_a_preset_is_no_recipe(tmp_path: Path) -> None:
    model = tiny()
    for wrong, hint in ((preset("small"), "a preset's is preset"), ("small", "a preset's is preset"), ({}, "got {}")):
        with pytest.raises(ValueError, match=f"recipe must be a serank.train.Recipe.*{hint}"):
            fit(model, scenes(), recipe=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"augmentation must be a serank\.train\.Augmentation"):
        Recipe(augmentation={"crop": 64})  # type: ignore[arg-type]


def test_training_drops_the_calibration_of_other_weights(tmp_path: Path) -> None:
    model = tiny()
    model.score_calibration = (-1.0, 0.5)
    fit(model, scenes(), recipe=replace(TINY, epochs=1), output=tmp_path)
    assert model.score_calibration is None
    assert SeRankDet.from_pretrained(tmp_path / "best").score_calibration is None


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of small, finetune, .*; got 'coco'"):
        preset("coco")


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"weight_decay": -1.0},
        {"warmup": 1.0},
        {"ema_decay": 1.0},
        {"precision": "int8"},
        {"validate_every": 0},
        {"power": -1.0},
        {"max_grad_norm": -1.0},
        {"accumulation_steps": 0},
        {"loss": "l2"},
        {"seed": -1},
        {"seed": 2**70},
        {"lr": float("nan")},
        {"max_grad_norm": float("inf")},
        {"batch_size": 2.5},
        {"epochs": True},
        {"seed": False},
        {"lr": True},
        {"lr": "1e-3"},
        {"weight_decay": None},
        {"deep_supervision": 1},
    ],
)
def test_recipe_names_what_is_wrong(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(TINY, **changes)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    integers = {"epochs": np.int64(1), "batch_size": np.int32(2), "seed": np.uint8(0), "accumulation_steps": np.int8(1)}
    augmentation = Augmentation(crop=np.int64(32), scale=[np.float32(0.5), 2])  # type: ignore[arg-type]
    recipe = replace(TINY, **integers, lr=np.float32(0.5), augmentation=augmentation)  # type: ignore[arg-type]
    assert recipe == replace(
        TINY, epochs=1, batch_size=2, seed=0, lr=0.5, augmentation=Augmentation(crop=32, scale=(0.5, 2.0))
    )
    assert {type(value) for value in recipe.to_dict().values()} <= {int, float, bool, str, list}
    fit(tiny(), scenes(), recipe=recipe, workers=np.int64(0), save_every=np.int64(1), output=tmp_path, progress=False)  # type: ignore[arg-type]


def test_evaluate_refuses_an_empty_set() -> None:
    with pytest.raises(ValueError, match="dataset is empty"):
        evaluate(tiny(), [])


@pytest.mark.slow
def test_train_command_under_torchrun(tmp_path: Path) -> None:
    write_folder(scenes(), tmp_path / "data")
    names = [sample.name for sample in scenes()]
    for split, part in (("train", names[:4]), ("val", names[4:])):
        (tmp_path / "data" / f"{split}.txt").write_text("\n".join(part))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "serank",
        "train",
    ]
    command += [str(tmp_path / "data"), "--output", str(tmp_path / "run"), "--epochs", "2", "--batch-size", "2"]
    command += ["--crop", "32", "--width", "2", "--working-size", "48"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best of 2 epochs") == 1
    assert done.stderr.count("train_set: 4 frames") == 1
    assert SeRankDet.from_pretrained(tmp_path / "run" / "best").config["width"] == 2


@pytest.mark.parametrize("worse", [True, False])
def test_the_command_says_if_training_made_it_worse(
    worse: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(scenes(4), tmp_path / "data")
    names = [s.name for s in scenes(4)]
    (tmp_path / "data" / "train.txt").write_text("\n".join(names[:2]))
    (tmp_path / "data" / "val.txt").write_text("\n".join(names[2:]))
    start = SeRankDet.from_pretrained("sirst")
    if not worse:  # finds nothing, so nothing is worse
        assert start.head.bias is not None
        torch.nn.init.constant_(start.head.bias, -1e4)
    start.save_pretrained(tmp_path / "start")
    command = ["train", str(tmp_path / "data"), "--init", str(tmp_path / "start"), "--output", str(tmp_path / "run")]
    ruin = ["--epochs", "1", "--batch-size", "2", "--crop", "32", "--lr", "0.1", "--ema-decay", "0"]
    assert main([*command, *ruin]) == 0
    assert ("start was better on val before training" in capsys.readouterr().err) is worse


def test_train_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for sample in scenes(4):
        frame, mask = (np.rint(a * 255.0).astype(np.uint8) for a in (sample.frame, sample.mask))
        Image.fromarray(frame).save(tmp_path / "data" / "images" / f"{sample.name}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{sample.name}.png")
    names = [s.name for s in scenes(4)]
    (tmp_path / "data" / "train.txt").write_text("\n".join(names[:3]))
    (tmp_path / "data" / "val.txt").write_text(names[3])
    arguments = ["train", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    arguments += ["--epochs", "2", "--batch-size", "2", "--crop", "32"]
    sizes = ["--width", "2", "--working-size", "48"]
    assert main([*arguments, *sizes]) == 0
    out = capsys.readouterr().out
    assert "best of 2 epochs: epoch" in out
    assert "IoU" in out
    model = SeRankDet.from_pretrained(tmp_path / "run" / "best")
    assert model.config["width"] == 2
    assert model.config["working_size"] == 48
    card = (tmp_path / "run" / "best" / "README.md").read_text(encoding="utf-8")
    assert f"- `serank train {tmp_path / 'data'} --output " in card
    assert "- train_set: 3 frames of 40 to 48 px" in card
    assert model.config["mean"] == pytest.approx(np.mean([s.frame.mean() for s in scenes(4)[:3]]), abs=0.01)
    # going on with a finished run changes nothing, and starting from its checkpoint works
    assert main([*arguments, *sizes, "--resume"]) == 0
    more = ["--init", str(tmp_path / "run" / "best"), "--output", str(tmp_path / "more")]
    assert main([*arguments, *more, "--resume"]) == 0
    err = capsys.readouterr().err
    assert "no run in" in err
    assert main([*arguments, "--output", str(tmp_path / "none"), "--width", "0"]) == 1
    assert "width must be >= 1; got 0" in capsys.readouterr().err
    assert main([*arguments, *more, "--width", "4"]) == 1
    assert "--width belongs to the checkpoint given by --init" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "none"), "--freeze-statistics"]) == 1
    assert "--freeze-statistics keeps the statistics of a trained network" in capsys.readouterr().err
    larger_run = [*arguments, *more[:2], "--output", str(tmp_path / "larger"), "--working-size", "64"]
    larger_run += ["--scale-range", "0.75", "3", "--tile", "40", "--overlap", "8"]
    assert main([*larger_run, "--freeze-statistics"]) == 0
    larger = SeRankDet.from_pretrained(tmp_path / "larger" / "best")
    assert (larger.config["width"], larger.config["working_size"]) == (2, 64)
    assert (larger.config["scale_range"], larger.config["tile"], larger.config["overlap"]) == ([0.75, 3], 40, 8)


def test_preset_finetune_keeps_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(scenes(4), tmp_path / "data")
    names = [s.name for s in scenes(4)]
    (tmp_path / "data" / "train.txt").write_text("\n".join(names[:2]))
    (tmp_path / "data" / "val.txt").write_text("\n".join(names[2:]))
    tiny().reconfigured(working_size=40, scale_range=(0.5, 3.0)).save_pretrained(tmp_path / "start")
    command = ["train", str(tmp_path / "data"), "--preset", "finetune", "--epochs", "1", "--batch-size", "2"]
    command += ["--crop", "32", "--output", str(tmp_path / "run")]
    assert main(command) == 1
    assert "--preset finetune goes on from a trained network; name one with --init" in capsys.readouterr().err
    assert main([*command, "--init", str(tmp_path / "start")]) == 0
    trained = SeRankDet.from_pretrained(tmp_path / "run" / "best")
    assert (trained.config["working_size"], trained.config["scale_range"]) == (40, [0.5, 3.0])
    card = (tmp_path / "run" / "best" / "README.md").read_text(encoding="utf-8")
    assert '"deep_supervision": false' in card


def test_frames_are_repaired_as_the_network_that_training_begins_with_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []

    def kept(model: SeRankDet, train_set: Sequence[Sample], val_set: Sequence[Sample], **options: object) -> History:
        seen.append((float(train_set[0].frame[8, 9]), float(val_set[0].frame[8, 9])))
        return History()

    monkeypatch.setattr(train_command, "fit", kept)
    rng = np.random.default_rng(0)
    samples = []
    for i in range(2):
        values = np.float32(0.3) + rng.normal(0, 0.01, (24, 24)).astype(np.float32)
        values[8, 9] = 0.9  # a drawn target of one pixel, which is taken for a hot one
        samples.append(Sample(f"f{i}", values, np.abs(values - 0.9) < 0.01))
    write_folder(samples, tmp_path / "data")
    (tmp_path / "data" / "train.txt").write_text("f0")
    (tmp_path / "data" / "val.txt").write_text("f1")
    for repair in (True, False):
        tiny().reconfigured(repair=repair).save_pretrained(tmp_path / f"start{repair}")
        command = ["train", str(tmp_path / "data"), "--init", str(tmp_path / f"start{repair}")]
        for word in ([], ["--no-repair"], ["--repair"]):
            assert main([*command, *word, "--output", str(tmp_path / "run")]) == 0
    as_said, no, yes, left, no_too, yes_too = ([value > 0.8 for value in pair] for pair in seen)
    assert as_said == yes == yes_too == [False, False]
    assert left == no == no_too == [True, True]


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def second(*arguments: object) -> None:
        for resume in (False, True):
            with pytest.raises(BlockingIOError, match="another run is writing to this folder") as caught:
                fit(tiny(), scenes(4), recipe=TINY, output=tmp_path, resume=resume, progress=False)
            errors.append(caught.value)

    class Watched(list[Sample]):
        def __getitem__(self, index: Any) -> Any:
            if not errors and (tmp_path / ".train.lock").exists():
                second()
            return super().__getitem__(index)

    fit(tiny(), Watched(scenes(4)), recipe=replace(TINY, epochs=1), output=tmp_path, progress=False)
    assert len(errors) == 2
    assert not list(tmp_path.glob(".*"))
    fit(tiny(), scenes(4), recipe=replace(TINY, epochs=1), output=tmp_path, resume=True, progress=False)
