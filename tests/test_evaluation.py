"""The evaluator: its totals are those of the metrics, targets and groups are right, and splits change nothing."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from serank.datasets.masks import resize_mask
from serank.evaluation import AREA_BINS, DEFAULT_THRESHOLDS, SCR_BINS, Evaluation, Evaluator
from serank.evaluation.resolution import check_resolution
from serank.metrics import (
    CURVE_THRESHOLDS,
    DetectionMetrics,
    Protocol,
    component_table,
    label_components,
    pd_fa_curve,
    roc,
)
from serank.metrics.components import find_components
from serank.metrics.roc_auc import BINS, ScoreHistogram
from serank.synthetic import BACKGROUNDS, make_scene

Array = NDArray[Any]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
DATA = Path(__file__).parent / "data"
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in json.loads((DATA / "metric_cases.json").read_text())}


def evaluated(probability: Any, target: Any, frames: Any = None, **settings: Any) -> Evaluation:
    evaluator = Evaluator(**settings)
    for i, (p, t) in enumerate(zip(probability, target, strict=True)):
        evaluator.update(f"frame{i}", p, t, None if frames is None else frames[i])
    return evaluator.result()


def measured(probability: Any, target: Any, **settings: Any) -> dict[str, float]:
    metrics = DetectionMetrics(**settings)
    metrics.update(probability, target)
    return metrics.compute()


def random_scenes(seed: int, frames: int = 3, height: int = 20, width: int = 24) -> tuple[Array, Array]:
    """Small blobs, most of them found, with scores that crowd near 0 and 1 as the soft IoU loss makes them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-6, 2, (frames, height, width))
    target = np.zeros(logits.shape, np.bool_)
    for frame in range(frames):
        for _ in range(rng.integers(0, 4)):
            row, column = rng.integers(0, height), rng.integers(0, width)
            target[frame, row : row + 3, column : column + 2] = True
            logits[frame, row : row + 2, column : column + 3] = rng.normal(5, 4)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), target


