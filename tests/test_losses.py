"""The losses against plain Python, and where logits are extreme, targets empty, or numbers short."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from serank.losses import (
    LOSSES,
    area_soft_iou_loss,
    bce_loss,
    deep_supervision_loss,
    dice_loss,
    focal_loss,
    soft_iou_loss,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def plain_soft_iou(logits: Tensor, target: Tensor, smooth: float = 1.0) -> float:
    """The equation pixel by pixel, image by image."""
    losses: list[float] = []
    for image, wanted in zip(logits.tolist(), target.tolist(), strict=True):
        both = total = 0.0
        for row, wanted_row in zip(image[0], wanted[0], strict=True):
            for value, t in zip(row, wanted_row, strict=True):
                p = sigmoid(value)
                both += p * t
                total += p + t
        losses.append(1 - (both + smooth) / (total - both + smooth))
    return sum(losses) / len(losses)


def plain_cross_entropy(logits: Tensor, target: Tensor) -> float:
    values: list[float] = [
        math.log1p(math.exp(-abs(x))) + max(x, 0) - x * t
        for x, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True)
    ]
    return sum(values) / len(values)


def pair(batch: int = 3, height: int = 7, width: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(batch, 1, height, width, generator=generator, dtype=torch.float64)
    target = (torch.rand(batch, 1, height, width, generator=generator) > 0.7).double()
    return logits.to(dtype), target.to(dtype)


@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    spread=st.floats(0, 30),
    smooth=st.floats(0.01, 10),
    soft=st.booleans(),
    seed=st.integers(0, 999),
)
def test_soft_iou_agrees_with_plain_python(
    batch: int, height: int, width: int, spread: float, smooth: float, soft: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(batch, 1, height, width, generator=generator, dtype=torch.float64)
    target = torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64)
    target = target if soft else (target > 0.6).double()
    loss = soft_iou_loss(logits, target, smooth=smooth)
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(plain_soft_iou(logits, target, smooth), abs=1e-12)
    assert 0 <= loss <= 1


def test_known_value() -> None:
    # p = 1/2 on four pixels, one of them target: 1 - (0.5 + 1) / (2 + 1 - 0.5 + 1)
    target = torch.tensor([[[[1.0, 0], [0, 0]]]])
    assert soft_iou_loss(torch.zeros(1, 1, 2, 2), target).item() == pytest.approx(1 - 1.5 / 3.5, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [40, 1000])
def test_perfect_prediction_is_0_and_its_opposite_near_1(dtype: torch.dtype, size: float) -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[:, :, 2:6, 3:5] = 1
    logits = ((2 * target - 1) * size).to(dtype)
    assert soft_iou_loss(logits, target).item() == pytest.approx(0, abs=1e-6)
    # 64 pixels in the union, none in common
    assert soft_iou_loss(-logits, target).item() == pytest.approx(1 - 1 / 65, abs=1e-6)


def test_empty_target() -> None:
    logits, _ = pair(batch=1)
    p = torch.sigmoid(logits).sum().item()
    assert soft_iou_loss(logits, torch.zeros_like(logits)).item() == pytest.approx(1 - 1 / (p + 1), abs=1e-12)
    assert soft_iou_loss(torch.full_like(logits, -60), torch.zeros_like(logits)).item() == pytest.approx(0, abs=1e-12)


def test_batch_is_the_mean_of_its_images() -> None:
    logits, target = pair(batch=4)
    target[1] = 0
    singles = [soft_iou_loss(logits[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(soft_iou_loss(logits, target), torch.stack(singles).mean())
    # not the ratio of the batch's sums
    p = logits.sigmoid()
    pooled = 1 - ((p * target).sum() + 1) / ((p + target - p * target).sum() + 1)
    assert abs(pooled - soft_iou_loss(logits, target)) > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Sums over a frame would pass float16's 65504, or stop growing in bfloat16 at 256."""
    logits = torch.full((1, 1, 300, 300), 4.0, dtype=dtype, requires_grad=True)
    target = torch.ones(1, 1, 300, 300, dtype=dtype)
    loss = soft_iou_loss(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 - sigmoid(4), rel=1e-3)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_targets_of_any_type(dtype: torch.dtype) -> None:
    logits, target = pair(dtype=torch.float32)
    for weight in (0.0, 0.5):
        expected = deep_supervision_loss([logits], target, pixel_weight=weight)
        found = deep_supervision_loss([logits], target.to(dtype), pixel_weight=weight)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)


def test_gradient_is_right() -> None:
    logits, target = pair(batch=2, height=3, width=3)
    assert torch.autograd.gradcheck(lambda x: soft_iou_loss(x, target), (logits.requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 90.0, -90.0, 6e4, -6e4])
