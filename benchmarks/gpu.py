"""What serank promises on a GPU, in one command: a table, gpu.json, and exit status 1 where a promise fails.

python benchmarks/gpu.py --output runs/gpu [--frames FOLDER]
python benchmarks/gpu.py --output runs/cpu --device cpu --size 64 --width 2 --repeats 1   # tries it without a GPU

Speeds are measured, and on CUDA a replayed graph must be the fastest; parity and batches are compared without TF32.
Under torchrun with one process no group of processes is formed, so that nccl itself takes no part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import overload

import numpy as np
import torch
from measure import frames, in_turn, machine

from serank import SeRankDet
from serank.datasets import Sample, write_folder
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit


class _StopError(Exception):
    """Ends a training where a machine would fail."""


class _Stopping(Sequence[Sample]):
    """Samples that can be read so many times, besides the look at all of them before a training."""

    def __init__(self, samples: Sequence[Sample], reads: int) -> None:
        self.samples, self.left = samples, len(samples) + reads

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        self.left -= 1
        if self.left < 0:
            raise _StopError
        return self.samples[index]


SUFFIXES = (".png", ".bmp", ".tif", ".jpg")


def checks(options: argparse.Namespace) -> dict[str, Callable[[], tuple[bool, str]]]:
    """Each check by name: whether its promise holds, and what was found."""
    device, size = options.device, options.size
    cpu = SeRankDet.from_pretrained("sirst")
    model = SeRankDet.from_pretrained("sirst", device=device)
    scenes = list(SyntheticScenes(8, size, size, targets=(1, 2), size=(3, 8), scr=(8, 30), seed=1))
    files = sorted(p for p in Path(options.frames).iterdir() if p.suffix in SUFFIXES) if options.frames else []
    images: list[object] = [str(p) for p in files[:24]] or [scene.frame for scene in scenes]

    def parity() -> tuple[bool, str]:
        x = frames(1, size, 2, "cpu")
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            expected, fast = cpu(x), model.optimize()
            runs = [model(x.to(device)), *(fast(x.to(device)) for _ in range(3))]  # the third is a recording's
        worst = max(float((run.cpu() - expected).abs().max() / expected.abs().max()) for run in runs)
        return worst <= 1e-4, f"logits within {worst:.1e} of the largest"

    def batch() -> tuple[bool, str]:
        x = frames(1, size, 4, device)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            together, alone = model(x), torch.cat([model(part[None]) for part in x])
        worst = float((together - alone).abs().max() / together.abs().max())
        return worst <= 1e-4, f"alone and in a batch within {worst:.1e}"

    def detect() -> tuple[bool, str]:
        pairs = list(zip(cpu.detect(images), model.optimize().detect(images), strict=True))
        worst = max(float(np.abs(a.probability - b.probability).max()) for a, b in pairs)
        return worst <= 0.01, f"{len(pairs)} frames, probabilities within {worst:.1e}"

    def training(precision: str) -> tuple[bool, str]:
        recipe = Recipe(epochs=2, batch_size=4, precision=precision, augmentation=Augmentation(crop=size))  # type: ignore[arg-type]
        with TemporaryDirectory() as folder:
            torch.manual_seed(0)
            start = time.perf_counter()
            rows = fit(SeRankDet(width=options.width), scenes, recipe=recipe, device=device, progress=False).rows
            taken = time.perf_counter() - start
            torch.manual_seed(0)
            stopped = SeRankDet(width=options.width)
            with suppress(_StopError):
                fit(stopped, _Stopping(scenes, 12), recipe=recipe, output=folder, device=device, progress=False)
            arguments = {"recipe": recipe, "output": folder, "device": device, "progress": False}
            resumed = fit(SeRankDet(width=options.width), scenes, resume=True, **arguments).rows
        losses = [row["loss"] for row in rows]
        apart = max(abs(a - row["loss"]) for a, row in zip(losses, resumed, strict=True))
        holds = max(losses) < 6 and apart < 0.01
        return holds, f"losses {losses[0]:.3f}, {losses[1]:.3f}; resumed within {apart:.1e}; {taken:.1f} s"

    def torchrun() -> tuple[bool, str]:
        with TemporaryDirectory() as folder:
            write_folder(scenes, Path(folder) / "frames")
            names = "\n".join(scene.name for scene in scenes)
            (Path(folder) / "frames" / "train.txt").write_text(names)
            command = [
                "train",
                f"{folder}/frames",
                "--val-split",
                "",
                "--epochs",
                "1",
                "--batch-size",
                "4",
                "--workers",
                "1",
            ]
            command += ["--width", str(options.width), "--crop", str(size), "--device", device]
            command += ["--output", f"{folder}/run", "--precision", "bfloat16"]
            start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", "-m", "serank"]
            done = subprocess.run([*start, *command], capture_output=True, text=True, timeout=90, check=False)
            wrote = (Path(folder) / "run" / "best" / "model.safetensors").exists()
        last = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else "wrote its checkpoint"
        return done.returncode == 0 and wrote, f"exit status {done.returncode}, {last}"

    def speed() -> tuple[bool, str]:
        x = frames(1, size, 1, device)
        kinds = {
            "plain": model,
            "optimised": model.optimize(graphs=False),
            "with graphs": model.optimize(),
            "bfloat16 with graphs": model.optimize(torch.bfloat16),
        }
        with torch.inference_mode():
            for run in kinds.values():
                for _ in range(2):
                    run(x)  # the second records
            times = in_turn([partial(run, x) for run in kinds.values()], options.repeats, device)
        best = {name: min(t) * 1e3 for name, t in zip(kinds, times, strict=True)}
        found = ", ".join(f"{name} {t:.1f}" for name, t in best.items())
        return device == "cpu" or best["with graphs"] < min(best["plain"], best["optimised"]), f"ms: {found}"

    def training_speed() -> tuple[bool, str]:
        samples = scenes * options.repeats
        recipe = Recipe(epochs=2, batch_size=8, precision="bfloat16", augmentation=Augmentation(crop=size))
        torch.manual_seed(0)
        row = fit(
            SeRankDet(width=options.width),
            samples,
            recipe=recipe,
            device=device,
            workers=options.workers,
            progress=False,
        ).rows[-1]
        crops = len(samples) / row["seconds"]
        return True, f"{crops:.0f} crops of {size} px a second, {1 - row['waiting']:.0%} busy"

    def export() -> tuple[bool, str]:
        with TemporaryDirectory() as folder:
            model.export(Path(folder) / "a.pt2", format="torch")  # runs it, and raises where it differs
        return True, "the program gives the network's logits"

    found: dict[str, Callable[[], tuple[bool, str]]] = {"parity": parity, "batch": batch, "detect": detect}
    for precision in ("float32", "bfloat16", "float16"):
        found[f"training, {precision}"] = lambda precision=precision: training(precision)  # type: ignore[misc]
    found |= {"torchrun": torchrun, "speed": speed, "training speed": training_speed, "export": export}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for gpu.json")
    parser.add_argument("--frames", help="folder of frames to detect on (default: synthetic ones)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0, help="of the loader, where training speed is measured")
    parser.add_argument("--repeats", type=int, default=8, help="of what is timed")
    parser.add_argument("--only", nargs="+", help="names of checks (default: all)")
    options = parser.parse_args(arguments)
    rows = []
    for name, check in checks(options).items():
        if options.only and name not in options.only:
            continue
        start = time.perf_counter()
        try:
            holds, what = check()
        except Exception as error:  # a check that ends is a promise that fails; the others go on
            holds, what = False, f"{type(error).__name__}: {error}"
        rows.append({"check": name, "holds": holds, "found": what, "seconds": time.perf_counter() - start})
        print(f"| {name} | {'yes' if holds else 'NO'} | {what} | {rows[-1]['seconds']:.1f} s |", flush=True)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"about": machine(options.device), "options": vars(options), "rows": rows}
    (folder / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
