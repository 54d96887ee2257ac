"""What every test shares: seeds, the hypothesis profile, threads and the optional shared folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# derandomize: the same examples on every run, so that a failure is the change's own
settings.register_profile("serank", deadline=None, derandomize=True)
settings.load_profile("serank")
# the networks of the tests are too small for more threads to help, and the suite runs in several processes
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The CPU always, and CUDA where it is present, in full float32."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    return str(request.param)


@pytest.fixture
def shared() -> Path:
    """The folder beside the repository with the data and fixtures that are not part of it."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the shared folder at {folder}, which is not part of the repository")
    return folder


@pytest.fixture
def topk_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks by `torch.topk`, as the released code does, where equal values are taken in an order that it leaves open.

    What was computed with it can only be compared so; all else of the network stays.
    """

    def top_k(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        points = x.flatten(2)
        index = points.topk(min(k, points.shape[2]), dim=2).indices.sort(dim=2).values
        return points.gather(2, index), index

    monkeypatch.setattr("serank.layers.attention.top_k_in_spatial_order", top_k)
