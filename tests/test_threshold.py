"""Choosing a threshold for a false-alarm budget, and keeping it with the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serank import SeRankDet
from serank.datasets import Sample
from serank.evaluation import Curves, choose_threshold, evaluate, pick_threshold, predict_sample
from serank.evaluation.threshold import CANDIDATES
from serank.metrics import DetectionMetrics
from serank.synthetic import SyntheticScenes


def curve(
    thresholds: list[float], fa: list[float], components: list[float] | None = None, pd: list[float] | None = None
) -> Curves:
    empty = np.zeros(len(thresholds))
    return Curves(
        thresholds=np.array(thresholds),
        tpr=empty,
        fpr=empty,
        auc=0.5,
        pd=1 - np.array(thresholds) if pd is None else np.array(pd),
        fa=np.array(fa),
        auc_error=0.0,
        false_components=empty if components is None else np.array(components),
    )


class Spread(SeRankDet):
    """Logits that spread over several units by the frame's grey values, so that thresholds matter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 6 * x[:, :1]


@pytest.fixture
def model() -> SeRankDet:
    return Spread(width=2, mean=0.5, std=0.25)


def scenes() -> list[Sample]:
    return list(SyntheticScenes(6, 40, 48, targets=(0, 2), size=(2, 5), scr=(5, 30), seed=3))


def test_the_lowest_within_the_budget() -> None:
    found = pick_threshold(curve([0.1, 0.5, 0.9, 0.99], [4e-3, 2e-3, 1e-3, 0]), false_alarms=2e-3)
    assert (found.threshold, found.fa, found.pd) == (0.5, 2e-3, 0.5)
    assert found.false_components == 0


def test_thresholds_in_any_order() -> None:
    found = pick_threshold(curve([0.9, 0.1, 0.99, 0.5], [1e-3, 4e-3, 0, 2e-3]), false_alarms=1e-3)
    assert found.threshold == 0.9


def test_a_lower_one_that_meets_it_by_chance_does_not_count() -> None:
    # at 0.1 all false alarms have grown into one component, over the targets too
    thresholds, components = [0.1, 0.5, 0.9, 0.95], [1.0, 7.0, 0.5, 0.4]
    for pd in ([0.2, 0.9, 0.8, 0.8], [np.nan] * 4):
        found = pick_threshold(curve(thresholds, [0.0] * 4, components, pd), false_alarms=1, per="frame")
        assert (found.threshold, found.false_components) == (0.9, 0.5)


@pytest.mark.parametrize("pd", [[0.9, 0.9, 0.9, 0.5], [np.nan] * 4])
def test_a_higher_one_that_exceeds_it_does_not_count_either(pd: list[float]) -> None:
    # a target that falls apart at 0.99 makes a false alarm
    found = pick_threshold(curve([0.1, 0.5, 0.9, 0.99], [4e-3, 1e-3, 1e-3, 2e-3], pd=pd), false_alarms=1e-3)
    assert (found.threshold, found.fa) == (0.5, 1e-3)


def test_a_detection_more_is_worth_a_higher_threshold() -> None:
    found = pick_threshold(curve([0.1, 0.5, 0.9], [1e-3, 1e-3, 1e-3], pd=[0.8, 0.9, 0.9]), false_alarms=1e-3)
    assert (found.threshold, found.pd) == (0.5, 0.9)


def test_without_targets_it_need_not_be_below_a_half() -> None:
    found = pick_threshold(curve([0.1, 0.5, 0.9], [1e-3, 0.0, 0.0], pd=[np.nan] * 3), false_alarms=1e-3)
    assert found.threshold == 0.5
    assert np.isnan(found.pd)
    assert pick_threshold(curve([0.1, 0.3], [1.0, 0.0], pd=[np.nan] * 2), false_alarms=0).threshold == 0.3
    assert pick_threshold(curve([0.5, 0.8, 0.9], [1.0, 0.0, 0.0], pd=[np.nan] * 3), false_alarms=0).threshold == 0.8


