"""Scores that say how often a detection is true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import FolderDataset, write_folder
from serank.evaluation import (
    Evaluator,
    calibrate_scores,
    evaluate,
    expected_calibration_error,
    fit_calibration,
    pick_score,
)
from serank.inference import find_detections
from serank.synthetic import SyntheticScenes


def test_the_fit_finds_the_law_of_the_data() -> None:
    rng = np.random.default_rng(0)
    odds = rng.uniform(0, 10, 20000)
    true = rng.random(20000) < 1 / (1 + np.exp(-(-2 + 0.5 * odds)))
    intercept, weight = fit_calibration(1 / (1 + np.exp(-odds)), true)
    assert (intercept, weight) == pytest.approx((-2, 0.5), abs=0.1)


def test_the_fit_is_finite_where_peaks_tell_all_apart_or_nothing_is_false() -> None:
    peaks = np.array([0.6, 0.7, 0.999, 1.0])
    for true in ([False, False, True, True], [True] * 4, [True, True, False, False]):
        intercept, weight = fit_calibration(peaks, np.array(true))
        assert np.isfinite(intercept)
        assert 0 <= weight < 100
    with pytest.raises(ValueError, match="no detection to calibrate by"):
        fit_calibration(np.zeros(0), np.zeros(0, np.bool_))


def test_calibrated_scores_of_detections() -> None:
    probability = np.zeros((20, 20), np.float32)
    probability[2, 2], probability[10, 10] = 0.9, 0.6
    plain = find_detections(probability, probability)
    found = find_detections(probability, probability, calibration=(-1.0, 0.5))
    expected = [1 / (1 + np.exp(1 - 0.5 * np.log(p / (1 - p)))) for p in (0.9, 0.6)]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.mask, plain.mask)
    np.testing.assert_array_equal(found.probability, plain.probability)
    kept = find_detections(probability, probability, min_score=0.45, calibration=(-1.0, 0.5))
    assert (len(kept), int(kept.mask.sum())) == (1, 1)


def test_error_reliability_and_roc() -> None:
    evaluator = Evaluator(0.5, curves=False)
    for i, (peak, hit) in enumerate([(0.95, True), (0.95, False), (0.65, False), (0.85, True)]):
        probability, mask = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.bool_)
        probability[4, 4], mask[4, 4] = peak, hit
        evaluator.update(str(i), probability, mask)
    result = evaluator.result()
    assert result.detections.true.tolist() == [True, False, False, True]
    quality = result.score_quality
    assert quality is not None
    assert quality.ece == pytest.approx((0.65 + 0.15 + 2 * 0.45) / 4)
    assert quality.counts.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 1, 2]
    assert quality.auc == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert expected_calibration_error(result.detections.scores, result.detections.true) == quality.ece
    one = pick_score(result, false_alarms=0.25, per="frame")
    assert one.min_score == pytest.approx(0.85)
    assert (one.pd, one.false_components) == (1.0, 0.25)
    assert pick_score(result, false_alarms=0.5, per="frame").min_score == 0
    with pytest.raises(ValueError, match="no score keeps false alarms within 0"):
        pick_score(result, false_alarms=0.0)
    with pytest.raises(ValueError, match="evaluation must be of the standard protocol; got 'released'"):
        pick_score(replace(result, protocol="released"), false_alarms=1.0)
    with pytest.raises(ValueError, match="per must be"):
        pick_score(result, false_alarms=0.0, per="target")  # type: ignore[arg-type]


def test_bad_calibrations() -> None:
    for bad in ([1.0], [0.0, -1.0], [0.0, 1.0, 2.0]):
        with pytest.raises(ValueError, match="score_calibration"):
            SeRankDet(width=2, score_calibration=bad)
    model = SeRankDet(width=2)
    with pytest.raises(ValueError, match="weight >= 0"):
        model.score_calibration = (0.0, -1.0)
    assert model.score_calibration is None


def test_the_command_calibrates_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = list(SyntheticScenes(6, 96, 96, targets=(1, 2), size=(3, 6), scr=(2, 20), noise=0.03, seed=4))
    write_folder(scenes, tmp_path / "data", split="val")
    command = ["evaluate", str(tmp_path / "data"), "--split", "val", "--checkpoint", "sirst", "--calibrate"]
    assert main([*command, "--save", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr()
    assert "scores calibrated on" in said.out
    assert "false detections, with an error of" in said.err  # hardly any in these easy frames
    model = SeRankDet.from_pretrained(tmp_path / "mine")
    base = SeRankDet.from_pretrained("sirst")
    fitted = calibrate_scores(base.optimize(), FolderDataset(tmp_path / "data", "val"))
    assert model.config["score_calibration"] == pytest.approx(list(fitted.calibration), rel=1e-3)
    assert model.optimize().score_calibration == model.score_calibration
    assert "## Scores of this copy" in (tmp_path / "mine" / "README.md").read_text()
    before, after = (evaluate(m, scenes, curves=False) for m in (base, model))
    assert before.metrics == after.metrics
    assert not np.allclose(before.detections.scores, after.detections.scores)
    assert replace(after, about={}).to_dict()["score_quality"]["ece"] == after.score_quality.ece  # type: ignore[union-attr]
    assert main([*command, "--threshold", "0.5"]) == 1
    assert "exclude each other" in capsys.readouterr().err
