"""Time and memory of a training step: the unfused network against serank, side by side.

    python benchmarks/training_step.py --output runs/training

The reference is the released graph as its authors train it (`unfused.py`, float32, NCHW), and serank the same graph and
weights as `serank.train.fit` trains it, channels_last, in the precisions given, and with gradient checkpointing. All
take soft IoU over the six outputs and AdamW. Losses of the first step are compared before anything is timed, then the
steps run in turn, A B C A B C; ratios are of neighbouring runs. Peak memory is that of one step above weights and
input, each in a process of its own. Writes training_step.json and training_step.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import DTYPES, apart, frames, in_turn, machine, memory_of, reference_network, serank_network
from torch import Tensor, nn

from serank.losses import deep_supervision_loss
from serank.utils.files import replacing

REFERENCE = "reference"
TOLERANCE = 1e-4
"""Of the first step's loss in float32, relative."""


class Outputs(nn.Module):
    """All six maps by calling the network, of either kind."""

    def __init__(self, kind: str, width: int, size: int, device: str) -> None:
        super().__init__()
        self.is_reference = kind == REFERENCE
        self.network: nn.Module
        if self.is_reference:
            self.network = reference_network(width, size, device).train()
        else:
            model = serank_network("released", width, size, device).train()
            model.checkpointing = kind.endswith("checkpointing")
            self.network = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.network(x) if self.is_reference else self.network.forward_deep(x)  # type: ignore[operator]
        return maps


def step_of(kind: str, width: int, size: int, batch: int, device: str) -> Callable[[], float]:
    """One training step of `kind`, such as `"bfloat16, checkpointing"`, which gives its loss."""
    outputs = Outputs(kind, width, size, device)
    optimizer = torch.optim.AdamW(outputs.parameters(), lr=1e-4)
    dtype = DTYPES["float32" if kind == REFERENCE else kind.split(",")[0]]
    x = frames(3, size, batch, device)
    if kind != REFERENCE:
        x = x.to(memory_format=torch.channels_last)
    masks = torch.zeros(batch, 1, size, size, device=device)
    masks[:, :, size // 2 : size // 2 + 5, size // 2 : size // 2 + 5] = 1

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            maps = outputs(x)
        loss = deep_supervision_loss(maps, masks)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def memory(kind: str, width: int, size: int, batch: int, device: str) -> int:
    step = step_of(kind, width, size, batch, device)
    return memory_of(step, device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for training_step.json and training_step.md")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--size", type=int, default=256, help="side of the crops")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    sizes = (options.width, options.size, options.batch, options.device)
    losses = [step_of(kind, options.width, 64, 2, options.device)() for kind in (REFERENCE, "float32")]
    if abs(losses[0] - losses[1]) > TOLERANCE * losses[0]:
        raise SystemExit(f"losses differ, {losses[0]} of the reference and {losses[1]}; nothing was timed")
    kinds = [REFERENCE, *(f"{name}{more}" for name in options.dtypes for more in ("", ", checkpointing"))]
    times = in_turn([step_of(kind, *sizes) for kind in kinds], options.repeats, options.device)
    peaks = [apart(memory, kind, *sizes) for kind in kinds]
    about = machine(options.device)
    lines = [
        f"Width {options.width}, crops of {options.size} px, batch {options.batch}; {about['processor']}, "
        f"{about['threads']}, PyTorch {about['torch']}.",
        "",
        "| step | s | ratio | memory, MB | of reference |",
        "|---|---|---|---|---|",
    ]
    for kind, taken, used in zip(kinds, times, peaks, strict=True):
        ratios = [a / b for a, b in zip(times[0], taken, strict=True)]
        memories = "- | -" if used is None or not peaks[0] else f"{used / 1e6:.0f} | {used / peaks[0]:.2f}"
        lines.append(
            f"| {kind} | {statistics.median(taken):.2f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {memories} |"
        )
    text = "\n".join(lines) + "\n"
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    rows = [{"step": k, "seconds": t, "memory": m} for k, t, m in zip(kinds, times, peaks, strict=True)]
    record = {"about": about, "options": vars(options), "rows": rows}
    for file, content in (("training_step.json", json.dumps(record, indent=1) + "\n"), ("training_step.md", text)):
        with replacing(output / file) as path:
            path.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