def test_of_equals_the_nearest_to_a_half() -> None:
    cuts = [0.001, 0.2, 0.45, 0.7, 0.99]
    for fa, expected in (([0.0] * 5, 0.45), ([1.0, 1.0, 1.0, 0.0, 0.0], 0.7), ([0.0, 0.0, 1.0, 1.0, 1.0], 0.2)):
        assert pick_threshold(curve(cuts, fa, pd=[0.9] * 5), false_alarms=0).threshold == expected
    # a detection more is worth more than being near to a half
    assert pick_threshold(curve(cuts, [0.0] * 5, pd=[0.9, 0.9, 0.8, 0.8, 0.1]), false_alarms=0).threshold == 0.2


def test_all_and_nothing_are_no_thresholds() -> None:
    found = pick_threshold(curve([0.0, 0.3, 1.0], [0.0, 0.0, 0.0]), false_alarms=0)
    assert found.threshold == 0.3
    with pytest.raises(ValueError, match=r"within 1e-05 false pixels per pixel: the fewest are 0\.002, above 0\.3;"):
        pick_threshold(curve([0.0, 0.3, 1.0], [1.0, 2e-3, 0.0]), false_alarms=1e-5)
    with pytest.raises(ValueError, match=r"within 0\.1 false components per frame: the fewest are 2, above 0\.3;"):
        pick_threshold(curve([0.3, 1.0], [1.0, 0.0], [2.0, 0.0]), false_alarms=0.1, per="frame")


def test_wrong_arguments() -> None:
    bad: Any = "image"
    with pytest.raises(ValueError, match='per must be "pixel" or "frame"; got \'image\''):
        pick_threshold(curve([0.5], [0.0]), false_alarms=0, per=bad)
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="false_alarms must be >= 0 and finite"):
            pick_threshold(curve([0.5], [0.0]), false_alarms=value)
    with pytest.raises(ValueError, match="curve has no threshold between 0 and 1"):
        pick_threshold(curve([0.0, 1.0], [1.0, 0.0]), false_alarms=0)


def test_candidates_are_fine_on_the_logit_scale() -> None:
    values = np.array(CANDIDATES)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, values.astype(np.float32))
    logits = np.log(values) - np.log1p(-values)
    assert (logits[0], logits[-1]) == (pytest.approx(-10, abs=1e-3), pytest.approx(16, abs=0.1))
    assert np.diff(logits)[logits[1:] < 12].max() < 0.11


@pytest.mark.parametrize(("per", "key", "budget"), [("pixel", "fa", 2e-3), ("frame", "false_components", 1.0)])
def test_chosen_threshold_meets_the_budget_and_the_next_does_not(
    model: SeRankDet, per: Any, key: str, budget: float
) -> None:
    before = model.threshold
    found = choose_threshold(model, scenes(), false_alarms=budget, per=per)
    assert model.threshold == before

    def figure(threshold: float) -> dict[str, float]:
        metrics = DetectionMetrics(threshold)
        for sample in scenes():
            metrics.update(predict_sample(model, sample)[1], sample.mask)
        return metrics.compute()

    at = figure(found.threshold)
    assert at[key] <= budget
    assert (found.pd, found.fa, found.false_components) == (at["pd"], at["fa"], at["false_components"])
    place = CANDIDATES.index(found.threshold)
    assert figure(CANDIDATES[place - 1])[key] > budget
    assert list(found.curve.thresholds) == list(CANDIDATES)


def test_a_detector_that_is_always_sure_of_its_errors(model: SeRankDet) -> None:
    frame = np.full((32, 32), 0.1, np.float32)
    frame[5, 5] = 1e4  # a logit that rounds to a score of exactly 1
    sample = Sample("sure", frame, np.zeros((32, 32), np.bool_))
    with pytest.raises(ValueError, match="no threshold keeps false alarms within 0 false pixels per pixel"):
        choose_threshold(model, [sample], false_alarms=0)


def test_the_checkpoint_carries_the_threshold(tmp_path: Path) -> None:
    model = SeRankDet(width=2)
    model.threshold = CANDIDATES[200]
    model.save_pretrained(tmp_path)
    again = SeRankDet.from_pretrained(tmp_path)
    assert again.threshold == model.threshold == CANDIDATES[200]
    assert again.config["threshold"] == CANDIDATES[200]
    assert again.detect(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)).threshold == CANDIDATES[200]
    assert evaluate(again, scenes()[:1], curves=False).threshold == CANDIDATES[200]
    with pytest.raises(ValueError, match="threshold must lie in"):
        model.threshold = 1.5
    assert model.threshold == CANDIDATES[200]
