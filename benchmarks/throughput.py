"""What `serank detect` reaches end to end: frames a second, memory over many frames, and cost of large frames.

    python benchmarks/throughput.py --output runs/throughput

1. A folder of frames, from files to table, against the bare network on the same frames, already read and scaled.
2. The same folder by several processes under torchrun, which share the cores.
3. Resident memory while many small frames go by.
4. Seconds and peak memory of one frame of growing size, each in a process of its own; large ones are tiled.

Frames are synthetic. Writes throughput.md.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from measure import apart, machine, memory_of, resident, seconds
from numpy.typing import NDArray
from PIL import Image

from serank import SeRankDet
from serank.frames.preparation import resize
from serank.inference import write_detections
from serank.inference.table_formats import Record
from serank.synthetic import SyntheticScenes
from serank.utils.files import replacing


def write_frames(folder: Path, count: int, side: int) -> list[NDArray[np.float32]]:
    """Writes 8-bit PNG files, at most 50 different ones, and returns these as they are read."""
    scenes = SyntheticScenes(min(count, 50), side, side, targets=(0, 2), seed=0)
    frames = [np.rint(255 * scene.frame).astype(np.uint8) for scene in scenes]
    for number in range(count):
        Image.fromarray(frames[number % len(frames)]).save(folder / f"{number:06d}.png")
    return [(frame / 255).astype(np.float32) for frame in frames]


def folder_lines(checkpoint: str, count: int, side: int, batch: int, repeats: int) -> list[str]:
    network = SeRankDet.from_pretrained(checkpoint).optimize()
    spec = network.frame_spec
    with TemporaryDirectory() as place:
        frames = write_frames(Path(place), count, side)
        scaled = [resize(frame, *spec.working_shape(*frame.shape)) for frame in frames]
        inputs = [
            spec.normalise(torch.from_numpy(np.stack(scaled[i : i + batch])[:, None]), network.in_channels)
            for i in range(0, len(scaled) - batch + 1, batch)
        ]

        def bare() -> None:
            for number in range(count // batch):
                network(inputs[number % len(inputs)])

        def from_files(pictures: bool) -> Callable[[], object]:
            def run() -> None:
                with TemporaryDirectory() as output:
                    write_detections(network, [place], output, batch_size=batch, pictures=pictures)

            return run

        runs = {"the network alone": bare, "files to table": from_files(False), "with pictures": from_files(True)}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                frames_run = count // batch * batch if name == "the network alone" else count
                rates[name].append(frames_run / seconds(run, "cpu"))
    middle = {name: statistics.median(found) for name, found in rates.items()}
    return [
        f"{count} frames of {side} x {side} px, batch {batch}, median and range of {repeats} runs in turn:",
        "",
        "| | frames a second | share |",
        "|---|---|---|",
        *(
            f"| {name} | {middle[name]:.1f} ({min(found):.1f} to {max(found):.1f}) "
            f"| {middle[name] / middle['the network alone']:.0%} |"
            for name, found in rates.items()
        ),
    ]


def process_lines(
    checkpoint: str, count: int, side: int, batch: int, repeats: int, numbers: Sequence[int]
) -> list[str]:
    """`serank detect` under torchrun; the time is the command's own, without starting Python."""
    cores = os.cpu_count() or 1
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    with TemporaryDirectory() as place:
        write_frames(Path(place), count, side)
        for _ in range(repeats):
            for number, found in rates.items():
                with TemporaryDirectory() as output:
                    found.append(_detect_together(checkpoint, place, output, number, batch, max(1, cores // number)))
    return [
        f"`torchrun`, {count} frames of {side} x {side} px to a table, batch {batch}, {cores} cores shared by all "
        f"processes, median and range of {repeats} runs in turn:",
        "",
        "| processes | threads each | frames a second |",
        "|---|---|---|",
        *(
            f"| {number} | {max(1, cores // number)} | {statistics.median(found):.1f} "
            f"({min(found):.1f} to {max(found):.1f}) |"
            for number, found in rates.items()
        ),
    ]


def _detect_together(checkpoint: str, place: str, output: str, processes: int, batch: int, threads: int) -> float:
    """Frames a second as the command prints them."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["serank", "detect", place, "--checkpoint", checkpoint, "--batch-size", str(batch)]
    command += ["--no-pictures", "--output", output]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    rate = re.search(r"([\d.]+) frames/s", done.stdout)
    if done.returncode or rate is None:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(rate[1])


def memory_lines(checkpoint: str, count: int, side: int) -> list[str]:
    network = SeRankDet.from_pretrained(checkpoint).optimize()
    done = 0
    lines = [f"Resident memory over {count} frames of {side} x {side} px:", "", "| frames | MB |", "|---|---|"]

    def report(_: Record) -> None:
        nonlocal done
        done += 1
        if done in {count // 100, count // 10, count // 2, count}:
            lines.append(f"| {done} | {resident() / 1e6:.0f} |")

    with TemporaryDirectory() as place, TemporaryDirectory() as output:
        write_frames(Path(place), count, side)
        write_detections(network, [place], output, pictures=False, report=report)
    return lines


def detect_once(checkpoint: str, side: int) -> Callable[[], object]:
    model = SeRankDet.from_pretrained(checkpoint).optimize()
    frame = np.random.default_rng(0).random((side, side), dtype=np.float32)
    model.detect(frame[:256, :256])  # what the first run alone takes is no part of it
    return lambda: model.detect(frame)


def large_memory(checkpoint: str, side: int) -> int:
    return memory_of(detect_once(checkpoint, side), "cpu")


def large_lines(checkpoint: str, sides: Sequence[int], repeats: int) -> list[str]:
    lines = [
        f"One frame of noise, median of {repeats} runs:",
        "",
        "| px | s | s per million pixels | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for side in sides:
        run = detect_once(checkpoint, side)
        taken = statistics.median(seconds(run, "cpu") for _ in range(repeats))
        memory = apart(large_memory, checkpoint, side)
        shown = "-" if memory is None else f"{memory / 1e6:.0f}"
        lines.append(f"| {side} x {side} | {taken:.2f} | {taken / (side * side / 1e6):.2f} | {shown} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for throughput.md")
    parser.add_argument("--checkpoint", default="sirst")
    parser.add_argument("--frames", type=int, default=100, help="in the folder")
    parser.add_argument("--side", type=int, default=512, help="of these")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="that share the folder")
    parser.add_argument("--many", type=int, default=10_000, help="frames over which memory is watched, >= 100")
    parser.add_argument("--small", type=int, default=64, help="side of these")
    parser.add_argument("--large", type=int, nargs="+", default=[1024, 2048, 4096], help="sides of single frames")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    about = machine("cpu")
    folder = (options.checkpoint, options.frames, options.side, options.batch, options.repeats)
    text = "\n".join(
        [
            f"{options.checkpoint} in float32; {about['processor']}, {about['threads']}, PyTorch {about['torch']}.",
            "",
            *folder_lines(*folder),
            "",
            *process_lines(*folder, options.processes),
            "",
            *memory_lines(options.checkpoint, options.many, options.small),
            "",
            *large_lines(options.checkpoint, options.large, options.repeats),
            "",
        ]
    )
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "throughput.md") as path:
        path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
