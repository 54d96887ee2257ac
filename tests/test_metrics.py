"""Metrics against the stored cases, a slow reference in plain Python, and the properties they must have."""

from __future__ import annotations

import doctest
import json
import math
import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import serank.metrics.detection
from serank.metrics import (
    CURVE_THRESHOLDS,
    DetectionMetrics,
    Protocol,
    iou,
    niou,
    pd_fa,
    pd_fa_curve,
    roc,
)

Array = NDArray[Any]
Pixels = list[tuple[int, int]]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
DATA = Path(__file__).parent / "data"
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in json.loads((DATA / "metric_cases.json").read_text())}


# ---------- stored cases ----------


def load_case(name: str) -> tuple[Array, Array]:
    with np.load(DATA / "metric_cases.npz") as arrays:
        return 1 / (1 + np.exp(-arrays[f"logits_{name}"])), arrays[f"masks_{name}"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CASES)
def test_stored_cases(name: str, protocol: Protocol) -> None:
    probability, target = load_case(name)
    expected = CASES[name][protocol]
    metrics = DetectionMetrics(protocol=protocol)
    metrics.update(probability, target)
    values = metrics.compute()
    # stored in percent and 1e-6, rounded to six digits
    assert values["iou"] * 100 == pytest.approx(expected["IoU"], abs=1e-6)
    assert values["niou"] * 100 == pytest.approx(expected["nIoU"], abs=1e-6)
    assert values["pd"] * 100 == pytest.approx(expected["Pd"], abs=1e-6)
    assert values["fa"] * 1e6 == pytest.approx(expected["Fa"], abs=1e-6)
    assert values["frames"] == len(target)
    assert iou(probability, target, protocol=protocol) == values["iou"]
    assert niou(probability, target, protocol=protocol) == values["niou"]
    assert pd_fa(probability, target, protocol=protocol) == (values["pd"], values["fa"])


