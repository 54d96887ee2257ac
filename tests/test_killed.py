"""A training that is killed, or whose disk is full, goes on from its last good checkpoint."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from serank import SeRankDet
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit

RECIPE = Recipe(epochs=3, batch_size=2, ema_decay=0.9, augmentation=Augmentation(crop=32, scale=(0.8, 1.25)))

SCRIPT = """
import io, os, signal, sys
import torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)  # as in the other tests: sums depend on it
from test_killed import RECIPE, scenes, tiny
from serank.train import fit

save, calls = torch.save, 0

def killed_half_way(state, path):
    global calls
    calls += 1
    if calls == {at}:
        whole = io.BytesIO()
        save(state, whole)
        with open(path, "wb") as file:
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    save(state, path)

torch.save = killed_half_way
fit(tiny(), scenes(), recipe=RECIPE, output=sys.argv[1], save_every=1, progress=False)
"""


def scenes() -> SyntheticScenes:
    return SyntheticScenes(6, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5)


def tiny() -> SeRankDet:
    torch.manual_seed(0)
    return SeRankDet(width=2)


def test_killed_while_writing_a_checkpoint(tmp_path: Path) -> None:
    expected = tiny()
    fit(expected, scenes(), recipe=RECIPE, progress=False)
    script = SCRIPT.format(tests=str(Path(__file__).parent), at=6)
    result = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    halves = [
        p for p in tmp_path.iterdir() if p.name not in ("last.pt", "log.csv", "best", "curves.png", ".train.lock")
    ]
    assert len(halves) == 1  # the file that was being written
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 1)  # 5 saves: 3 steps, the end of the epoch, 1 step
    resumed = SeRankDet(width=2)
    fit(resumed, scenes(), recipe=RECIPE, output=tmp_path, save_every=1, resume=True, progress=False)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in expected.state_dict().items())
    assert not halves[0].exists()
    assert not (tmp_path / ".train.lock").exists()  # the lock of the killed process counted no more


def test_full_disk_while_writing_weights(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors: can't be written"):
            tiny().save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses to write more than a part of the second checkpoint, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save, calls = torch.save, 0

    def limited(state: object, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "last.pt").stat().st_size // 2, limits[1]))
        try:
            save(state, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", limited)
        with pytest.raises(OSError, match=r"last\.pt: can't write the checkpoint: .*; the one written before is whole"):
            fit(tiny(), scenes(), recipe=RECIPE, output=tmp_path, progress=False)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "log.csv"]
    expected, resumed = tiny(), tiny()
    fit(expected, scenes(), recipe=RECIPE, progress=False)
    fit(resumed, scenes(), recipe=RECIPE, output=tmp_path, resume=True, progress=False)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in expected.state_dict().items())
