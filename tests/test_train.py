"""Training: it learns, is repeatable, resumes exactly, and says what is wrong."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serank import SeRankDet
from serank.augment import Augmentation
from serank.cli import main
from serank.datasets import Sample
from serank.errors import CheckpointError
from serank.evaluate import evaluate
from serank.synthetic import SyntheticScenes
from serank.train import Recipe, fit

TINY = Recipe(
    epochs=3,
    batch_size=2,
    learning_rate=1e-3,
    average=0.9,
    augmentation=Augmentation(crop=32, scale=(0.8, 1.25)),
)


def scenes(count: int = 6) -> list[Sample]:
    return list(SyntheticScenes(count, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5))


def tiny() -> SeRankDet:
    torch.manual_seed(0)
    return SeRankDet(width=2)


def test_learns_synthetic_scenes_from_scratch() -> None:
    torch.manual_seed(0)
    samples = list(SyntheticScenes(16, 64, 64, targets=(1, 2), size=(3, 8), scr=(8, 30), noise=0.005, seed=1))
    model = SeRankDet(width=8)
    recipe = Recipe(
        epochs=80,
        batch_size=4,
        learning_rate=1e-2,
        average=0.9,
        augmentation=Augmentation(crop=64, scale=(1, 1), blur=0, contrast=0, target_share=1),
    )
    history = fit(model, samples, recipe=recipe, progress=False)
    assert evaluate(model, samples)["iou"] > 0.8
    assert history.rows[-1]["loss"] < 0.5 * history.rows[0]["loss"]


def test_same_seed_same_weights() -> None:
    runs = [tiny(), tiny()]
    histories = [fit(model, scenes(), recipe=TINY, progress=False) for model in runs]
    for name, value in runs[0].state_dict().items():
        assert torch.equal(value, runs[1].state_dict()[name]), name
    assert [r["loss"] for r in histories[0].rows] == [r["loss"] for r in histories[1].rows]
    other = tiny()
    fit(other, scenes(), recipe=replace(TINY, seed=1), progress=False)
    assert not torch.equal(other.head.weight, runs[0].head.weight)


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
        assert {k: v for k, v in row.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in other.items() if k != "seconds"}, nan_ok=True
        )
    assert history.best["epoch"] == expected.best["epoch"]


def test_writes_a_log_and_the_best_checkpoint(tmp_path: Path) -> None:
    model = tiny()
    history = fit(model, scenes(), scenes(3), recipe=TINY, output=tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last.pt", "log.csv"]
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(r["epoch"])) for r in rows] == [1, 2, 3]
    scores = [(float(r["iou"]) + float(r["niou"])) / 2 for r in rows]
    assert history.best["epoch"] == 1 + int(np.argmax(scores))
    again = SeRankDet.from_pretrained(tmp_path / "best")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert evaluate(again, scenes(3))["iou"] == pytest.approx(history.best["iou"], abs=1e-6)


def test_average_of_zero_keeps_the_raw_weights(tmp_path: Path) -> None:
    model = tiny()
    fit(model, scenes(), recipe=replace(TINY, average=0.0), output=tmp_path, progress=False)
    raw = torch.load(tmp_path / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(v, raw[k]) for k, v in model.state_dict().items())


def test_schedule_warms_up_and_decays_to_zero(tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=20, warmup=0.25)
    rows = fit(tiny(), scenes(4), recipe=recipe, progress=False).rows
    rates = [row["learning_rate"] for row in rows]
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
    with pytest.raises(FloatingPointError, match=r"loss is nan at epoch 1, step 1, learning rate"):
        fit(model, scenes(), recipe=TINY, progress=False)


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another set-up: learning_rate was 0\.001, is 0\.0005\."):
        fit(tiny(), scenes(), recipe=replace(TINY, learning_rate=5e-4), output=tmp_path, resume=True, progress=False)


def test_another_network_or_set_does_not_resume(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    other = SeRankDet(width=4, mean=0.3)
    with pytest.raises(ValueError, match=r"another set-up: width was 2, is 4; mean was 0\.5, is 0\.3\."):
        fit(other, scenes(), recipe=TINY, output=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match=r"another set-up: train_set was 6, is 4\."):
        fit(tiny(), scenes(4), recipe=TINY, output=tmp_path, resume=True, progress=False)


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run already; pass resume=True"):
        fit(tiny(), scenes(), recipe=TINY, output=tmp_path, progress=False)
    assert (tmp_path / "last.pt").read_bytes() == before


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


def test_too_few_frames() -> None:
    with pytest.raises(ValueError, match="train_set has 1 frames, fewer than batch_size=2"):
        fit(tiny(), scenes(1), recipe=TINY)


def test_resume_without_output() -> None:
    with pytest.raises(ValueError, match="resume needs output"):
        fit(tiny(), scenes(), recipe=TINY, resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
        {"warmup": 1.0},
        {"average": 1.0},
        {"precision": "int8"},
        {"validate_every": 0},
        {"power": -1.0},
    ],
)
def test_recipe_names_what_is_wrong(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(TINY, **changes)


def test_evaluate_refuses_an_empty_set() -> None:
    with pytest.raises(ValueError, match="dataset is empty"):
        evaluate(tiny(), [])


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
    assert main([*arguments, *more[:2], "--output", str(tmp_path / "larger"), "--working-size", "64"]) == 0
    larger = SeRankDet.from_pretrained(tmp_path / "larger" / "best")
    assert (larger.config["width"], larger.config["working_size"]) == (2, 64)
