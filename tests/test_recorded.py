"""Recorded inference and training, with recorders that need no GPU: shapes, bounds, failures, and the same course."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import graph_simulator
import pytest
import torch
from test_train import CLOCKS, TINY, scenes, tiny
from torch import Tensor

from serank import SeRankDet, losses
from serank.inference import fused_network
from serank.inference.cuda_graphs import GraphCache
from serank.train import History, Recipe, fit, recorded_step, run, trainer, training_loss
from serank.train.optimizer import load_optimizer, make_optimizer, optimizer_state, set_lr
from serank.train.recorded_step import Execution

Step = Callable[[], tuple[Tensor, Tensor]]


class Recordings:
    """Counts recordings; a replay runs the function on a held input, as a graph does."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
        if x.shape[0] == 13:
            raise RuntimeError("can't be recorded")
        self.shapes.append(tuple(x.shape))
        held = x.clone()
        return lambda y: function(held.copy_(y)).clone()


def test_a_shape_that_comes_again_is_recorded_once() -> None:
    record = Recordings()
    cache = GraphCache(record, most=2)
    for size in (1, 2, 1, 1, 2, 13, 13, 13):
        x = torch.randn(size)
        assert torch.equal(cache(torch.exp, x), x.exp())
    assert record.shapes == [(1,), (2,)]


def test_sizes_that_come_in_turn_do_not_record_without_end() -> None:
    record = Recordings()
    cache = GraphCache(record, most=2)
    for _ in range(100):
        for size in (1, 2, 3, 4):
            assert cache(torch.exp, torch.zeros(size)).shape == (size,)
    assert 4 <= len(record.shapes) < 20


def test_padding_to_a_common_size_would_change_results() -> None:
    model = SeRankDet.from_pretrained("sirst")
    x = torch.randn(1, 1, 96, 80)
    padded = torch.nn.functional.pad(x, (0, 48, 0, 32), mode="replicate")
    with torch.no_grad():
        alone, cropped = model(x), model(padded)[..., :96, :80]
    inner = (..., slice(0, 16), slice(0, 16))  # far from what was added
    assert float((alone[inner] - cropped[inner]).abs().max()) > 1e-3 * float(alone.abs().max())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_disappear(value: float) -> None:
    model = tiny().eval()
    x = torch.zeros(2, 1, 32, 32)
    x[1, 0, 5, 7] = value
    found = model.optimize()(x)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
    with torch.no_grad():
        weight = model.get_parameter("decoder.0.reduce.0.weight")
        weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"weights hold NaN or infinity: decoder\.0\.reduce\.0\.weight"):
        model.optimize()
    with torch.no_grad():
        weight[0, 0, 0, 0] = 0
        model.get_parameter("head.bias").fill_(value)
    with pytest.raises(FloatingPointError, match="the network's output holds NaN or infinity"):
        model.detect(torch.rand(20, 20).numpy())


SHORT = dataclasses.replace(TINY, epochs=2)
Recorder = Callable[[Step, Callable[[], None]], Step]
OTHER_COURSES: dict[str, dict[str, Any]] = {
    "paper": {},
    "clipped": {"max_grad_norm": 0.5},
    "bfloat16": {"precision": "bfloat16"},
    "one output, other loss": {"deep_supervision": False, "loss": "soft_iou_area", "pixel_weight": 2.0},
    "frozen": {"freeze_encoder": True, "freeze_statistics": True},
}