@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_gradients_are_finite(dtype: torch.dtype, value: float, filled: float) -> None:
    logits = torch.full((2, 1, 4, 4), value, dtype=dtype, requires_grad=True)
    target = torch.full((2, 1, 4, 4), filled)
    loss = deep_supervision_loss([logits], target, pixel_weight=1.0)
    assert loss.isfinite()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_focal_gradients_are_finite(gamma: float) -> None:
    logits = torch.tensor([120.0, -120.0, 0.3, -0.2]).reshape(1, 1, 2, 2).requires_grad_()
    loss = focal_loss(logits, torch.tensor([1.0, 0.0, 1.0, 1.0]).reshape(1, 1, 2, 2), gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[..., 1, :].abs().min() > 0


def test_pixel_weight_keeps_a_gradient_where_the_network_is_sure_and_wrong() -> None:
    target = torch.ones(1, 1, 2, 2)
    gradients = []
    for weight in (0.0, 1.0):
        logits = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
        (gradient,) = torch.autograd.grad(deep_supervision_loss([logits], target, pixel_weight=weight), logits)
        gradients.append(gradient.abs().max().item())
    assert gradients[0] < 1e-20
    assert gradients[1] == pytest.approx(0.25)


def test_deep_supervision_sums() -> None:
    _, target = pair()
    outputs = [torch.randn_like(target) for _ in range(6)]
    loss = deep_supervision_loss(outputs, target)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sum(plain_soft_iou(o, target) for o in outputs), abs=1e-12)
    assert deep_supervision_loss(outputs[:1], target).item() == pytest.approx(plain_soft_iou(outputs[0], target))
    torch.testing.assert_close(deep_supervision_loss(tuple(reversed(outputs)), target), loss)


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
def test_pixel_weight_adds_cross_entropy(weight: float) -> None:
    _, target = pair()
    outputs = [torch.randn_like(target) for _ in range(3)]
    expected = sum(plain_soft_iou(o, target) + weight * plain_cross_entropy(o, target) for o in outputs)
    assert deep_supervision_loss(outputs, target, pixel_weight=weight).item() == pytest.approx(expected, rel=1e-6)


def test_errors() -> None:
    logits, target = pair()
    message = r"logits and target must have one shape; got \(3, 1, 7, 5\), \(3, 7, 5\)"
    with pytest.raises(ValueError, match=message):
        soft_iou_loss(logits, target[:, 0])
    for wrong in (target[:1], target[..., :1], target.expand(3, 2, 7, 5), target.transpose(2, 3)):
        with pytest.raises(ValueError, match="one shape"):
            soft_iou_loss(logits, wrong)
    with pytest.raises(ValueError, match="one shape"):
        deep_supervision_loss([target, logits[:2]], target)
    with pytest.raises(ValueError, match="outputs must hold at least one logit map"):
        deep_supervision_loss([], target)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_a_mean_over_images(name: str) -> None:
    logits, target = pair(batch=4)
    target[1] = 0
    singles = [LOSSES[name](logits[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(LOSSES[name](logits, target), torch.stack(singles).mean())


def test_dice_and_focal_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 2.0], [-1.0, 0.5]]]], dtype=torch.float64)
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]], dtype=torch.float64)
    p = [sigmoid(v) for v in (0.0, 2.0, -1.0, 0.5)]
    dice = 1 - (2 * (p[0] + p[1]) + 1) / (sum(p) + 2 + 1)
    assert dice_loss(logits, target).item() == pytest.approx(dice, abs=1e-12)
    hits = sum(-0.25 * (1 - q) ** 2 * math.log(q) for q in p[:2])
    rest = sum(-0.75 * q**2 * math.log(1 - q) for q in p[2:])
    assert focal_loss(logits, target).item() == pytest.approx((hits + rest) / 2, abs=1e-12)
    assert bce_loss(logits, target).item() == pytest.approx(
        -(math.log(p[0]) + math.log(p[1]) + math.log(1 - p[2]) + math.log(1 - p[3])) / 4, abs=1e-12
    )


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_sure_and_right_maps_vanish(name: str) -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., 3:5, 3:5] = 1
    assert LOSSES[name]((2 * target - 1) * 40, target).item() == pytest.approx(0, abs=1e-6)
    assert LOSSES[name]((1 - 2 * target) * 5, target).item() > 0.5


def test_area_weights() -> None:
    logits, target = pair(batch=3)
    target[1] = 0
    parts = [soft_iou_loss(logits[i : i + 1], target[i : i + 1]).item() for i in range(3)]
    weights = [math.sqrt((target[i].sum().item() + 100) / 200) for i in range(3)]
    expected = sum(w * part for w, part in zip(weights, parts, strict=True)) / 3
    assert area_soft_iou_loss(logits, target).item() == pytest.approx(expected, abs=1e-12)


def test_unknown_loss_is_refused() -> None:
    logits, target = pair()
    with pytest.raises(ValueError, match="loss must be one of soft_iou, soft_iou_area, dice, bce, focal; got 'l2'"):
        deep_supervision_loss([logits], target, loss="l2")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("values", [[0, 255], [-0.1, 1.0], [0.0, 1.01], [0.0, math.nan]], ids=str)
def test_targets_beyond_0_and_1_are_refused(name: str, values: list[float]) -> None:
    target = torch.tensor(values).reshape(1, 1, 1, 2)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\]; got"):
        LOSSES[name](torch.zeros(1, 1, 1, 2), target)


def test_masks_of_every_dtype_are_one_target() -> None:
    logits, mask = torch.randn(2, 1, 4, 5), torch.rand(2, 1, 4, 5) > 0.5
    for loss in LOSSES.values():
        results = [loss(logits, mask.to(kind)) for kind in (torch.bool, torch.uint8, torch.int64, torch.float64)]
        assert all(torch.equal(result, results[0]) for result in results)


def test_one_map_is_no_sequence_of_maps() -> None:
    with pytest.raises(TypeError, match=r"outputs must be a sequence of logit maps; got one tensor; pass \[logits\]"):
        deep_supervision_loss(torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 5))  # type: ignore[arg-type]


def test_soft_targets_to_rounding_and_where_values_are_not_at_hand() -> None:
    logits = torch.zeros(1, 1, 64, 50)
    target = torch.nn.functional.interpolate(torch.ones(1, 1, 9, 9), (64, 50), mode="bicubic")
    assert target.max() > 1
    for loss in LOSSES.values():
        assert loss(logits, target).isfinite()
        each = torch.vmap(lambda x, t, loss=loss: loss(x[None], t[None]))(logits, target)
        torch.testing.assert_close(each[0], loss(logits, target))
