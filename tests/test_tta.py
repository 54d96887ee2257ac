"""Test-time augmentation: the mean over turned frames, and results that turn with the frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import Sample
from serank.evaluation import PredictionFolder, evaluate, predict_sample
from serank.inference import write_detections

Float = NDArray[np.float32]
FLIPS: list[tuple[int, ...]] = [(), (0,), (1,), (0, 1)]


@pytest.fixture(scope="module")
def model() -> SeRankDet:
    return SeRankDet.from_pretrained("sirst")


def frame(height: int = 50, width: int = 70) -> Float:
    values = np.random.default_rng(0).random((height, width), dtype=np.float32) / np.float32(2)
    values[20:23, 30:33] = 1
    return values


@pytest.mark.parametrize("options", [{}, {"working_size": 64}, {"working_size": None, "tile": 48, "overlap": 16}])
@pytest.mark.parametrize("fast", [False, True])
def test_it_is_the_mean_over_plain_calls(model: SeRankDet, options: dict[str, Any], fast: bool) -> None:
    chosen = model.reconfigured(**options)
    network = chosen.optimize() if fast else chosen
    x = frame()
    flips = [np.flip(network.detect(np.flip(x, axes)).probability, axes) for axes in FLIPS]
    turned = []
    for turns in range(4):
        for part in (x, x.T):
            found = np.rot90(network.detect(np.rot90(part, turns)).probability, -turns)
            turned.append(found if part is x else found.T)
    np.testing.assert_allclose(network.detect(x, tta=4).probability, np.mean(flips, 0), atol=1e-5)
    np.testing.assert_allclose(network.detect(x, tta=8).probability, np.mean(turned, 0), atol=1e-5)
    assert np.abs(np.mean(turned, 0) - network.detect(x, tta=1).probability).max() > 1e-4


def test_a_turned_frame_gives_the_turned_result(model: SeRankDet) -> None:
    x = frame()
    expected = model.detect(x, tta=8).probability
    for turns in range(4):
        found = model.detect(np.rot90(x, turns), tta=8).probability
        np.testing.assert_allclose(found, np.rot90(expected, turns), atol=1e-6, rtol=0)
    np.testing.assert_allclose(model.detect(x.T, tta=8).probability, expected.T, atol=1e-6, rtol=0)


def test_lists_of_frames_of_several_shapes(model: SeRankDet) -> None:
    frames = [frame(), frame(70, 50), frame(40, 40)]
    for x, found in zip(frames, model.detect(frames, tta=8), strict=True):
        np.testing.assert_allclose(found.probability, model.detect(x, tta=8).probability, atol=1e-5)


def test_the_checkpoint_says_how_many(model: SeRankDet, tmp_path: Path) -> None:
    model.reconfigured(tta=8).save_pretrained(tmp_path)
    loaded, x = SeRankDet.from_pretrained(tmp_path), frame()
    assert loaded.config["tta"] == loaded.tta == loaded.optimize().tta == 8
    expected = model.detect(x, tta=8).probability
    np.testing.assert_array_equal(loaded.detect(x).probability, expected)
    sample = Sample("a", x, x > 0.9)
    np.testing.assert_array_equal(predict_sample(loaded, sample)[1], expected)
    assert evaluate(loaded, [sample]).metrics == evaluate(model, [sample], tta=8).metrics
    np.testing.assert_array_equal(predict_sample(loaded, sample, tta=1)[1], model.detect(x).probability)


@pytest.mark.parametrize("tta", [0, 2, 16, True, 8.0, "8"])
def test_other_numbers_are_refused(model: SeRankDet, tmp_path: Path, tta: Any) -> None:
    with pytest.raises(ValueError, match="tta must be 1"):
        model.detect(frame(), tta=tta)
    with pytest.raises(ValueError, match="tta must be 1, 4 or 8"):
        SeRankDet(width=2, tta=tta)


def test_maps_of_detect_are_predictions_of_evaluate(model: SeRankDet, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    Image.fromarray(np.rint(255 * frame()).astype(np.uint8)).save(tmp_path / "data" / "images" / "a.png")
    Image.fromarray((255 * (frame() > 0.9)).astype(np.uint8)).save(tmp_path / "data" / "masks" / "a.png")
    file = str(tmp_path / "data" / "images" / "a.png")
    command = ["detect", file, "--checkpoint", "sirst", "--tta", "4", "--output", str(tmp_path / "out")]
    assert main([*command, "--probability", str(tmp_path / "maps"), "--no-pictures"]) == 0
    pair = PredictionFolder(tmp_path / "maps", tmp_path / "data").load("a")
    np.testing.assert_allclose(pair.probability, model.detect(file, tta=4).probability, atol=0.51 / 255)
    with pytest.raises(ValueError, match=r"probability .* holds the frames"):
        write_detections(model, [file], tmp_path / "out", probability=tmp_path / "data" / "images")