# ---------- totals ----------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CASES)
def test_stored_cases(name: str, protocol: Protocol) -> None:
    with np.load(DATA / "metric_cases.npz") as arrays:
        probability, target = 1 / (1 + np.exp(-arrays[f"logits_{name}"])), arrays[f"masks_{name}"]
    result = evaluated(probability, target, protocol=protocol, thresholds=CURVE_THRESHOLDS)
    expected = CASES[name][protocol]
    assert result.metrics["iou"] * 100 == pytest.approx(expected["IoU"], abs=1e-6)
    assert result.metrics["niou"] * 100 == pytest.approx(expected["nIoU"], abs=1e-6)
    assert result.metrics["pd"] * 100 == pytest.approx(expected["Pd"], abs=1e-6)
    assert result.metrics["fa"] * 1e6 == pytest.approx(expected["Fa"], abs=1e-6)
    same = measured(probability, target, protocol=protocol)
    assert {key: result.metrics[key] for key in same} == pytest.approx(same, abs=0, nan_ok=True)
    assert result.curves is not None
    if protocol == "released":
        np.testing.assert_allclose(result.curves.tpr, expected["tpr"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.curves.fpr, expected["fpr"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_totals_and_curves_are_those_of_the_metrics(protocol: Protocol, kind: type[np.floating]) -> None:
    for seed in range(5):
        probability, target = random_scenes(seed)
        probability = probability.astype(kind)
        result = evaluated(probability, target, threshold=0.4, max_distance=2.0, protocol=protocol)
        same = measured(probability, target, threshold=0.4, max_distance=2.0, protocol=protocol)
        assert {key: result.metrics[key] for key in same} == pytest.approx(same, abs=0, nan_ok=True)
        curve = pd_fa_curve(probability, target, DEFAULT_THRESHOLDS, max_distance=2.0, protocol=protocol)
        rates = roc(probability, target, DEFAULT_THRESHOLDS, protocol=protocol)
        assert result.curves is not None
        for found, expected in zip(
            (result.curves.pd, result.curves.fa, result.curves.tpr, result.curves.fpr), (*curve, *rates), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
        scores = zip(probability, target, result.frames, strict=True)
        for p, t, frame in scores:
            alone = measured(p, t, threshold=0.4, max_distance=2.0, protocol=protocol)
            assert (frame.iou, frame.targets) == (alone["niou"], alone["targets"])
            assert frame.false_pixels == round(alone["fa"] * t.size)
            assert frame.false_components == alone["false_components"]
            assert (frame.predicted_pixels, frame.target_pixels) == ((p > kind(0.4)).sum(), t.sum())
            assert frame.true_pixels == ((p > kind(0.4)) & t).sum()
            assert (frame.peak, frame.height, frame.width) == (p.max(), *t.shape)
        assert sum(target.detected for target in result.targets) == sum(frame.detected for frame in result.frames)


def test_false_components_of_the_curve_are_those_at_the_threshold() -> None:
    probability, target = random_scenes(2)
    curves = evaluated(probability, target, thresholds=[0.1, 0.01, 0.9]).curves
    assert curves is not None
    assert curves.false_components is not None
    for threshold, found in zip(curves.thresholds, curves.false_components, strict=True):
        assert found == measured(probability, target, threshold=threshold)["false_components"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(0, 0.7))
def test_cropped_components_are_the_same(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.bool_)
    row, column = rng.integers(0, height), rng.integers(0, width)
    mask[row:, column:] = rng.random((height - row, width - column)) < share
    expected, found = component_table(*label_components(mask)), find_components(mask)
    np.testing.assert_array_equal(found.areas, expected.areas)
    np.testing.assert_array_equal(found.centroids, expected.centroids)
    np.testing.assert_array_equal(found.boxes, expected.boxes)


# ---------- area under the ROC ----------


def exact_auc(probability: Array, target: Array) -> float:
    """By ranks (Mann-Whitney)."""
    ranks = stats.rankdata(probability.ravel())[target.ravel()]
    positive = len(ranks)
    return float((ranks.sum() - positive * (positive + 1) / 2) / (positive * (target.size - positive)))


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32, np.float64]))
def test_auc_is_within_its_bound(seed: int, kind: type[np.floating]) -> None:
    probability, target = random_scenes(seed)
    target[0, 0, 0] = True
    probability = probability.astype(kind)
    histogram = ScoreHistogram()
    for p, t in zip(probability, target, strict=True):
        histogram.add(p, t)
    area, bound = histogram.auc()
    assert abs(area - exact_auc(probability, target)) <= bound + 1e-12
    assert bound < 0.01


def test_auc_of_values_that_bins_tell_apart_is_exact() -> None:
    probability = np.array([[0.0, -0.0, 1e-30, 0.25, 0.5, 0.75, 1.0, 1.0]])
    target = np.array([[0, 1, 0, 1, 0, 1, 0, 1]]) > 0
    histogram = ScoreHistogram()
    histogram.add(probability, target)
    area, bound = histogram.auc()
    assert area == exact_auc(probability, target)
    # the ties of 0 and of 1 are true ones, which the bound can't know
    assert bound == 2 / 16 / 2
    assert BINS == 16257


@pytest.mark.parametrize("value", [False, True])
def test_auc_needs_both_classes(value: bool) -> None:
    histogram = ScoreHistogram()
    histogram.add(np.full((2, 2), 0.5), np.full((2, 2), value))
    assert math.isnan(histogram.auc()[0])


def test_default_thresholds_resolve_saturated_scores() -> None:
    assert list(DEFAULT_THRESHOLDS) == sorted(set(DEFAULT_THRESHOLDS))
    assert set(CURVE_THRESHOLDS) <= set(DEFAULT_THRESHOLDS)
    inner = np.array(DEFAULT_THRESHOLDS[1:-1])
    assert np.diff(np.log(inner / (1 - inner))).max() <= 0.5 + 1e-9
    assert inner[0] < 1e-4
    assert inner[-1] > 1 - 1e-4


# ---------- targets ----------


def test_targets_tell_where_and_what() -> None:
    target, probability = np.zeros((20, 30)), np.zeros((20, 30))
    target[2:4, 5:8] = 1  # found one pixel below
    probability[3:5, 5:8] = 0.8
    target[15, 20] = 1  # missed, though not black
    probability[15, 20] = 0.3
    found, missed = evaluated([probability], [target]).targets
    assert (found.frame, found.x, found.y, found.area, found.detected) == ("frame0", 6, 2.5, 6, True)
    assert (found.distance, found.probability) == (1, 0.8)
    assert (missed.x, missed.y, missed.area, missed.detected, missed.probability) == (20, 15, 1, False, 0.3)
    assert math.isnan(missed.distance)
    assert math.isnan(found.scr)
    far = evaluated([probability], [target], max_distance=0.5)
    assert [t.detected for t in far.targets] == [False, False]


def test_signal_to_clutter_by_hand() -> None:
    rng = np.random.default_rng(0)
    frame = (0.3 + 0.02 * rng.standard_normal((64, 64))).astype(np.float32)
    mask = np.zeros((64, 64), np.bool_)
    mask[30:33, 1:4] = True  # at the left border: size ceil(3.39) = 4, so 12 px around (31, 2)
    mask[40, 10] = True  # within the window of the first
    mask[31, 17] = True  # outside, but its guard reaches in
    frame[mask] = 0.8
    frame[31, 2] = 0.9
    frame[31, 15] = 0.6  # glow of the one outside, in its guard
    scr = [t.scr for t in evaluated([np.zeros((64, 64))], [mask], [frame]).targets]
    known = np.ones((64, 64), np.bool_)
    for rows, columns in (((28, 35), (0, 6)), ((38, 43), (8, 13)), ((29, 34), (15, 20))):
        known[slice(*rows), slice(*columns)] = False
    window = np.zeros_like(known)
    window[31 - 12 : 31 + 13, 0 : 2 + 13] = True
    values = frame[known & window].astype(np.float64)
    assert scr[0] == pytest.approx((np.float32(0.9) - values.mean()) / values.std(), rel=1e-9)


def test_signal_to_clutter_is_that_of_synthetic_scenes() -> None:
    ratios = []
    for seed in range(20):
        scene = make_scene(96, 96, background=BACKGROUNDS[seed % 4], size=(1, 8), scr=(3, 30), seed=seed)
        (found,) = evaluated([scene.mask], [scene.mask], [scene.frame]).targets
        ratios.append(found.scr / scene.targets[0].scr)
    assert 0.9 < np.median(ratios) < 1.05
    assert min(ratios) > 0.7
    assert max(ratios) < 1.3


def test_signal_to_clutter_on_flat_and_full_frames() -> None:
    mask = np.zeros((32, 32), np.bool_)
    mask[16, 16] = True
    frame = np.where(mask, 0.6, 0.1)
    (found,) = evaluated([mask], [mask], [frame]).targets
    assert found.scr == pytest.approx(0.5 / 0.005)
    full = np.ones((32, 32), np.bool_)
    result = evaluated([full], [full], [frame])
    assert math.isnan(result.targets[0].scr)
    assert result.by_scr == []


def test_groups_hold_every_target_once() -> None:
    for bins in (AREA_BINS, SCR_BINS):
        assert all(high == low for (_, _, high), (_, low, _) in itertools.pairwise(bins))
        assert bins[-1][2] == math.inf
    mask = np.zeros((60, 60), np.bool_)
    mask[0:2, 0:2] = mask[10, 0:5] = mask[20:24, 0:5] = mask[30:33, 0:7] = mask[40:49, 0:9] = True  # 4 5 20 21 81
    found = mask.copy()
    found[20:24] = False
    frame = np.full((60, 60), 0.1)
    frame[0, 0] = 0.1 + 2 * 0.005 + 1e-9
    result = evaluated([found], [mask], [frame])
    counted = {g.label: (g.targets, g.detected) for g in result.by_area}
    assert counted == {
        "1-4 px": (1, 1),
        "5-9 px": (1, 1),
        "10-20 px": (1, 0),
        "21-40 px": (1, 1),
        "41-80 px": (0, 0),
        ">80 px": (1, 1),
    }
    assert math.isnan(result.by_area[4].pd)
    assert result.by_area[2].pd == 0
    assert {g.label: g.targets for g in result.by_scr} == {"<2": 4, "2-4": 1, "4-8": 0, "8-16": 0, ">=16": 0}


# ---------- sets without targets ----------


def test_a_set_without_targets() -> None:
    probability = np.zeros((2, 16, 16))
    probability[0, 3:5, 3] = probability[0, 9, 9] = 0.9
    result = evaluated(probability, np.zeros((2, 16, 16)), np.zeros((2, 16, 16)))
    assert math.isnan(result.metrics["pd"])
    assert (result.metrics["targets"], result.metrics["empty_frames"]) == (0, 2)
    assert result.metrics["empty_false_components"] == 1
    assert result.metrics["fa"] == 3 / 512
    assert (result.targets, result.by_area, result.by_scr) == ([], [], [])
    assert result.curves is not None
    assert math.isnan(result.curves.auc)
    assert np.isnan(result.curves.pd).all()
    json.dumps(result.to_dict(), allow_nan=False)


def test_empty_frames_are_counted_apart() -> None:
    mask = np.zeros((3, 8, 8), np.bool_)
    mask[1, 2, 2] = True
    probability = np.zeros((3, 8, 8))
    probability[1, 6, 6] = probability[2, 1, 1] = probability[2, 5, 5] = 1
    metrics = evaluated(probability, mask).metrics
    assert (metrics["empty_frames"], metrics["empty_false_components"], metrics["false_components"]) == (2, 1, 1)
    metrics = evaluated(probability[1:2], mask[1:2]).metrics
    assert metrics["empty_frames"] == 0
    assert math.isnan(metrics["empty_false_components"])


# ---------- the class ----------


def test_any_split_and_order_gives_the_same() -> None:
    probability, target = random_scenes(7, frames=7)
    whole = Evaluator()
    parts = [Evaluator(), Evaluator(), Evaluator()]
    for i in range(7):
        whole.update(str(i), probability[i], target[i], probability[i])
    for i in (6, 2, 0, 5, 1, 3, 4):
        parts[i % 2].update(str(i), probability[i], target[i], probability[i], position=i)
    sent = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        sent.merge(part)
    assert sent.result().to_dict() == whole.result().to_dict()
    assert [f.name for f in sent.result().frames] == list("0123456")
    assert len(parts[1].result().frames) == 3


def test_frames_without_a_position_keep_the_order_of_the_calls() -> None:
    evaluator = Evaluator(curves=False)
    for name, position in (("c", None), ("b", 1), ("d", None), ("a", 0)):
        evaluator.update(name, np.zeros((2, 2)), np.zeros((2, 2)), position=position)
    assert [f.name for f in evaluator.result().frames] == ["a", "b", "c", "d"]
    assert evaluator.result().curves is None


@pytest.mark.parametrize("settings", [{"threshold": 0.4}, {"curves": False}, {"thresholds": [0.5]}])
def test_merge_refuses_other_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="other must have the same settings"):
        Evaluator().merge(Evaluator(**settings))


