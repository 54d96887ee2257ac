"""The bundled checkpoint at work: on the sample frames, on large frames, and against its model card."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serank import Detections, SeRankDet
from serank.checkpoints import bundled
from serank.datasets import FolderDataset
from serank.evaluate import evaluate

FRAMES = Path(__file__).parents[1] / "examples" / "frames"
PLANTED = {entry["file"]: entry for entry in json.loads((FRAMES / "targets.json").read_text())["frames"]}


@pytest.fixture(scope="module")
def model() -> SeRankDet:
    return SeRankDet.from_pretrained("sirst")


def distance(found: Detections, x: float, y: float) -> float:
    """From (x, y) to the nearest detection's centroid, in pixels."""
    return float(np.hypot(found.centroids[:, 0] - x, found.centroids[:, 1] - y).min(initial=np.inf))


@pytest.mark.parametrize("file", PLANTED)
def test_planted_targets_are_found(model: SeRankDet, file: str) -> None:
    found = model.detect(FRAMES / file)
    targets = PLANTED[file]["targets"]
    for target in targets:
        assert distance(found, target["x"], target["y"]) < 3
    assert len(found) <= len(targets) + 1


@pytest.mark.parametrize("tile", [384, 512])
@pytest.mark.parametrize("file", [f for f, entry in PLANTED.items() if max(entry["width"], entry["height"]) >= 640])
def test_tiling_changes_no_detection(model: SeRankDet, file: str, tile: int) -> None:
    # tiles smaller than the usual ones, so that each of these frames, scaled as always, needs several
    spec = model.frame_spec
    assert max(spec.working_shape(PLANTED[file]["height"], PLANTED[file]["width"])) > tile
    try:
        model.frame_spec = replace(spec, tile=4096)
        whole = model.detect(FRAMES / file)
        model.frame_spec = replace(spec, tile=tile)
        tiled = model.detect(FRAMES / file)
    finally:
        model.frame_spec = spec
    assert len(whole) >= 2
    assert len(tiled) == len(whole)
    for x, y in whole.centroids:
        assert distance(tiled, x, y) < 1


@pytest.mark.slow
def test_memory_stays_bounded_on_a_large_frame() -> None:
    code = (
        "import resource, numpy as np, serank\n"
        "frame = np.random.default_rng(0).integers(0, 65536, (4096, 4096), dtype=np.uint16)\n"
        "serank.SeRankDet.from_pretrained('sirst').detect(frame)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3  # GiB; Linux counts in KiB


def test_the_checkpoint_is_small_and_complete(model: SeRankDet) -> None:
    folder = bundled()["sirst"]
    assert sum(f.stat().st_size for f in folder.iterdir()) < 10e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("SIRST", "seed", "serank train", "epochs", "native", "standard", "IoU", "nIoU", "Pd", "Fa"):
        assert word in card
    assert model.config["in_channels"] == 1


@pytest.mark.slow
def test_the_model_card_tells_the_truth(model: SeRankDet, shared: Path) -> None:
    card = (bundled()["sirst"] / "README.md").read_text(encoding="utf-8")
    row = re.search(r"^\| SIRST val.*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|$", card, re.M)
    assert row, "the card has a row | SIRST val ... | IoU | nIoU | Pd | Fa in 1e-6 |"
    result = evaluate(model, FolderDataset(shared / "data" / "sirst", "val"), curves=False).metrics
    measured = (result["iou"], result["niou"], result["pd"], result["fa"] * 1e6)
    for stated, value, tolerance in zip(map(float, row.groups()), measured, (1e-3, 1e-3, 1e-3, 0.1), strict=True):
        assert value == pytest.approx(stated, abs=tolerance)
