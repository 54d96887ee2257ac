"""Writes the six sample frames of `examples/frames` and, beside them, `frames.json`: what is planted in them.

The frames are synthetic (`serank.synthetic`): anyone may use them. Run it again to get the same files:

    python examples/make_frames.py [--output examples/frames]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.metrics import component_table, label_components
from serank.synthetic import Scene, make_scene
from serank.utils.files import replacing

__all__ = ["FRAMES", "SampleFrame", "main", "pixels", "scene", "truth", "write"]

LOW_COUNT, HIGH_COUNT = 6800, 7900
"""Counts of a 14-bit camera for a frame's 0 and 1; a scene fills a small part of such a camera's range."""


class SampleFrame(NamedTuple):
    """How a sample frame is made. Targets grow with the frame: detectors shrink large frames."""

    name: str
    width: int
    height: int
    background: str
    targets: int
    size: tuple[float, float]
    scr: tuple[float, float]
    blur: float
    seed: int
    deep: bool = False
    """16-bit counts instead of 8-bit grey."""


FRAMES = (
    SampleFrame("sky_256x256.png", 256, 256, "sky", 2, (4, 7), (45, 70), 0.7, 30),
    SampleFrame("cloud_320x240.png", 320, 240, "cloud", 2, (4, 7), (20, 30), 0.7, 34),
    SampleFrame("sea_640x512.png", 640, 512, "sea", 3, (6, 9), (16, 22), 0.9, 37),
    SampleFrame("ground_640x480_16bit.png", 640, 480, "ground", 2, (6, 9), (25, 35), 0.9, 31, deep=True),
    SampleFrame("ground_1024x1024.png", 1024, 1024, "ground", 3, (8, 11), (20, 30), 1.3, 37),
    SampleFrame("cloud_1280x1024.png", 1280, 1024, "cloud", 4, (9, 12), (25, 40), 1.3, 35),
)


def scene(spec: SampleFrame) -> Scene:
    """The scene that a sample frame shows."""
    return make_scene(
        spec.height,
        spec.width,
        background=spec.background,
        targets=spec.targets,
        size=spec.size,
        scr=spec.scr,
        noise=0.003,
        blur=spec.blur,
        seed=spec.seed,
    )


def pixels(spec: SampleFrame, frame: NDArray[np.float32]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A frame in [0, 1] as stored: `(H, W)` uint8 grey, or uint16 counts."""
    if spec.deep:
        return np.rint(LOW_COUNT + (HIGH_COUNT - LOW_COUNT) * frame).astype(np.uint16)
    return np.rint(255 * frame).astype(np.uint8)


def truth(spec: SampleFrame, planted: Scene) -> dict[str, Any]:
    """Size of a frame, and centroid and area of each of its targets, in px, in scan order."""
    table = component_table(*label_components(planted.mask))
    targets = [
        {"x": round(x, 2), "y": round(y, 2), "area": area}
        for (x, y), area in zip(table.centroids.tolist(), table.areas.tolist(), strict=True)
    ]
    return {"file": spec.name, "width": spec.width, "height": spec.height, "targets": targets}


def write(folder: Path) -> None:
    """Writes all frames into `folder` and the list of targets beside it; a file is never left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for spec in FRAMES:
        planted = scene(spec)
        with replacing(folder / spec.name) as path:
            Image.fromarray(pixels(spec, planted.frame)).save(path, optimize=True)
        frames.append(truth(spec, planted))
    with replacing(folder.with_suffix(".json")) as path:
        path.write_text(json.dumps({"frames": frames}, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Reads the command line and writes the frames."""
    parser = argparse.ArgumentParser(description="Write the sample frames.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "frames")
    folder = parser.parse_args().output
    write(folder)
    print(f"wrote {len(FRAMES)} frames to {folder}, and their targets to {folder.with_suffix('.json')}")


if __name__ == "__main__":
    main()
