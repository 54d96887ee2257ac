"""Recorded inference and training, with recorders that need no GPU: shapes, bounds, failures, and the same course."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_train import CLOCKS, TINY, scenes, tiny
from torch import Tensor

from serank import SeRankDet
from serank.inference.cuda_graphs import GraphCache
from serank.train import fit, run
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


def record(step: Step, undo: Callable[[], None]) -> Step:
    """Runs the step before the training begins, as a recording does."""
    for _ in range(3):
        step()
    undo()
    return step


@pytest.mark.parametrize("every", [1, 2, 16])
def test_a_recorded_step_trains_the_same(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, model = tiny(), tiny()
    rows = fit(expected, scenes(), recipe=TINY, progress=False).rows
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(every, record))
    found = fit(model, scenes(), recipe=TINY, progress=False).rows
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for row, other in zip(rows, found, strict=True):
        assert {k: v for k, v in row.items() if k not in CLOCKS} == {k: v for k, v in other.items() if k not in CLOCKS}


def test_a_step_that_cannot_be_recorded_runs_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(step: Step, undo: Callable[[], None]) -> Step:
        raise RuntimeError("no graph")

    expected, model = tiny(), tiny()
    fit(expected, scenes(), recipe=TINY, progress=False)
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(4, fail))
    fit(model, scenes(), recipe=TINY, progress=False)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in expected.state_dict().items())


def test_a_loss_that_is_not_finite_is_named_by_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    monkeypatch.setattr(run, "execution_on", lambda device: Execution(16))
    with pytest.raises(FloatingPointError, match="loss is nan at epoch 1, step 1, learning rate"):
        fit(model, scenes(), recipe=TINY, progress=False)


def test_the_optimised_network_agrees_on_every_device(device: str) -> None:
    model = SeRankDet.from_pretrained("sirst", device=device)
    fast = model.optimize()
    x = torch.randn(2, 1, 64, 80)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = model(x.to(device))
        for _ in range(3):  # as it is, recorded, replayed
            torch.testing.assert_close(fast(x.to(device)), expected, atol=1e-3, rtol=1e-4)
