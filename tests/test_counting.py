"""Matching of many components against the plain definition, and how long it takes."""

from __future__ import annotations

import time
from typing import get_args

import numpy as np
import pytest

from serank.evaluation import Evaluator
from serank.metrics import ComponentTable, DetectionMetrics, Protocol
from serank.metrics.components import find_components
from serank.metrics.counting import match_components


def match_by_definition(
    predictions: ComponentTable, targets: ComponentTable, max_distance: float, protocol: Protocol
) -> list[tuple[float, int, int]]:
    """All distances, one target after the other; then the pairs in the protocol's order."""
    pairs = []
    for target, centroid in enumerate(targets.centroids):
        distance = np.sqrt(np.square(predictions.centroids - centroid).sum(axis=1)).round(9)
        near = np.flatnonzero(distance < max_distance)
        pairs += [(float(distance[prediction]), target, int(prediction)) for prediction in near]
    matches: list[tuple[float, int, int]] = []
    detected, taken = set(), set()
    for distance, target, prediction in sorted(pairs) if protocol == "standard" else pairs:
        if target not in detected and prediction not in taken:
            detected.add(target)
            taken.add(prediction)
            matches.append((distance, target, prediction))
    return matches


@pytest.mark.parametrize("protocol", get_args(Protocol))
@pytest.mark.parametrize("reach", [0.5, 1.0, 3.0, 8.0, float("inf")])
@pytest.mark.parametrize("side", [20, 60])
def test_matches_are_those_of_the_definition(protocol: Protocol, reach: float, side: int) -> None:
    rng = np.random.default_rng(side)
    predictions, targets = (find_components(rng.random((side, side)) < 0.07) for _ in range(2))
    expected = match_by_definition(predictions, targets, reach, protocol)
    assert match_components(predictions, targets, reach, protocol) == expected
    assert len(expected) > 0 or reach == 0.5


@pytest.mark.parametrize("side", [200, 512])
def test_very_many_components_are_matched_in_seconds(side: int) -> None:
    """40,000 of them and 262,144."""
    mask = np.zeros((2 * side, 2 * side), np.bool_)
    mask[::2, ::2] = True
    metrics = DetectionMetrics()
    start = time.process_time()
    metrics.update(mask, mask)
    assert time.process_time() - start < 5
    values = metrics.compute()
    assert (values["targets"], values["pd"], values["fa"]) == (side * side, 1, 0)


def test_a_frame_of_noise_is_measured_in_seconds() -> None:
    """40,000 components, each with nine candidates, at every threshold of the curves."""
    side = 200
    probability, target = np.zeros((2 * side, 2 * side), np.float32), np.zeros((2 * side, 2 * side), np.bool_)
    probability[::2, ::2] = np.random.default_rng(0).uniform(0.5, 1, (side, side))
    target[::2, ::2] = True
    start = time.process_time()
    evaluator = Evaluator()
    evaluator.update("noise", probability, target)
    result = evaluator.result()
    assert time.process_time() - start < 5
    assert (result.metrics["pd"], result.metrics["fa"], result.metrics["targets"]) == (1, 0, side * side)
