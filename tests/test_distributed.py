"""Two processes against one: the same batches, losses, weights and metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from serank import SeRankDet
from serank.utils.distributed import (
    all_objects,
    from_main,
    is_main,
    rank,
    restore_batch_norm,
    started,
    synchronise_batch_norm,
    world_size,
)

SCRIPT = """
import json, sys, time
from contextlib import suppress
from pathlib import Path
import torch
from serank import SeRankDet
from serank.train import Augmentation
from serank.utils.distributed import all_objects, is_main, pool_statistics, rank, started, world_size
from serank.evaluation import evaluate
from serank.synthetic import SyntheticScenes
from serank.train import Recipe, fit

torch.set_num_threads(1)
train = SyntheticScenes(10, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5)
val = SyntheticScenes(5, 40, 48, targets=(0, 2), size=(3, 6), scr=(10, 30), seed=6)

def run(folder, frozen, checkpointing):
    torch.manual_seed(rank())  # process 0 decides about the first weights
    model = SeRankDet(width=2).double()  # in float32 the rounding of sums grows with the steps
    recipe = Recipe(epochs=3, batch_size=4, ema_decay=0.9, lr=1e-3, freeze_statistics=frozen,
                    augmentation=Augmentation(crop=32, scale=(0.8, 1.25)))
    history = fit(model, train, val, recipe=recipe, output=folder / "run", checkpointing=checkpointing, progress=False)
    for value in model.state_dict().values():
        assert len({float(total) for total in all_objects(value.double().sum().item())}) == 1
    result = evaluate(model, val)
    if is_main():
        torch.save(model.state_dict(), folder / "weights.pt")
        found = {"rows": history.rows, "metrics": result.metrics, "names": [f.name for f in result.frames]}
        (folder / "found.json").write_text(json.dumps(found))

with started():
    for folder in map(Path, sys.argv[1:]):
        run(folder, "frozen" in folder.name, "checkpointing" in folder.name)
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean += torch.tensor([1.0, 2.0]) * rank()
    pool_statistics(norm)
    assert norm.running_mean.tolist() == [(world_size() - 1) / 2, float(world_size() - 1)]
if sys.platform == "linux":  # threads that outlive the group may abort the process when Python ends
    for _ in range(50):  # a thread is listed for a moment after its end
        left = []
        for path in Path("/proc/self/task").glob("*/comm"):
            with suppress(OSError):
                left.append(path.read_text().strip())
        if not any("gloo" in name for name in left):
            break
        time.sleep(0.1)
    assert not any("gloo" in name for name in left), left
"""


def train(root: Path, processes: int, names: list[str]) -> None:
    """One start of the script, which trains once for each name, with the settings that it names."""
    for name in names:
        (root / name).mkdir(parents=True)
    (root / "script.py").write_text(SCRIPT)
    start = [sys.executable, "-W", "error"]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, str(root / "script.py"), *(str(root / name) for name in names)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a training left: its rows and metrics, and its weights."""
    return json.loads((folder / "found.json").read_text()), torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings in one process, with batch norm's statistics frozen, and in two."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "one", 1, ["frozen"])
    train(folder / "two", 2, ["frozen", "frozen, checkpointing", "own statistics"])
    return folder


@pytest.mark.parametrize("name", ["frozen", "frozen, checkpointing"])
def test_two_processes_train_as_one(runs: Path, name: str) -> None:
    """Where batch norm takes the statistics of no batch, which on a CPU are those of each process's share."""
    one, weights = read(runs / "one" / "frozen")
    two, shared = read(runs / "two" / name)
    for row, other in zip(one["rows"], two["rows"], strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-7)
        # 5 validation frames on 2 processes: metrics must not depend on that
        for key in ("iou", "niou", "pd", "fa"):
            assert other[key] == pytest.approx(row[key], abs=1e-12, nan_ok=True)
        assert (other["frames"], other["targets"]) == (5, row["targets"])
    for entry, value in weights.items():
        torch.testing.assert_close(shared[entry], value, atol=1e-7, rtol=1e-7, msg=entry)
    assert two["names"] == one["names"]
    files = [sorted(p.name for p in (runs / n / "run").iterdir()) for n in ("one/frozen", f"two/{name}")]
    assert files[0] == files[1]


def test_two_processes_agree_where_each_has_statistics_of_its_own(runs: Path) -> None:
    """The script checks that both end with the same weights and running statistics."""
    found, weights = read(runs / "two" / "own statistics")
    start, _ = read(runs / "one" / "frozen")
    assert [row["frames"] for row in found["rows"]] == [5, 5, 5]
    assert found["rows"][0]["loss"] != start["rows"][0]["loss"]
    moved = [v for name, v in weights.items() if name.endswith("running_mean")]
    assert all(v.abs().max() > 0 for v in moved)


def test_batch_norm_for_several_gpus_and_back() -> None:
    model = SeRankDet(width=2)
    model.encoder.eval()
    state, parameters = dict(model.state_dict()), dict(model.named_parameters())
    kinds = [(type(m), m.training) for m in model.modules()]
    synchronise_batch_norm(model)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert list(model.state_dict()) == list(state)
    restore_batch_norm(model)
    assert [(type(m), m.training) for m in model.modules()] == kinds
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert all(value.data_ptr() == state[name].data_ptr() for name, value in model.state_dict().items())


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with started("cuda:1") as device:
        assert device == "cuda:1"
        assert (rank(), world_size(), is_main()) == (0, 1, True)
        assert all_objects(3) == [3]
        assert from_main("a") == "a"


def test_one_gpu_for_all_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match='device must be "cpu" or "cuda" under torchrun'), started("cuda:0"):
        pass
