"""What confirmation over frames does to false alarms and targets, on synthetic clips, and how fast clips go.

    python benchmarks/video.py --output runs/video

Each clip has a still background, noise and glints of each frame's own, and targets that move at a steady speed. Glints
look like targets and are seen in one frame alone: single frames can't tell them apart. Frames are run
once for each rule; a target counts as found where a detection lies within 3 px of it, each other detection is a false
alarm. Writes video.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from measure import machine
from numpy.typing import NDArray

from serank import SeRankDet
from serank.inference import CentroidTracker, Detections, Detector, write_detections
from serank.inference.video import video_writer
from serank.synthetic import BACKGROUNDS, make_scene
from serank.utils.files import replacing

RULES = (None, (2, 3), (3, 5), (4, 6))
NEAR = 3.0  # px, as in serank.metrics


Places = NDArray[np.float64]


def make_clip(
    seed: int, count: int, side: int, targets: int, noise: float, glints: float
) -> tuple[list[NDArray[np.float32]], Places]:
    """Frames `(H, W)` float32 in [0, 1], and the targets' x and y `(count, targets, 2)`."""
    background = BACKGROUNDS[seed % len(BACKGROUNDS)]
    still = 0.8 * make_scene(side, side, background=background, targets=0, noise=0.0, seed=seed).frame
    rng = np.random.default_rng(seed)
    angle, speed = rng.uniform(0, 2 * np.pi, targets), rng.uniform(0.5, 3.0, targets)
    step = speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    middle = rng.uniform(0.35 * side, 0.65 * side, (targets, 2))
    places = middle + step * (np.arange(count) - count / 2)[:, None, None]
    radius, peak = rng.uniform(0.8, 1.6, targets), rng.uniform(0.1, 0.3, targets)
    y, x = np.mgrid[:side, :side]
    frames = []
    for now in places:
        frame = still + noise * rng.standard_normal((side, side))
        flashes = rng.poisson(glints)
        spots = np.concatenate([now, rng.uniform(0, side, (flashes, 2))])
        radii = np.append(radius, rng.uniform(0.8, 1.6, flashes))
        for (x0, y0), r, p in zip(spots, radii, np.append(peak, rng.uniform(0.1, 0.3, flashes)), strict=True):
            frame += p * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * r**2))
        frames.append(np.clip(frame, 0, 1).astype(np.float32))
    return frames, places


def count_hits(found: Detections, places: NDArray[np.float64]) -> tuple[int, int]:
    """Targets that were found, and false alarms."""
    distance = np.hypot(*(found.centroids[:, None] - places).transpose(2, 0, 1))
    return int((distance < NEAR).any(axis=0).sum()), int((distance >= NEAR).all(axis=1).sum())


def accuracy_lines(model: Detector, options: argparse.Namespace) -> list[str]:
    hits = dict.fromkeys(RULES, 0)
    false = dict.fromkeys(RULES, 0)
    for seed in range(options.clips):
        frames, places = make_clip(seed, options.frames, options.side, options.targets, options.noise, options.glints)
        results = model.detect(frames, options.threshold)
        for rule in RULES:
            tracker = CentroidTracker(options.max_distance, rule)
            for found, now in zip(results, places, strict=True):
                counts = count_hits(tracker.update(found), now)
                hits[rule], false[rule] = hits[rule] + counts[0], false[rule] + counts[1]
    total = options.clips * options.frames
    lines = [
        f"{options.clips} clips of {options.frames} frames of {options.side} x {options.side} px, {options.targets} "
        f"targets each, noise {options.noise:g}, {options.glints:g} glints a frame, threshold {options.threshold:g}, "
        f"at most {options.max_distance:g} px a frame:",
        "",
        "| confirm | Pd of target sightings | false alarms a frame |",
        "|---|---|---|",
    ]
    for rule in RULES:
        name = "none" if rule is None else f"{rule[0]}/{rule[1]}"
        lines.append(f"| {name} | {hits[rule] / (total * options.targets):.3f} | {false[rule] / total:.3f} |")
    return lines


def speed_lines(model: Detector, options: argparse.Namespace) -> list[str]:
    """Frames a second from video file to table, each way in turn."""
    from PIL import Image

    ways: dict[str, dict[str, Any]] = {
        "table": {},
        "--track": {"track": True},
        "--track --video": {"track": True, "video": "drawn.mp4"},
    }
    lines = ["| `serank detect clip.mp4` | frames a second |", "|---|---|"]
    with TemporaryDirectory() as name:
        place = Path(name)
        frames, _ = make_clip(0, options.frames, options.side, options.targets, options.noise, options.glints)
        with video_writer(place / "clip.mp4") as writer:
            for frame in frames:
                writer.add(Image.fromarray(np.rint(255 * frame).astype(np.uint8)))
        for way, more in ways.items():
            chosen = {key: place / value if key == "video" else value for key, value in more.items()}
            start = time.perf_counter()
            write_detections(model, place / "clip.mp4", place / "out", pictures=False, **chosen)
            lines.append(f"| {way} | {options.frames / (time.perf_counter() - start):.1f} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for video.md")
    parser.add_argument("--checkpoint", default="general")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=40, help="of each clip")
    parser.add_argument("--side", type=int, default=128, help="of the frames")
    parser.add_argument("--targets", type=int, default=2, help="in each clip")
    parser.add_argument("--noise", type=float, default=0.01, help="standard deviation, in units of the full range")
    parser.add_argument("--glints", type=float, default=1.0, help="mean number of them in a frame")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--max-distance", type=float, default=5.0)
    options = parser.parse_args(arguments)
    model = SeRankDet.from_pretrained(options.checkpoint).optimize()
    about = machine("cpu")
    text = "\n".join(
        [
            f"`{options.checkpoint}` in float32; {about['processor']}, {about['threads']}, PyTorch {about['torch']}.",
            "",
            *accuracy_lines(model, options),
            "",
            *speed_lines(model, options),
            "",
        ]
    )
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "video.md") as path:
        path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
