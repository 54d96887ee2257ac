"""serank's inference against the released graph written plainly, side by side in one run.

    python benchmarks/speed.py --output runs/speed

For every frame size, batch and precision the plain reference (`plain.py`, float32) and serank's networks run in turn,
A B A B; ratios are of neighbouring runs. The released graph has the reference's weights, and its outputs are compared
first. `share of peak` sets the arithmetic of a network against a large convolution timed in the same run. Peak memory is
measured in a process of its own, above what the process holds with its weights loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from plain import PlainSeRankDet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from serank import SeRankDet
from serank.files import replacing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NETWORKS = ("released", "paper", "sirst")
TOLERANCE = 1e-4
"""Of logits against the reference in float32, over the largest of them."""


@dataclass(frozen=True)
class Row:
    """One line of the table; times in seconds, memory in bytes."""

    network: str
    dtype: str
    size: int
    batch: int
    seconds: float
    reference_seconds: float
    ratio: float
    lowest: float
    highest: float
    memory: int | None
    reference_memory: int | None
    flops: int
    share_of_peak: float


def reference_network(device: str) -> PlainSeRankDet:
    """The plain graph of width 64; random weights, with batch norms that are not the identity."""
    torch.manual_seed(0)
    network = PlainSeRankDet().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, centre in ((module.running_mean, 0.0), (module.running_var, 1.0), (module.weight, 1.0)):
                assert values is not None
                nn.init.uniform_(values, centre - 0.1, centre + 0.1)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.to(device)


def released_network(device: str) -> SeRankDet:
    """serank's network of the reference's weights, by way of a file as the authors write it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pth.tar"
        torch.save({"state_dict": reference_network("cpu").state_dict()}, path)
        return SeRankDet.from_released(path, device=device)


def network(name: str, device: str) -> SeRankDet:
    if name == "released":
        return released_network(device)
    if name == "paper":
        torch.manual_seed(0)
        return SeRankDet(stem_channels=1).eval().to(device)
    return SeRankDet.from_pretrained(name, device=device)


def frames(model: nn.Module, size: int, batch: int, device: str) -> Tensor:
    channels = model.in_channels if isinstance(model, SeRankDet) else 3
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


def peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the best of ten runs of one large convolution, as the library picks it."""
    conv = nn.Conv2d(256, 256, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(4, 256, 128, 128, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        best = min(seconds(lambda: conv(x), device) for _ in range(10))
    return 2 * 9 * 256 * 256 * x.numel() / 256 / best


def flops(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(x)
    return int(counter.get_total_flops())


def memory(name: str, dtype: str, size: int, batch: int) -> int:
    """Peak resident memory of one run on a CPU above what weights take; in this process, which should be a fresh one."""
    if name == "reference":
        plain = reference_network("cpu")
        x = frames(plain, size, batch, "cpu")
        run: Callable[[], object] = lambda: plain(x)  # noqa: E731
    else:
        model = network(name, "cpu")
        x = frames(model, size, batch, "cpu")
        fast = model.optimize(DTYPES[dtype])
        del model
        run = lambda: fast(x)  # noqa: E731
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _status("VmRSS")
    with torch.inference_mode():
        run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith(name))
    return int(line.split()[1]) * 1024


def agreement(device: str) -> float:
    """Largest difference of logits between the reference and serank's released graph, over the largest logit."""
    plain, model = reference_network(device), released_network(device)
    x = frames(plain, 128, 2, device)
    with torch.inference_mode():
        expected = plain(x)[-1]
        error = max(float((expected - y).abs().max()) for y in (model(x), model.optimize()(x)))
    return error / float(expected.abs().max())


def measure(options: argparse.Namespace, size: int, batch: int, peaks: dict[str, float]) -> list[Row]:
    """The rows of one frame size and batch."""
    device = options.device
    plain = reference_network(device)
    x = frames(plain, size, batch, device)
    models = {name: network(name, device) for name in options.networks}
    inputs = {name: frames(model, size, batch, device) for name, model in models.items()}
    counts = {name: flops(model, inputs[name]) for name, model in models.items()}
    fast = {
        (name, dtype): model.optimize(DTYPES[dtype], compile=options.compile)
        for name, model in models.items()
        for dtype in options.dtypes
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in fast}
    reference: dict[tuple[str, str], list[float]] = {key: [] for key in fast}
    with torch.inference_mode():
        for run in [plain, *fast.values()]:  # once unmeasured
            run(x if run is plain else inputs[next(name for (name, _), f in fast.items() if f is run)])
        for _ in range(options.repeats):
            for key, run in fast.items():
                reference[key].append(seconds(lambda: plain(x), device))
                times[key].append(seconds(lambda run=run, y=inputs[key[0]]: run(y), device))  # type: ignore[misc]
    del plain, models, fast
    rows = []
    for (name, dtype), taken in times.items():
        ratios = [a / b for a, b in zip(reference[name, dtype], taken, strict=True)]
        middle = statistics.median(taken)
        rows.append(
            Row(
                network=name,
                dtype=dtype,
                size=size,
                batch=batch,
                seconds=middle,
                reference_seconds=statistics.median(reference[name, dtype]),
                ratio=statistics.median(ratios),
                lowest=min(ratios),
                highest=max(ratios),
                memory=_apart(name, dtype, size, batch) if device == "cpu" else None,
                reference_memory=_apart("reference", "float32", size, batch) if device == "cpu" else None,
                flops=counts[name],
                share_of_peak=counts[name] / middle / peaks[dtype],
            )
        )
    return rows


def _apart(*arguments: str | int) -> int:
    """`memory` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, arguments)


def table(rows: Sequence[Row], peaks: dict[str, float], options: argparse.Namespace) -> str:
    """The rows as Markdown."""
    if options.device == "cpu":
        machine = f"{torch.get_num_threads()} threads on {platform.processor() or platform.machine()}"
    else:
        machine = torch.cuda.get_device_name(options.device)
    known = ", ".join(f"{value / 1e9:.0f} GFLOP/s in {dtype}" for dtype, value in peaks.items())
    lines = [
        f"{machine}, PyTorch {torch.__version__}; {options.repeats} runs in turn with the reference, medians, ratios "
        f"from lowest to highest; a large convolution reaches {known}.",
        "",
        "| network | dtype | px | batch | reference, s | serank, s | ratio | share of peak | memory, MB | of reference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        used = "-" if r.memory is None else f"{r.memory / 1e6:.0f}"
        part = "-" if r.memory is None or not r.reference_memory else f"{r.memory / r.reference_memory:.2f}"
        lines.append(
            f"| {r.network} | {r.dtype} | {r.size} | {r.batch} | {r.reference_seconds:.3f} | {r.seconds:.3f} "
            f"| {r.ratio:.2f} ({r.lowest:.2f} to {r.highest:.2f}) | {r.share_of_peak:.0%} | {used} | {part} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for speed.json and speed.md")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if (error := agreement(options.device)) > TOLERANCE:
        raise SystemExit(f"outputs differ from the reference by {error:.1e} of the largest logit; nothing was timed")
    print(f"outputs agree with the reference to {error:.1e} of the largest logit")
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    peaks = {dtype: peak(DTYPES[dtype], options.device) for dtype in options.dtypes}
    rows: list[Row] = []
    for size in options.sizes:
        for batch in options.batches:
            rows += measure(options, size, batch, peaks)
            text = table(rows, peaks, options)
            record = {"peaks": peaks, "agreement": error, "rows": [asdict(row) for row in rows]}
            for file, content in (("speed.json", json.dumps(record, indent=1) + "\n"), ("speed.md", text)):
                with replacing(output / file) as path:
                    path.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