def test_a_failed_update_adds_nothing() -> None:
    evaluator = Evaluator()
    good = np.zeros((4, 4))
    evaluator.update("good", good, good)
    before = evaluator.result().to_dict()
    with pytest.raises(ValueError, match="sigmoid"):
        evaluator.update("logits", good + 3, good)
    with pytest.raises(ValueError, match="two: expected one frame"):
        evaluator.update("two", np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"size: frame must have the mask's shape \(4, 4\); got \(4, 5\)"):
        evaluator.update("size", good, good, np.zeros((4, 5)))
    assert evaluator.result().to_dict() == before


def test_wrong_arguments() -> None:
    bad: Any = "Standard"
    with pytest.raises(ValueError, match="threshold must lie in"):
        Evaluator(1.5)
    with pytest.raises(ValueError, match="max_distance must be > 0"):
        Evaluator(max_distance=0)
    with pytest.raises(ValueError, match="protocol must be"):
        Evaluator(protocol=bad)
    with pytest.raises(ValueError, match="thresholds must lie in"):
        Evaluator(thresholds=[2.0])
    with pytest.raises(ValueError, match="no frames to measure"):
        Evaluator().result()
    for wrong in ("512", 31, 0, True, 64.5, 4097):
        value: Any = wrong
        with pytest.raises(ValueError, match='resolution must be "native" or a side'):
            check_resolution(value)
    assert (check_resolution("native"), check_resolution(512)) == ("native", 512)


def test_to_dict_is_json() -> None:
    probability, target = random_scenes(3)
    result = Evaluator.result(_filled(probability, target), resolution=256, about={"a": "b"}, problems=["odd"])
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["resolution"] == "256"
    assert (plain["about"], plain["problems"]) == ({"a": "b"}, ["odd"])
    assert plain["metrics"]["iou"] == result.metrics["iou"]
    assert plain["targets"][0]["scr"] is None
    assert plain["by_area"][-1]["high"] is None
    assert plain["by_area"][0]["pd"] == (None if math.isnan(result.by_area[0].pd) else result.by_area[0].pd)
    assert result.curves is not None
    assert plain["curves"]["fa"] == result.curves.fa.tolist()
    assert len(plain["frames"]) == 3


def _filled(probability: Array, target: Array) -> Evaluator:
    evaluator = Evaluator()
    for i, (p, t) in enumerate(zip(probability, target, strict=True)):
        evaluator.update(str(i), p, t)
    return evaluator


def test_masks_are_resized_by_nearest() -> None:
    mask = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(resize_mask(mask, 4, 6), np.kron(mask, np.ones((2, 3))) > 0)
    np.testing.assert_array_equal(resize_mask(mask, 2, 2), mask)
