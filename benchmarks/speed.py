"""serank's inference against the unfused network, side by side in one run.

    python benchmarks/speed.py --output runs/speed
    python benchmarks/speed.py --output runs/speed --networks sirst --sizes 256 --dtypes float32   # some rows of it

For every network, frame size, batch and precision the reference (`unfused.py`, NCHW) and serank run in turn, A B
A B; ratios are of neighbouring runs. Before that, outputs are compared. References are the released graph at full
width in float32 (`released`, what people run), the same under bfloat16 autocast (`autocast`), and the unfused form of
the very network (`own`, float32). `share of peak` sets a network's arithmetic against a large convolution of its
precision, timed in the same run. Peak memory is that of one frame or batch above weights and input, each in a process
of its own.

Rows are added to speed.json in the output folder as they are done, and those that are there are not measured again;
speed.md is the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from measure import (
    DTYPES,
    NETWORKS,
    apart,
    flops,
    frames,
    in_turn,
    machine,
    memory_of,
    peak,
    reference_network,
    serank_network,
)
from torch import Tensor, nn
from unfused import unfused_form

from serank import SeRankDet
from serank.utils.files import replacing

REFERENCES = ("released", "own", "autocast")
TOLERANCE = 1e-4
"""Of logits against the reference in float32, over the largest of them."""


@dataclass(frozen=True)
class Case:
    """What a row measures."""

    network: str
    reference: str
    dtype: str
    size: int
    batch: int
    width: int
    device: str
    compile: bool


@dataclass(frozen=True)
class Row(Case):
    """One line of the table; times in seconds of each run, memory in bytes, peak in FLOP/s."""

    seconds: list[float]
    reference_seconds: list[float]
    memory: int | None
    reference_memory: int | None
    flops: int
    reference_flops: int
    peak: float

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.reference_seconds, self.seconds, strict=True)]


def case_of(row: Case) -> Case:
    return Case(*(getattr(row, field.name) for field in fields(Case)))


def reference_of(case: Case) -> tuple[nn.Module, Tensor]:
    """The reference in eval mode, and its input."""
    if case.reference == "own" and case.network != "released":
        reference = unfused_form(serank_network(case.network, case.width, case.size, case.device))
    else:
        reference = reference_network(case.width, case.size, case.device)
    channels = reference.get_parameter("Conv1.cdc_layer.0.conv.weight").shape[1]
    return reference, frames(channels, case.size, case.batch, case.device)


def reference_run(case: Case) -> Callable[[], object]:
    reference, x = reference_of(case)

    def run() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(case.device).type, torch.bfloat16, enabled=case.reference == "autocast"),
        ):
            reference(x)

    return run


def serank_run(case: Case) -> Callable[[], object]:
    model = serank_network(case.network, case.width, case.size, case.device)
    x = frames(model.in_channels, case.size, case.batch, case.device)
    optimized = model.optimize(DTYPES[case.dtype], compile=case.compile)
    return lambda: optimized(x)


def memory(make: str, case: Case) -> int:
    """Peak memory of the run that one of the functions above makes; in this process, which should be a fresh one."""
    run = reference_run(case) if make == "reference" else serank_run(case)
    if case.compile or case.device != "cpu":
        run()  # what the first run alone takes is no part of it
    return memory_of(run, case.device)


def agreement(network: str, width: int, device: str) -> float:
    """Largest difference of logits between unfused form and serank in float32, over the largest logit."""
    model = serank_network(network, width, device=device)
    reference = reference_network(width, device=device) if network == "released" else unfused_form(model)
    x = frames(model.in_channels, 128, 2, device)
    # in full float32: TF32, the default of convolutions on CUDA, is coarser than what is compared
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = reference(x)[-1]
        error = max(float((expected - y).abs().max()) for y in (model(x), model.optimize()(x)))
    return error / float(expected.abs().max())


def measure(case: Case, repeats: int, highest: float) -> Row:
    reference, x = reference_of(case)
    model: SeRankDet = serank_network(case.network, case.width, case.size, case.device)
    counts = flops(model, frames(model.in_channels, case.size, case.batch, case.device)), flops(reference, x)
    del reference, model, x
    taken_by_reference, taken = in_turn((reference_run(case), serank_run(case)), repeats, case.device)
    return Row(
        **asdict(case),
        seconds=taken,
        reference_seconds=taken_by_reference,
        memory=apart(memory, "serank", case),
        reference_memory=apart(memory, "reference", case),
        flops=counts[0],
        reference_flops=counts[1],
        peak=highest,
    )


def table(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """The rows as Markdown."""
    known = {row.dtype: row.peak for row in rows}
    lines = [
        f"{about['processor']}, {about['threads']}, PyTorch {about['torch']}. Medians, and ratios of runs in turn from "
        f"lowest to highest; a large convolution reaches "
        f"{', '.join(f'{value / 1e9:.0f} GFLOP/s in {dtype}' for dtype, value in known.items())}.",
        "",
        "| network | dtype | px | batch | against | reference, s | serank, s | ratio | GFLOP, reference and serank "
        "| share of peak | memory, MB | of reference |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        middle = statistics.median(r.seconds)
        used = "-" if r.memory is None else f"{r.memory / 1e6:.0f}"
        part = "-" if r.memory is None or not r.reference_memory else f"{r.memory / r.reference_memory:.2f}"
        work = f"{r.reference_flops / 1e9:.1f}, {r.flops / 1e9:.1f}"
        lines.append(
            f"| {r.network}{', compiled' if r.compile else ''} | {r.dtype} | {r.size} | {r.batch} | {r.reference} "
            f"| {statistics.median(r.reference_seconds):.3f} | {middle:.3f} "
            f"| {statistics.median(r.ratios):.2f} ({min(r.ratios):.2f} to {max(r.ratios):.2f}) "
            f"| {work} | {r.flops / middle / r.peak:.0%} | {used} | {part} |"
        )
    return "\n".join(lines) + "\n"


def stored(file: Path, about: dict[str, Any]) -> list[Row]:
    """Rows that were measured before; those of another machine end the program."""
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    if found["about"] != about:
        raise SystemExit(f"{file} was measured with {found['about']}, not {about}; use another --output")
    return [Row(**row) for row in found["rows"]]


def cases(options: argparse.Namespace) -> list[Case]:
    return [
        Case(name, reference, dtype, size, batch, options.width, options.device, options.compile)
        for name in options.networks
        for reference in options.references
        for size in options.sizes
        for batch in options.batches
        for dtype in options.dtypes
        if not (name == "released" and reference == "own")  # which is the released one
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for speed.json and speed.md")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--references", nargs="+", choices=REFERENCES, default=["released", "own"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=64, help="of the released and the paper's graph")
    parser.add_argument("--compile", action="store_true", help="serank through torch.compile")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    about = machine(options.device)
    rows = stored(output / "speed.json", about)
    done = {case_of(row) for row in rows}
    wanted = [case for case in cases(options) if case not in done]
    for name in dict.fromkeys(case.network for case in wanted):
        if (error := agreement(name, options.width, options.device)) > TOLERANCE:
            raise SystemExit(f"{name}: outputs differ by {error:.1e} of the largest logit; nothing was timed")
        print(f"{name}: outputs agree to {error:.1e} of the largest logit", flush=True)
    peaks = {name: peak(DTYPES[name], options.device) for name in dict.fromkeys(case.dtype for case in wanted)}
    output.mkdir(parents=True, exist_ok=True)
    for case in wanted:
        rows.append(row := measure(case, options.repeats, peaks[case.dtype]))
        print(table([row], about).splitlines()[-1], flush=True)
        rows.sort(key=lambda r: (NETWORKS.index(r.network), r.reference, r.compile, r.dtype, r.size, r.batch))
        # after each row, so that a stopped run leaves what it has
        record = {"about": about, "rows": [asdict(r) for r in rows]}
        for file, content in (("speed.json", json.dumps(record, indent=1) + "\n"), ("speed.md", table(rows, about))):
            with replacing(output / file) as path:
                path.write_text(content)
    print(table(rows, about))


if __name__ == "__main__":
    main()