@pytest.mark.parametrize("name", CASES)
def test_stored_curves(name: str) -> None:
    probability, target = load_case(name)
    expected = CASES[name]["released"]
    tpr, fpr = roc(probability, target)
    np.testing.assert_allclose(tpr, expected["tpr"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(fpr, expected["fpr"], rtol=0, atol=1e-8)
    metrics = DetectionMetrics(protocol="released")
    metrics.update(probability, target)
    # F1 is stored in percent, rounded to four digits
    assert metrics.compute()["f1"] * 100 == pytest.approx(expected["F1"], abs=5.1e-5)


# ---------- slow reference ----------


def flood_fill(mask: Array) -> list[Pixels]:
    """Pixels of each 8-connected component, in the scan order of their first pixels."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    components = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        pixels, queue = [start], [start]
        while queue:
            row, column = queue.pop()
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if (row + i, column + j) in left:
                        left.remove((row + i, column + j))
                        pixels.append((row + i, column + j))
                        queue.append((row + i, column + j))
        components.append(pixels)
    return components


def separation(a: Pixels, b: Pixels) -> float:
    """Distance of two centroids, rounded so that equal distances compare equal."""
    row = sum(p[0] for p in a) / len(a) - sum(p[0] for p in b) / len(b)
    column = sum(p[1] for p in a) / len(a) - sum(p[1] for p in b) / len(b)
    return round(math.hypot(row, column), 8)


def match(targets: list[Pixels], found: list[Pixels], reach: float, protocol: Protocol) -> dict[int, int]:
    """The prediction of each detected target."""
    matches: dict[int, int] = {}
    if protocol == "released":
        for t, target in enumerate(targets):
            for f, component in enumerate(found):
                if f not in matches.values() and separation(target, component) < reach:
                    matches[t] = f
                    break
        return matches
    while True:
        candidates = [
            (separation(target, component), t, f)
            for t, target in enumerate(targets)
            for f, component in enumerate(found)
            if t not in matches and f not in matches.values() and separation(target, component) < reach
        ]
        if not candidates:
            return matches
        _, t, f = min(candidates)
        matches[t] = f


def reference(predicted: Array, target: Array, reach: float, protocol: Protocol) -> dict[str, float]:
    """All metrics of `(N, H, W)` bool frames, pixel by pixel."""
    tp = fp = fn = detected = all_targets = false_pixels = false_components = 0
    ious = []
    for p, t in zip(predicted, target, strict=True):
        hits = sum(bool(a and b) for a, b in zip(p.flat, t.flat, strict=True))
        extra = sum(bool(a and not b) for a, b in zip(p.flat, t.flat, strict=True))
        missed = sum(bool(b and not a) for a, b in zip(p.flat, t.flat, strict=True))
        tp, fp, fn = tp + hits, fp + extra, fn + missed
        if hits + extra + missed:
            ious.append(hits / (hits + extra + missed))
        else:
            ious.append(1.0 if protocol == "standard" else 0.0)
        targets, found = flood_fill(t), flood_fill(p)
        matches = match(targets, found, reach, protocol)
        detected, all_targets = detected + len(matches), all_targets + len(targets)
        unmatched = [c for f, c in enumerate(found) if f not in matches.values()]
        false_components += len(unmatched)
        areas = [len(found[f]) for f in matches.values()] if protocol == "released" else []
        false_pixels += sum(len(c) for c in unmatched if len(c) not in areas)
    nan = float("nan")
    standard = protocol == "standard"
    empty = 1.0 if standard else 0.0
    small = 0.0 if standard else 0.001
    precision = tp / (tp + fp + small) if tp + fp else nan if standard else 0.0
    recall = tp / (tp + fn + small) if tp + fn else nan if standard else 0.0
    if standard:
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0
    else:
        f1 = 2 * precision * recall / (precision + recall + 1e-5)
    return {
        "iou": tp / (tp + fp + fn) if tp + fp + fn else empty,
        "niou": sum(ious) / len(ious),
        "pd": detected / all_targets if all_targets else nan,
        "fa": false_pixels / target.size,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "false_components": false_components / len(target),
        "frames": len(target),
        "targets": all_targets,
    }


# ---------- generators ----------


def random_scene(seed: int, frames: int, height: int, width: int) -> tuple[Array, Array]:
    """Small blobs, most of them found near their place; now and then nothing in a frame."""
    rng = np.random.default_rng(seed)
    probability = 0.4 * rng.random((frames, height, width))
    target = np.zeros(probability.shape, dtype=np.bool_)
    for frame in range(frames):
        for _ in range(rng.integers(0, 5)):
            row, column = int(rng.integers(0, height)), int(rng.integers(0, width))
            h, w = rng.integers(1, 4, size=2)
            target[frame, row : row + h, column : column + w] = True
            if rng.random() < 0.8:
                row = max(0, row + int(rng.integers(-3, 4)))
                column = max(0, column + int(rng.integers(-3, 4)))
                h, w = rng.integers(1, 4, size=2)
                probability[frame, row : row + h, column : column + w] = rng.uniform(0.55, 1)
    return probability, target


scenes = st.builds(random_scene, st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 24), st.integers(2, 24))
distances = st.sampled_from([0.5, 1.0, 3.0, 8.0])
protocols = st.sampled_from(PROTOCOLS)


def measure(probability: Any, target: Any, **settings: Any) -> dict[str, float]:
    metrics = DetectionMetrics(**settings)
    metrics.update(probability, target)
    return metrics.compute()


def square(*tops: tuple[int, int], side: int = 2, size: int = 32) -> Array:
    """A `(size, size)` bool mask with squares at the given top-left (row, column)."""
    mask = np.zeros((size, size), dtype=np.bool_)
    for row, column in tops:
        mask[row : row + side, column : column + side] = True
    return mask


# ---------- properties ----------


@given(scenes, distances, protocols)
def test_agrees_with_reference(scene: tuple[Array, Array], reach: float, protocol: Protocol) -> None:
    probability, target = scene
    expected = reference(probability > 0.5, target, reach, protocol)
    values = measure(probability, target, max_distance=reach, protocol=protocol)
    assert values == pytest.approx(expected, rel=1e-12, abs=0, nan_ok=True)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6), distances, protocols)
def test_agrees_with_reference_on_noise(seed: int, density: float, reach: float, protocol: Protocol) -> None:
    """Uniform noise gives odd shapes, many ties and distances of exactly `reach`."""
    rng = np.random.default_rng(seed)
    predicted, target = rng.random((2, 2, 10, 13)) < density
    values = measure(predicted, target, max_distance=reach, protocol=protocol)
    assert values == pytest.approx(reference(predicted, target, reach, protocol), rel=1e-12, abs=0, nan_ok=True)


@given(scenes)
def test_perfect_prediction(scene: tuple[Array, Array]) -> None:
    target = scene[1]
    assume(target.any())
    values = measure(target.astype(np.float32), target)
    assert [values[key] for key in ("iou", "niou", "pd", "fa")] == [1, 1, 1, 0]
    assert [values[key] for key in ("precision", "recall", "f1", "false_components")] == [1, 1, 1, 0]


@given(scenes, protocols, st.randoms())
def test_order_and_parts_do_not_matter(scene: tuple[Array, Array], protocol: Protocol, random: Any) -> None:
    probability, target = scene
    whole = measure(probability, target, protocol=protocol)
    order = list(range(len(target)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    first, second = (DetectionMetrics(protocol=protocol) for _ in range(2))
    for i in order[:cut]:
        first.update(probability[i], target[i])
    second.update(probability[order[cut:]], target[order[cut:]])
    first.merge(second)
    # equal to the last bit; repr, because NaN differs from itself
    assert repr(first.compute()) == repr(whole)


@given(scenes)
def test_turning_frames_changes_nothing(scene: tuple[Array, Array]) -> None:
    probability, target = scene
    for p, t in zip(probability, target, strict=True):
        near = [separation(a, b) for a in flood_fill(t) for b in flood_fill(p > 0.5)]
        # equally near pairs go by scan order, which turning changes
        assume(len(set(near)) == len(near))
    values = repr(measure(probability, target))
    for p, t in (
        (probability.transpose(0, 2, 1), target.transpose(0, 2, 1)),
        (probability[:, ::-1], target[:, ::-1]),
        (probability[:, :, ::-1], target[:, :, ::-1]),
        (np.rot90(probability, axes=(1, 2)), np.rot90(target, axes=(1, 2))),
    ):
        assert repr(measure(p, t)) == values


@given(scenes, st.integers(1, 5), st.integers(1, 5))
def test_far_false_blob_adds_its_pixels_to_fa(scene: tuple[Array, Array], height: int, width: int) -> None:
    room = ((0, 0), (0, 40), (0, 0))
    probability, target = (np.pad(x, room) for x in scene)
    before = measure(probability, target)
    probability[0, -height:, :width] = 0.9
    after = measure(probability, target)
    blob = height * min(width, probability.shape[2])
    assert after["fa"] * target.size == pytest.approx(before["fa"] * target.size + blob, rel=1e-12)
    assert repr(after["pd"]) == repr(before["pd"])
    added = (after["false_components"] - before["false_components"]) * len(target)
    assert added == pytest.approx(1)


@given(scenes, st.floats(0, 1), distances, protocols)
def test_ranges(scene: tuple[Array, Array], threshold: float, reach: float, protocol: Protocol) -> None:
    probability, target = scene
    values = measure(probability, target, threshold=threshold, max_distance=reach, protocol=protocol)
    for key in ("iou", "niou", "pd", "fa", "precision", "recall", "f1"):
        assert 0 <= values[key] <= 1 or (math.isnan(values[key]) and key in ("pd", "precision", "recall"))
    assert values["false_components"] >= 0
    tpr, fpr = roc(probability, target, np.linspace(0, 1, 7), protocol=protocol)
    assert np.isnan(fpr[-1]) or fpr[-1] == 0  # nothing is above 1
    for rate in (tpr, fpr):
        assert np.all(np.isnan(rate)) or np.all(np.diff(rate) <= 0)


@given(scenes, protocols)
def test_curves_agree_with_single_thresholds(scene: tuple[Array, Array], protocol: Protocol) -> None:
    probability, target = scene
    curve = pd_fa_curve(probability, target, protocol=protocol)
    rates = roc(probability, target, protocol="standard")
    assert len(curve.pd) == len(curve.fa) == len(rates.tpr) == len(rates.fpr) == len(CURVE_THRESHOLDS)
    for i, threshold in enumerate(CURVE_THRESHOLDS):
        single = pd_fa(probability, target, threshold, protocol=protocol)
        np.testing.assert_equal((curve.pd[i], curve.fa[i]), single)
        above = probability > threshold
        if target.any():
            assert rates.tpr[i] == pytest.approx(above[target].mean(), rel=1e-12)
        if not target.all():
            assert rates.fpr[i] == pytest.approx(above[~target].mean(), rel=1e-12)


# ---------- definitions ----------


def test_nearest_pair_goes_first() -> None:
    """The left target can reach both predictions, but the right one's is nearer to the right target."""
    target = square((10, 10), (10, 14))
    probability = square((10, 12), (10, 15)).astype(np.float64)
    # distances: left to first 2, right to first 2, right to second 1
    assert pd_fa(probability, target) == (1.0, 0.0)
    assert pd_fa(probability, target, max_distance=2.0) == (0.5, 4 / 32**2)


def test_protocols_match_in_their_own_order() -> None:
    target = square((10, 10), side=2)
    probability = np.zeros(target.shape)
    probability[8, 10:12] = 1  # first in scan order, 2.5 away, 2 pixels
    probability[10:12, 10] = 1  # nearest, 0.5 away
    probability[11:14, 10] = 1  # joined to the above: 4 pixels, 1.12 away
    total = target.size
    assert pd_fa(probability, target) == (1.0, 2 / total)
    assert pd_fa(probability, target, protocol="released") == (1.0, 4 / total)


def test_ties_go_by_scan_order() -> None:
    target = square((10, 10), side=1)
    probability = np.zeros(target.shape)
    probability[8, 10] = 1
    probability[11:14, 10] = 1  # centroid as far below as the other is above
    assert pd_fa(probability, target) == (1.0, 3 / target.size)


def test_one_prediction_detects_one_target() -> None:
    target = square((10, 10), (10, 13))
    probability = square((10, 11)).astype(np.float64)
    assert pd_fa(probability, target) == (0.5, 0.0)


def test_distance_is_exclusive() -> None:
    target = square((10, 10))
    probability = square((10, 13)).astype(np.float64)
    assert pd_fa(probability, target, max_distance=3.0) == (0.0, 4 / target.size)
    assert pd_fa(probability, target, max_distance=3.01) == (1.0, 0.0)
    # centroids at 1/3 and 10/3: exactly 3 apart, though not in binary
    thirds = np.zeros((2, 8), dtype=np.bool_)
    thirds[0, 0:2] = thirds[1, 0] = True
    for shift in range(3, 6):
        moved = np.roll(thirds, shift, axis=1).astype(np.float64)
        assert pd_fa(moved, thirds, max_distance=shift)[0] == 0


def test_thresholds_are_exclusive() -> None:
    at = np.full((2, 2), 0.5)
    assert iou(at, np.ones((2, 2))) == 0
    assert measure(at, np.ones((2, 2)))["iou"] == 0
    assert pd_fa(at, np.ones((2, 2))) == (0, 0)
    assert roc(at, np.ones((2, 2)), [0.5]).tpr[0] == 0
    assert roc(at, np.zeros((2, 2)), [0.5]).fpr[0] == 0
    assert iou(np.nextafter(at, 1), np.ones((2, 2))) == 1
    assert iou(np.ones((2, 2)), at) == 0
    assert iou(np.full((2, 2), 0.3, dtype=np.float32), np.ones((2, 2)), threshold=0.3) == 0


def test_components_touch_by_corners() -> None:
    target = np.eye(6, dtype=np.bool_)
    assert measure(target, target)["targets"] == 1


def test_area_membership_bug_is_only_in_released() -> None:
    target = square((4, 4))
    probability = square((4, 4), (20, 20), (26, 4)).astype(np.float64)
    probability[20, 22] = 1  # five pixels: counted in both
    assert pd_fa(probability, target)[1] == 9 / target.size
    assert pd_fa(probability, target, protocol="released")[1] == 5 / target.size
    values = measure(probability, target, protocol="released")
    assert values["false_components"] == 2
    # an equal area in another frame saves nothing
    both = np.stack([probability, square((20, 20)).astype(np.float64)])
    masks = np.stack([target, np.zeros_like(target)])
    assert pd_fa(both, masks, protocol="released")[1] == 9 / masks.size


def test_nothing_there() -> None:
    empty = np.zeros((3, 8, 8))
    values = measure(empty, empty)
    assert (values["iou"], values["niou"], values["f1"], values["fa"]) == (1, 1, 1, 0)
    assert all(math.isnan(values[key]) for key in ("pd", "precision", "recall"))
    released = measure(empty, empty, protocol="released")
    assert (released["iou"], released["niou"], released["f1"], released["fa"]) == (0, 0, 0, 0)
    assert math.isnan(released["pd"])
    assert math.isnan(pd_fa(empty, empty)[0])
    rates = roc(empty, empty, [0.5], protocol="standard")
    assert np.isnan(rates.tpr[0])
    assert rates.fpr[0] == 0
    assert roc(empty, empty, [0.5]).tpr[0] == 0


def test_iou_pools_pixels_and_niou_pools_frames() -> None:
    probability = np.stack([square((0, 0), side=10), square((0, 0), side=1)]).astype(np.float64)
    target = np.stack([square((0, 0), side=10), square((0, 0), side=2)])
    assert iou(probability, target) == 101 / 104
    assert niou(probability, target) == (1 + 1 / 4) / 2


# ---------- inputs ----------


def test_layouts_and_types_agree() -> None:
    probability, target = random_scene(seed=3, frames=3, height=20, width=16)
    probability = np.round(probability * 128) / 128  # exact in every float type
    expected = repr(measure(probability, target))
    tensor, mask = torch.from_numpy(probability), torch.from_numpy(target)
    for p, t in [
        (probability[:, None], target[:, None]),
        (probability[:, None], target),
        (list(probability), list(target)),
        (tuple(tensor), target),
        (probability.astype(np.float16), target.astype(np.uint8) * 255),
        (tensor, mask),
        (tensor.float()[:, None].requires_grad_(), mask[:, None].float()),
        (tensor.bfloat16(), mask.to(torch.bfloat16)),
        (tensor.half(), target.astype(np.int64)),
    ]:
        assert repr(measure(p, t)) == expected
    one = repr(measure(probability[0], target[0]))
    assert repr(measure(tensor[:1, None], target[0])) == one
    assert repr(measure(probability[:1], target[0])) == one


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.3, 0.9999])
def test_thresholds_are_compared_in_single_precision(dtype: torch.dtype, threshold: float) -> None:
    """In half precision 0.9999 is 1, and 0.3 what is stored for it."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[3:6, 3:6] = True
    map_ = mask.to(dtype)
    map_[12, 12] = 0.29
    maps: list[Any] = [map_] if dtype == torch.bfloat16 else [map_, map_.numpy()]
    for one in maps:
        assert pd_fa(one, mask, threshold) == (1, 0)


def test_frames_of_one_column_have_a_channel_axis() -> None:
    """Without it `(N, H, 1)` could be one frame `(H, W, 1)`, whose rows would count as frames."""
    probability, target = np.array([[0.9, 0.1, 0.8]]), np.array([[1, 0, 0]])
    expected = repr(measure(probability, target))
    assert repr(measure(probability.T, target.T)) == expected
    assert repr(measure(probability.T[None, None], target.T[None, None])) == expected
    assert repr(measure([probability.T], [target.T])) == expected


def test_masked_arrays_without_masked_pixels() -> None:
    probability, target = random_scene(seed=4, frames=2, height=9, width=8)
    expected = repr(measure(probability, target))
    assert repr(measure(np.ma.array(probability), np.ma.array(target, mask=False))) == expected


def test_bool_predictions() -> None:
    target = square((4, 4))
    assert iou(target, target) == 1
    assert iou(torch.from_numpy(target), target.astype(np.uint8)) == 1


def test_frames_of_different_sizes() -> None:
    probabilities, targets = zip(*(random_scene(i, 1, 10 + i, 20 - i) for i in range(5)), strict=True)
    metrics = DetectionMetrics()
    for p, t in zip(probabilities, targets, strict=True):
        metrics.update(p, t)
    values = metrics.compute()
    assert values["frames"] == 5
    assert iou(probabilities, targets) == values["iou"]
    assert niou(probabilities, targets) == values["niou"]
    assert pd_fa(probabilities, targets) == (values["pd"], values["fa"])
    tpr, _ = roc(probabilities, targets, [0.5], protocol="standard")
    assert tpr[0] == values["recall"]


def test_inputs_are_left_as_they_are() -> None:
    probability, target = random_scene(seed=5, frames=2, height=12, width=12)
    before = probability.copy(), target.copy()
    measure(probability, target)
    pd_fa_curve(probability, target)
    np.testing.assert_array_equal(probability, before[0])
    np.testing.assert_array_equal(target, before[1])


GOOD = np.zeros((4, 5))


@pytest.mark.parametrize(
    ("probability", "target", "message"),
    [
        (GOOD, np.zeros((5, 4)), r"got shapes \(4, 5\) and \(5, 4\)"),
        (np.zeros((2, 4, 5)), np.zeros((3, 4, 5)), r"got shapes \(2, 4, 5\) and \(3, 4, 5\)"),
        (torch.zeros(2, 1, 4, 5), np.zeros((4, 5)), r"got shapes \(2, 1, 4, 5\) and \(4, 5\)"),
        ([GOOD, GOOD], [GOOD], "as many frames; got 2 and 1"),
        ([GOOD, GOOD], [GOOD, np.zeros((5, 5))], r"got shapes \(4, 5\) and \(5, 5\)"),
        (np.zeros(5), np.zeros(5), r"probability must have shape \(H, W\).*got \(5,\)"),
        (np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5)), r"got \(2, 3, 4, 5\)"),
        (GOOD, np.zeros((1, 1, 1, 4, 5)), r"target must have shape"),
        (np.zeros((0, 5)), np.zeros((0, 5)), "H and W >= 1"),
        (GOOD - 0.1, GOOD, r"probability must lie in \[0, 1\]; got -0.1 to -0.1.*sigmoid"),
        (GOOD + 1.5, GOOD, "sigmoid"),
        (np.full((4, 5), 255, dtype=np.uint8), GOOD, "division by 255"),
        (np.where(np.eye(4, 5) > 0, np.nan, 0.5), GOOD, "probability must be finite"),
        (np.where(np.eye(4, 5) > 0, np.inf, 0.5), GOOD, "probability must be finite"),
        (np.where(np.eye(4, 5) > 0, -np.inf, 0.5), GOOD, "probability must be finite"),
        (GOOD, np.where(np.eye(4, 5) > 0, np.nan, 0.5), "target must not hold NaN"),
        (
            GOOD.astype(np.complex128),
            GOOD,
            "probability must hold real numbers or bool; got dtype complex128",
        ),
        (GOOD.astype(object), GOOD, "got dtype object"),
        (GOOD, GOOD.astype(np.complex64), "target must hold real numbers or bool; got dtype complex64"),
        (GOOD, GOOD.astype(object), "target must hold real numbers or bool; got dtype object"),
        (GOOD[..., None], GOOD[..., None], r"probability of shape \(4, 5, 1\) is one frame \(H, W, 1\) or"),
        (torch.zeros(4, 5, 1), torch.zeros(4, 5, 1), r"probability of shape \(4, 5, 1\)"),
        ([GOOD], [GOOD[..., None]], r"target of shape \(4, 5, 1\).*pass \(H, W\)"),
        (np.ma.masked_equal(np.eye(4, 5), 1), GOOD, "probability is a masked array with 4 masked pixels.*filled"),
        ([GOOD], [np.ma.masked_equal(np.eye(4, 5), 1)], "target is a masked array with 4 masked pixels"),
    ],
)
def test_bad_frames(probability: Any, target: Any, message: str) -> None:
    for function in (iou, niou, pd_fa, pd_fa_curve, roc, DetectionMetrics().update):
        with pytest.raises(ValueError, match=message):
            function(probability, target)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 127, float("nan")])
def test_bad_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match=rf"threshold must lie in \[0, 1\]; got {threshold}"):
        DetectionMetrics(threshold=threshold)
    for function in (iou, niou, pd_fa):
        with pytest.raises(ValueError, match="threshold must lie in"):
            function(GOOD, GOOD, threshold)
    for curve in (roc, pd_fa_curve):
        with pytest.raises(ValueError, match="thresholds must lie in"):
            curve(GOOD, GOOD, [0.5, threshold])


def test_bad_threshold_lists() -> None:
    for curve in (roc, pd_fa_curve):
        for thresholds in ([], 0.5, [[0.5]]):
            with pytest.raises(ValueError, match="thresholds must be a sequence of one or more numbers"):
                curve(GOOD, GOOD, thresholds)


@pytest.mark.parametrize("distance", [0, -1.0, float("nan")])
def test_bad_distance(distance: float) -> None:
    with pytest.raises(ValueError, match=f"max_distance must be > 0 pixels; got {distance}"):
        DetectionMetrics(max_distance=distance)
    for function in (pd_fa, pd_fa_curve):
        with pytest.raises(ValueError, match="max_distance must be > 0"):
            function(GOOD, GOOD, max_distance=distance)


def test_bad_protocol() -> None:
    bad: Any = "Standard"
    with pytest.raises(ValueError, match='protocol must be "standard" or "released"; got \'Standard\''):
        DetectionMetrics(protocol=bad)
    for function in (iou, niou, pd_fa, pd_fa_curve, roc):
        with pytest.raises(ValueError, match="protocol must be"):
            function(GOOD, GOOD, protocol=bad)


def test_no_frames() -> None:
    none = np.zeros((0, 4, 5))
    for function in (iou, niou, pd_fa, pd_fa_curve, roc):
        with pytest.raises(ValueError, match="no frames to measure"):
            function(none, none)
        with pytest.raises(ValueError, match="no frames to measure"):
            function([], [])
    metrics = DetectionMetrics()
    metrics.update(none, none)
    with pytest.raises(ValueError, match=r"call update\(\) before compute\(\)"):
        metrics.compute()


# ---------- the class ----------


def test_reset_forgets() -> None:
    metrics = DetectionMetrics()
    metrics.update(square((0, 0)), square((9, 9)))
    metrics.reset()
    metrics.update(square((9, 9)), square((9, 9)))
    assert metrics.compute() == measure(square((9, 9)), square((9, 9)))


def test_failed_update_adds_nothing() -> None:
    metrics = DetectionMetrics()
    metrics.update(GOOD, GOOD)
    with pytest.raises(ValueError, match="sigmoid"):
        metrics.update([GOOD, GOOD + 2], [GOOD, GOOD])
    assert metrics.compute()["frames"] == 1


def test_merge_through_pickle() -> None:
    probability, target = random_scene(seed=11, frames=4, height=24, width=24)
    parts = [DetectionMetrics(0.6, 2.0, "released") for _ in range(2)]
    parts[0].update(probability[:1], target[:1])
    parts[1].update(probability[1:], target[1:])
    sent = pickle.loads(pickle.dumps(parts[1]))
    parts[0].merge(sent)
    whole = measure(probability, target, threshold=0.6, max_distance=2.0, protocol="released")
    assert repr(parts[0].compute()) == repr(whole)
    assert sent.compute()["frames"] == 3


@pytest.mark.parametrize(
    "other", [DetectionMetrics(0.4), DetectionMetrics(max_distance=2), DetectionMetrics(protocol="released")]
)
def test_merge_refuses_other_settings(other: DetectionMetrics) -> None:
    with pytest.raises(ValueError, match="other must have the same settings; got DetectionMetrics"):
        DetectionMetrics().merge(other)


def test_compute_keys_and_types() -> None:
    values = measure(square((4, 4)), square((4, 4)))
    assert list(values) == [
        "iou",
        "niou",
        "pd",
        "fa",
        "precision",
        "recall",
        "f1",
        "false_components",
        "frames",
        "targets",
    ]
    assert json.loads(json.dumps(values)) == values


def test_docstring_example() -> None:
    result = doctest.testmod(serank.metrics.detection)
    assert result.attempted > 0
    assert result.failed == 0
