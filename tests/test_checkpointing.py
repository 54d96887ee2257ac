"""Gradient checkpointing: the same loss, gradients and batch norm statistics, and less memory kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import TINY, scenes, tiny
from torch import Tensor

from serank import SeRankDet
from serank.losses import deep_supervision_loss
from serank.train import fit


def step(model: SeRankDet, dtype: torch.dtype = torch.float32) -> tuple[Tensor, int]:
    """Loss of a fixed batch, backward done, and how many numbers the forward pass kept."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 1, 48, 64, generator=generator).to(memory_format=torch.channels_last)
    masks = (torch.rand(2, 1, 48, 64, generator=generator) > 0.9).float()
    kept = 0

    def count(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel()
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            outputs = model.forward_deep(x)
        loss = deep_supervision_loss(outputs, masks)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "arguments", [{}, {"fusion": "gated", "merge_kernel": 3, "bias": True}, {"attention": "after", "encoder": "plain"}]
)
def test_a_step_is_the_same(arguments: dict[str, Any], dtype: torch.dtype) -> None:
    models = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = SeRankDet(**{"width": 2, **arguments}).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        before = {name: value.clone() for name, value in model.named_buffers()}
        model.checkpointing = checkpointing
        models.append((model, *step(model, dtype)))
    (plain, loss, kept), (again, other, less) = models
    assert torch.equal(loss, other)
    assert less < 0.6 * kept
    for (name, p), q in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert p.grad is not None, name
        assert torch.equal(p.grad, q.grad), name
    for (name, value), found in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(value, found), name
        assert not torch.equal(value, before[name]), name


def test_batch_norm_in_eval_mode_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model = SeRankDet(width=2).train()
    model.encoder.eval()
    model.checkpointing = True
    before = {name: value.clone() for name, value in model.encoder.named_buffers()}
    step(model)
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.named_buffers())


def test_without_gradients_nothing_changes() -> None:
    model = tiny().eval()
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = model(x)
        model.checkpointing = True
        assert torch.equal(model(x), expected)


def test_training_takes_the_same_course(tmp_path: Path) -> None:
    recipe = replace(TINY, precision="bfloat16")
    plain, again, resumed = tiny(), tiny(), tiny()
    fit(plain, scenes(), scenes(2), recipe=recipe, progress=False)
    fit(again, scenes(), scenes(2), recipe=recipe, checkpointing=True, output=tmp_path, progress=False)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.checkpointing is False
    # a run may go on either way
    fit(resumed, scenes(), scenes(2), recipe=recipe, output=tmp_path, resume=True, progress=False)
    assert torch.equal(resumed.head.weight, plain.head.weight)


def test_not_with_compile() -> None:
    with pytest.raises(ValueError, match="leave checkpointing out"):
        fit(tiny(), scenes(), recipe=TINY, compile=True, checkpointing=True)