def refuse(step: Step, undo: Callable[[], None]) -> Step:
    raise RuntimeError("no graph")


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The recorder of training on CUDA, the graph simulated."""
    monkeypatch.setattr(recorded_step, "record_graph", graph_simulator.record)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(losses, "values_at_hand", lambda x: False)  # as on CUDA
    return partial(recorded_step.record_on_cuda, torch.device("cpu"))


def trained(record: Recorder, every: int, recipe: Recipe, patch: pytest.MonkeyPatch) -> tuple[SeRankDet, History]:
    patch.setattr(run, "execution_on", lambda device: Execution(every, record))
    model = tiny()
    return model, fit(model, scenes(4), recipe=recipe, progress=False)


@pytest.mark.parametrize("course", OTHER_COURSES)
def test_a_replayed_step_trains_the_same(
    course: str, simulated: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = dataclasses.replace(SHORT, **OTHER_COURSES[course])
    expected, without = trained(refuse, 16, recipe, monkeypatch)
    assert "can't be recorded as a CUDA graph and runs without: no graph" in caplog.text
    caplog.clear()
    model, history = trained(simulated, 16, recipe, monkeypatch)
    assert "runs without" not in caplog.text
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for row, other in zip(without.rows, history.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in CLOCKS} == {k: v for k, v in other.items() if k not in CLOCKS}


def test_the_optimizer_of_a_recorded_step_agrees_with_the_plain_one() -> None:
    weights = [torch.nn.Parameter(torch.randn(5, 3)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    cpu = torch.device("cpu")
    optimizers = [make_optimizer([w], TINY, cpu, recordable=r) for w, r in zip(weights, (False, True), strict=True)]
    for step in range(5):
        gradient = torch.randn(5, 3)
        for weight, optimizer in zip(weights, optimizers, strict=True):
            set_lr(optimizer, 0.1 / (step + 1))
            weight.grad = gradient.clone()
            optimizer.step()
        torch.testing.assert_close(weights[1], weights[0])
    states = [optimizer_state(optimizer) for optimizer in optimizers]
    assert [state["param_groups"][0]["lr"] for state in states] == pytest.approx([0.02, 0.02])
    load_optimizer(optimizers[1], states[0])
    group = optimizers[1].param_groups[0]
    assert (group["fused"], group["capturable"], type(group["lr"])) == (True, True, Tensor)


def test_a_step_that_is_not_finite_leaves_the_weights(simulated: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(16, simulated))
    samples = scenes()
    broken = tiny()
    monkeypatch.setattr(
        training_loss, "deep_supervision_loss", lambda outputs, masks, **_: sum(o.sum() for o in outputs) * torch.inf
    )
    before = {name: value.clone() for name, value in broken.named_parameters()}
    with pytest.raises(FloatingPointError, match="at epoch 1, step 1, learning rate"):
        fit(broken, samples, recipe=TINY, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in broken.named_parameters())


@pytest.mark.parametrize("first", ["recorded", "plain"])
def test_a_recorded_run_is_resumed(
    first: str, simulated: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, history = trained(simulated, 16, SHORT, monkeypatch)

    class StopError(Exception):
        pass

    ends = run.TrainingRun.end_epoch

    def end(self: run.TrainingRun) -> dict[str, float]:
        if self.epoch == 1:
            raise StopError
        return ends(self)

    record = simulated if first == "recorded" else None
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(16 if record else 1, record))
    monkeypatch.setattr(run.TrainingRun, "end_epoch", end)
    with pytest.raises(StopError):
        fit(tiny(), scenes(4), recipe=SHORT, output=tmp_path, progress=False)
    monkeypatch.setattr(run.TrainingRun, "end_epoch", ends)
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(16, simulated))
    model = tiny()
    found = fit(model, scenes(4), recipe=SHORT, output=tmp_path, resume=True, progress=False)
    assert [row["epoch"] for row in found.rows] == [1, 2]
    if first == "recorded":
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected.state_dict().items())
    assert found.rows[-1]["loss"] == pytest.approx(history.rows[-1]["loss"], rel=1e-3)


def test_a_recorded_run_that_was_stopped_in_its_last_validation_is_resumed(
    simulated: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is left then, and so no crop to record one with."""
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(16, simulated))
    validations: list[object] = []

    def stopped(*args: object, **options: object) -> object:
        validations.append(args)
        raise KeyboardInterrupt

    course = dataclasses.replace(TINY, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(), scenes(4), scenes(2), recipe=course, output=tmp_path, save_every=1, progress=False)
    assert len(validations) == 1
    found = fit(tiny(), scenes(4), scenes(2), recipe=course, output=tmp_path, resume=True, progress=False)
    assert [row["epoch"] for row in found.rows] == [1]


def test_recordings_of_inference_hold_for_other_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
        held = x.clone()
        start, result = graph_simulator.record(lambda: function(held), x.device, warm_ups=2)

        def replay(y: Tensor) -> Tensor:
            held.copy_(y)
            start()
            return result.clone()  # type: ignore[no-any-return]

        return replay

    model = SeRankDet.from_pretrained("sirst")
    plain = model.optimize()
    monkeypatch.setattr(fused_network, "graphs_on", lambda device: GraphCache(record))
    for dtype in (torch.float32, torch.bfloat16):
        fast, plain = model.optimize(dtype), model.optimize(dtype, graphs=False)
        for shape in ((1, 1, 64, 80), (2, 1, 40, 50)):
            results = [(fast(x), plain(x)) for x in torch.randn(4, *shape)]
            assert all(torch.equal(*pair) for pair in results)
            assert not torch.equal(results[2][0], results[3][0])
    with pytest.raises(RuntimeError, match="can't be recorded"), graph_simulator.Recording():
        torch.ones(3).sum().item()


def test_a_loss_that_is_not_finite_is_named_by_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(16))
    with pytest.raises(FloatingPointError, match="loss is nan at epoch 1, step 1, learning rate"):
        fit(model, scenes(), recipe=TINY, progress=False)
