"""What serank promises on a GPU, in one command: a table, cuda.json, and exit status 1 where a promise fails.

python benchmarks/gpu.py --output runs/gpu [--frames FOLDER]
python benchmarks/gpu.py --output runs/cpu --device cpu --size 64 --width 2   # its own check, without a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from measure import frames, in_turn, machine

from serank import SeRankDet
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit

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
            start = time.perf_counter()
            arguments = {"recipe": recipe, "output": folder, "device": device, "progress": False}
            torch.manual_seed(0)
            rows = fit(SeRankDet(width=options.width), scenes, **arguments).rows
            taken = time.perf_counter() - start
            again = fit(SeRankDet(width=options.width), scenes, resume=True, **arguments).rows
        return again == rows and rows[-1]["loss"] < 6, f"loss {rows[-1]['loss']:.3f}, {taken:.1f} s"

    def torchrun() -> tuple[bool, str]:
        with TemporaryDirectory() as folder:
            code = (
                "from serank.utils.distributed import *\nimport sys, torch\n"
                "with started(sys.argv[1]) as d: print(mean_over_processes(torch.ones(1, device=d)))"
            )
            script = Path(folder) / "script.py"
            script.write_text(code)
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", str(script), device]
            done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=os.environ, check=False)
        return done.returncode == 0, f"exit status {done.returncode}"

    def speed() -> tuple[bool, str]:
        x, fast = frames(1, size, 1, device), model.optimize()
        with torch.inference_mode():
            plain, quick = (min(t) * 1e3 for t in in_turn([lambda: model(x), lambda: fast(x)], 8, device))
        return device == "cpu" or quick < plain, f"{plain:.1f} ms, optimised {quick:.1f} ms"

    def export() -> tuple[bool, str]:
        with TemporaryDirectory() as folder:
            model.export(Path(folder) / "a.pt2", format="torch")
        return True, "gives the network's logits"

    found: dict[str, Callable[[], tuple[bool, str]]] = {"parity": parity, "batch": batch, "detect": detect}
    for precision in ("float32", "bfloat16", "float16"):
        found[f"training, {precision}"] = lambda precision=precision: training(precision)  # type: ignore[misc]
    return found | {"torchrun": torchrun, "speed": speed, "export": export}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for cuda.json")
    parser.add_argument("--frames", help="folder of frames to detect on (default: synthetic ones)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=16)
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
    (folder / "cuda.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
