"""A checkpoint of the released code on its whole way: converted, published, loaded from the Hub, run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import Hub, lone_client, use  # noqa: F401 - a fixture for every test here
from test_released import network, state_of

from serank import SeRankDet
from serank.checkpoints.card import METRICS, Result, front_matter, read_metadata
from serank.checkpoints.folder import CONFIG, WEIGHTS
from serank.cli.entry import main

# the client's own use of its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "owner/converted"
FRAMES = sorted((Path(__file__).parents[1] / "examples" / "frames").glob("*.png"))[:2]


def test_convert_publish_load_detect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    released, converted = tmp_path / "best_mIoU.pth.tar", tmp_path / "converted"
    torch.save({"epoch": 9, "state_dict": state_of(network())}, released)
    assert main(["convert", str(released), str(converted), "--working-size", "256"]) == 0

    card = converted / "README.md"
    text = card.read_text(encoding="utf-8").partition("\n---\n")[2]
    figures = front_matter("converted", [Result("my-frames", "val", dict.fromkeys(METRICS, 0.5))])
    asked_for = "---\nlicense: apache-2.0\ndatasets: [my-frames]\n"
    card.write_text(figures.replace("---\n", asked_for, 1) + text, encoding="utf-8")

    hub = Hub()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with hub:
        use(monkeypatch, hub.endpoint)
        assert main(["publish", str(converted), NAME]) == 0
        loaded = SeRankDet.from_pretrained(NAME)
        stored = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]
    assert {file: stored[file] for file in (CONFIG, WEIGHTS)} == {
        file: (converted / file).read_bytes() for file in (CONFIG, WEIGHTS)
    }
    assert read_metadata(stored["README.md"].decode()).licence == "apache-2.0"

    original = SeRankDet.from_released(released, working_size=256)
    # an untrained network finds nothing by itself: take its brightest thousandth
    threshold = float(np.quantile(original.detect(FRAMES[0]).probability, 0.999))
    expected = original.detect(list(FRAMES), threshold=threshold)
    found = loaded.detect(list(FRAMES), threshold=threshold)
    assert sum(len(detections) for detections in expected) > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.probability, other.probability)
        assert one.to_dict() == other.to_dict()
