"""What `detect` runs by itself: an inference copy, never of weights or a graph that the network has no more."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_inference import Doubled, random_network
from torch import Tensor, nn

from serank import SeRankDet
from serank.evaluation import evaluate
from serank.inference.detector import Detector, predict
from serank.inference.fast import fast, fingerprint
from serank.inference.fused_network import InferenceNetwork
from serank.synthetic import SyntheticScenes

FRAME = np.random.default_rng(0).random((32, 48), np.float32)


def probability(model: Detector) -> Tensor:
    return torch.from_numpy(model.detect(FRAME).probability)


def plain(model: SeRankDet) -> Tensor:
    """What the network itself gives for `FRAME`."""
    was = [m for m in model.modules() if m.training]
    model.eval()
    with torch.no_grad():
        x = model.frame_spec.normalise(torch.from_numpy(FRAME)[None, None], model.in_channels)
        found: Tensor = model(x.to(model.head.weight.dtype)).float().sigmoid()[0, 0]
    for module in was:
        module.training = True
    return found


def train_step(model: SeRankDet) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.randn(2, 1, 32, 32)).square().mean().backward()
    optimizer.step()
    model.eval()


def see_batch(model: SeRankDet) -> None:
    """Moves the statistics of batch norm and nothing else; not by train() and eval(), which drop the copy."""
    norms: list[Any] = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.training = True
    with torch.no_grad():
        model(5 + torch.randn(2, 1, 32, 32))
    for norm in norms:
        norm.training = False


def through_numpy(model: SeRankDet) -> None:
    model.head.weight.detach().numpy()[:] *= 3


def other_attention(model: SeRankDet) -> None:
    model.attention[0] = nn.Identity()


def other_setting(model: SeRankDet) -> None:
    model.attention[0].table_width = 5  # type: ignore[assignment]


def other_parameter(model: SeRankDet) -> None:
    model.head.weight = nn.Parameter(model.head.weight.detach() * 3)


@torch.no_grad()
def in_place(model: SeRankDet) -> None:
    model.head.weight.mul_(3)


def under_data(model: SeRankDet) -> None:
    model.head.weight.data.mul_(3)


def new_data(model: SeRankDet) -> None:
    model.head.weight.data = model.head.weight.data * 3


def one_value_under_data(model: SeRankDet) -> None:
    model.head.weight.data[0, 0, 0, 0] += 1e-2


def loaded(model: SeRankDet) -> None:
    model.load_state_dict(random_network(1).state_dict())


def assigned(model: SeRankDet) -> None:
    model.load_state_dict(random_network(1).state_dict(), assign=True)


def other_order(model: SeRankDet) -> None:
    refine: Any = model.decoder[0].refine
    refine[1], refine[2] = refine[2], refine[1]


CHANGES: list[Callable[[SeRankDet], None]] = [
    *(train_step, see_batch, through_numpy, other_attention, other_setting, other_parameter, in_place, under_data),
    *(new_data, one_value_under_data, loaded, assigned, other_order),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change: Callable[[SeRankDet], None]) -> None:
    model = random_network()
    before = probability(model)
    assert isinstance(model.inference_form(), InferenceNetwork)
    torch.testing.assert_close(before, plain(model), atol=1e-5, rtol=0)
    change(model)
    after = probability(model)
    torch.testing.assert_close(after, plain(model), atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-4
    assert isinstance(model.inference_form(), InferenceNetwork)


def test_the_copy_is_kept_while_nothing_changes() -> None:
    model = random_network()
    first = model.inference_form()
    assert isinstance(first, InferenceNetwork)
    model.threshold = 0.2
    model.eval().requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.detect(FRAME)
    assert model.inference_form() is first


def test_the_copy_is_freed_with_the_network_in_training_and_when_moved() -> None:
    model = random_network()
    gc.disable()
    try:
        for leave in ("train", "double"):
            model.float().eval()
            gone = weakref.ref(model.inference_form())
            assert isinstance(gone(), InferenceNetwork)
            getattr(model, leave)()
            assert gone() is None
        gone = weakref.ref(model.float().eval().inference_form())
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_copies_and_pickles_leave_it_behind() -> None:
    model = random_network()
    expected = probability(model)
    whole = io.BytesIO()
    torch.save(model, whole)
    fresh = io.BytesIO()
    torch.save(random_network(), fresh)
    assert abs(len(whole.getvalue()) - len(fresh.getvalue())) < 1000
    for other in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert other._kept is None
        assert torch.equal(probability(other), expected)
    assert model._kept is not None
    assert not any("_kept" in name for name in model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_run_as_they_are(dtype: torch.dtype) -> None:
    model = random_network()
    model.detect(FRAME)
    model.to(dtype)
    assert model.inference_form() is model
    torch.testing.assert_close(probability(model), plain(model), atol=1e-6, rtol=0)


class Inverted(SeRankDet):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def hooked(model: SeRankDet) -> None:
    model.register_forward_hook(lambda _, __, y: y + 1)


def hooked_inside(model: SeRankDet) -> None:
    model.encoder[0].branches["vanilla"].register_forward_pre_hook(lambda _, x: (x[0] * 2,))  # type: ignore[index, union-attr]


def own_module(model: SeRankDet) -> None:
    model.attention[0] = Doubled()


def own_forward(model: SeRankDet) -> None:
    forward = model.forward
    model.forward = lambda x: forward(x) + 1  # type: ignore[method-assign]


def own_decode(model: SeRankDet) -> None:
    decode = model.decode
    model.decode = lambda x: [m * 2 for m in decode(x)]  # type: ignore[method-assign]


def normalised(model: SeRankDet) -> None:
    nn.utils.parametrizations.weight_norm(model.encoder[0].merge[0])  # type: ignore[index, arg-type]


def other_setting_that_may_change(model: SeRankDet) -> None:
    model.attention[0].table_width = torch.tensor(5)


def compiled(model: SeRankDet) -> None:
    model.compile(backend="eager")


@pytest.mark.parametrize(
    "edit",
    [hooked, hooked_inside, own_module, own_forward, own_decode, normalised, compiled, other_setting_that_may_change],
)
def test_an_edited_network_runs_itself(edit: Callable[[SeRankDet], None]) -> None:
    model = random_network()
    before = probability(model)
    edit(model)
    assert model.inference_form() is model
    assert fast(model) is model
    if edit is not compiled:  # which takes seconds
        after = probability(model)
        torch.testing.assert_close(after, plain(model), atol=1e-6, rtol=0)
        assert edit is normalised or (after - before).abs().max() > 1e-4


def test_a_subclass_with_a_forward_pass_runs_itself() -> None:
    model = Inverted(width=4)
    model.load_state_dict(random_network().state_dict())
    assert model.eval().inference_form() is model
    torch.testing.assert_close(probability(model), 1 - probability(random_network()), atol=1e-5, rtol=0)


def test_hooks_see_what_detect_runs() -> None:
    model = random_network()
    model.detect(FRAME)
    seen = []
    with_hook = model.attention[1].register_forward_hook(lambda _, __, y: seen.append(y.shape))
    model.detect(FRAME)
    with_hook.remove()
    everywhere = nn.modules.module.register_module_forward_hook(lambda _, __, y: None)
    assert model.inference_form() is model
    everywhere.remove()
    assert seen == [(1, 8, 16, 24)]
    assert isinstance(model.inference_form(), InferenceNetwork)


def test_under_autocast_the_network_runs_itself() -> None:
    model = random_network()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.inference_form() is model


def test_weights_made_in_inference_mode_work() -> None:
    with torch.inference_mode():
        model = random_network()
        first = probability(model)
        model.head.weight.mul_(3)
    torch.testing.assert_close(probability(model), plain(model), atol=1e-5, rtol=0)
    assert (probability(model) - first).abs().max() > 1e-4


def test_training_mode_stays_and_the_result_is_that_of_eval_mode() -> None:
    model = random_network()
    expected = probability(model)
    model.train()
    torch.testing.assert_close(probability(model), expected, atol=1e-6, rtol=0)
    assert all(module.training for module in model.modules())


def test_another_network_runs_as_it_is() -> None:
    class Own(nn.Module, Detector):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(10.0))
            self.frame_spec, self.in_channels, self.threshold = SeRankDet(width=1).frame_spec, 1, 0.5

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * x

    model = Own()
    assert model.inference_form() is model
    (expected,) = predict(model, [FRAME], model.frame_spec)
    assert np.array_equal(model.detect(FRAME).probability, expected)


def test_evaluation_keeps_no_copy() -> None:
    model = random_network()
    evaluate(model, list(SyntheticScenes(2, 32, 32, seed=1)), curves=False)
    assert model._kept is None
    assert isinstance(fast(model), InferenceNetwork)


def test_fingerprints_of_equal_networks_differ_by_place_alone() -> None:
    model = random_network()
    first, again, other = fingerprint(model), fingerprint(model), fingerprint(random_network())
    assert first is not None
    assert other is not None
    assert first == again
    assert first != other
    assert first[3] == other[3]  # the sums
