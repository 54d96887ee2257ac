"""What the drivers that measure time share: networks to compare, clocks, peaks, memory and the machine's name."""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from unfused import UnfusedSeRankDet

from serank import SeRankDet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NETWORKS = ("released", "paper", "sirst")
STATUS = Path("/proc/self/status")


def reference_network(width: int, side: int = 512, device: str = "cpu") -> UnfusedSeRankDet:
    """The released graph, unfused; random weights, with batch norms that are not the identity."""
    torch.manual_seed(0)
    network = UnfusedSeRankDet(width, side=max(side, 512)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, centre in ((module.running_mean, 0.0), (module.running_var, 1.0), (module.weight, 1.0)):
                assert values is not None
                nn.init.uniform_(values, centre - 0.1, centre + 0.1)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.to(device)


def serank_network(name: str, width: int, side: int = 512, device: str = "cpu") -> SeRankDet:
    """`"released"`: of the reference's weights, by way of a file as the authors write it; `"paper"`: random weights.

    `"sirst"` is the bundled checkpoint, of its own width.
    """
    if name == "released":
        with TemporaryDirectory() as folder:
            path = Path(folder) / "reference.pth.tar"
            torch.save({"state_dict": reference_network(width, side).state_dict()}, path)
            return SeRankDet.from_released(path, device=device)
    if name == "paper":
        torch.manual_seed(0)
        return SeRankDet(width=width, stem_channels=1).eval().to(device)
    return SeRankDet.from_pretrained(name, device=device)


def frames(channels: int, size: int, batch: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(size + batch)
    return torch.randn(batch, channels, size, size, generator=generator).to(device)


def seconds(run: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(runs: Iterable[Callable[[], object]], repeats: int, device: str) -> list[list[float]]:
    """Seconds of each of the runs, A B A B, after once unmeasured; the first list is that of the first."""
    runs = list(runs)
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for taken, run in zip(times, runs, strict=True):
            taken.append(seconds(run, device))
    return times


def peak(dtype: torch.dtype, device: str, side: int = 128) -> float:
    """FLOP/s of the best of ten runs of one large convolution, as the library picks it."""
    conv = nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(4, 256, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        best = min(seconds(lambda: conv(x), device) for _ in range(10))
    return 2 * 9 * 256 * 256 * (x.numel() // 256) / best


def flops(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(x)
    return int(counter.get_total_flops())


def memory_of(run: Callable[[], object], device: str) -> int:
    """Bytes at the peak of `run` above what is held before it; on a CPU by Linux's count for this whole process."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - held
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    held = _status("VmRSS")
    run()
    return _status("VmHWM") - held


def resident() -> int:
    """Bytes that this process holds in memory, by Linux's count."""
    return _status("VmRSS")


def apart(function: Callable[..., int], *arguments: Any) -> int | None:
    """`function`, which measures memory, in a fresh process; `None` where the system has no such count."""
    if not STATUS.exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def machine(device: str) -> dict[str, str]:
    """What figures of one table must have in common."""
    name = processor() if device == "cpu" else torch.cuda.get_device_name(device)
    return {
        "processor": name,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} logical cores",
        "torch": str(torch.__version__),
    }


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _status(name: str) -> int:
    line = next(li for li in STATUS.read_text().splitlines() if li.startswith(name))
    return int(line.split()[1]) * 1024
