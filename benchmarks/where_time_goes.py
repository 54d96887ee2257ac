"""Where the time of one frame goes, in the unfused reference and in serank's inference copy.

    python benchmarks/where_time_goes.py --size 512 --network released

Prints a Markdown table of shares of the time spent within PyTorch's operators, by torch.profiler. What an operator does
besides its arithmetic, such as laying out its input anew, counts as its own.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import torch
from measure import DTYPES, NETWORKS, frames, machine, serank_network
from torch.profiler import ProfilerActivity, profile
from unfused import unfused_form

KINDS = {
    "convolutions": ("conv",),
    "top-k, sort and gather": ("topk", "sort", "gather"),
    "resampling": ("upsample", "max_pool2d"),
    "attention products": ("bmm", "mm", "matmul", "softmax", "std", "linear"),
    "batch norm": ("batch_norm",),
    "copies and concatenations": ("cat", "copy_", "clone", "contiguous", "index_select", "select", "fill_", "to_dense"),
}
"""Words of operators' names by what they do, looked for in this order; the rest is element by element."""
OTHER = "element-wise and reductions"


def kind(operator: str) -> str:
    """What an operator such as `aten::add_` does."""
    name = operator.split("::")[-1]
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), OTHER)


def shares(run: Callable[[], object], repeats: int, device: str) -> dict[str, float]:
    """Milliseconds of one run by kind."""
    on_cpu = device == "cpu"
    run()
    with profile(activities=[ProfilerActivity.CPU, *([] if on_cpu else [ProfilerActivity.CUDA])]) as profiler:
        for _ in range(repeats):
            run()
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        microseconds = event.self_cpu_time_total if on_cpu else event.self_device_time_total
        # on a GPU its kernels would count twice, once by their own names
        if event.key.startswith(("aten::", "mkldnn::")) and microseconds > 0:
            spent[kind(event.key)] += microseconds / 1000 / repeats
    return dict(spent)


def table(columns: dict[str, dict[str, float]]) -> str:
    """Shares and milliseconds as Markdown."""
    totals = {name: sum(spent.values()) for name, spent in columns.items()}
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name in (*KINDS, OTHER):
        cells = [f"{c.get(name, 0.0) / totals[n]:.1%}, {c.get(name, 0.0):.1f} ms" for n, c in columns.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| all | {' | '.join(f'{total:.1f} ms' for total in totals.values())} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="released")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64, help="of the released and the paper's graph")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    model = serank_network(options.network, options.width, options.size, options.device)
    x = frames(model.in_channels, options.size, options.batch, options.device)
    reference = unfused_form(model)
    with torch.inference_mode():
        columns = {"unfused, float32": shares(partial(reference, x), options.repeats, options.device)}
        for name in options.dtypes:
            run = partial(model.optimize(DTYPES[name]), x)
            columns[f"serank, {name}"] = shares(run, options.repeats, options.device)
    about = machine(options.device)
    print(
        f"{options.network}, {options.size} px, batch {options.batch}; {about['processor']}, {about['threads']}, "
        f"PyTorch {about['torch']}\n\n{table(columns)}"
    )


if __name__ == "__main__":
    main()
