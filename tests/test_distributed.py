"""Two processes against one: the same batches, losses, weights and figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from serank.utils.distributed import all_objects, from_main, is_main, rank, started, world_size

SCRIPT = """
import json, sys, time
from contextlib import suppress
from pathlib import Path
import torch
from serank import SeRankDet
from serank.train import Augmentation
from serank.utils.distributed import all_objects, is_main, rank, started
from serank.evaluation import evaluate
from serank.synthetic import SyntheticScenes
from serank.train import Recipe, fit

torch.set_num_threads(1)
folder = Path(sys.argv[1])
with started():
    torch.manual_seed(rank())  # process 0 decides about the first weights
    model = SeRankDet(width=2).double()  # in float32 the rounding of sums grows with the steps
    train = SyntheticScenes(10, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5)
    val = SyntheticScenes(5, 40, 48, targets=(0, 2), size=(3, 6), scr=(10, 30), seed=6)
    recipe = Recipe(epochs=3, batch_size=4, ema_decay=0.9, accumulation_steps=int(sys.argv[2]), lr=1e-3,
                    augmentation=Augmentation(crop=32, scale=(0.8, 1.25)))
    history = fit(model, train, val, recipe=recipe, output=folder / "run",
                  checkpointing=sys.argv[3] == "True", progress=False)
    for p in model.parameters():
        assert len({float(total) for total in all_objects(p.sum().item())}) == 1
    result = evaluate(model, val)
    if is_main():
        torch.save(model.state_dict(), folder / "weights.pt")
        found = {"rows": history.rows, "metrics": result.metrics, "names": [f.name for f in result.frames]}
        (folder / "found.json").write_text(json.dumps(found))
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


def train(
    folder: Path, processes: int, accumulation_steps: int = 1, checkpointing: bool = False
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    start = [sys.executable, "-W", "error"]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, str(folder / "script.py"), str(folder), str(accumulation_steps), str(checkpointing)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "found.json").read_text()), torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_processes_train_as_one(tmp_path: Path, checkpointing: bool) -> None:
    one, weights = train(tmp_path / "one", 1)
    two, shared = train(tmp_path / "two", 2, checkpointing=checkpointing)
    for row, other in zip(one["rows"], two["rows"], strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-7)
        # 5 validation frames on 2 processes: figures must not depend on that
        for key in ("iou", "niou", "pd", "fa"):
            assert other[key] == pytest.approx(row[key], abs=1e-12, nan_ok=True)
        assert (other["frames"], other["targets"]) == (5, row["targets"])
    for name, value in weights.items():
        torch.testing.assert_close(shared[name], value, atol=1e-7, rtol=1e-7, msg=name)
    assert two["names"] == one["names"]
    files = sorted(p.name for p in (tmp_path / "two" / "run").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "one" / "run").iterdir())


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
