"""A checkpoint's metrics on the same frames as other ranges, types and with defects of sensors, beside their bars.

python benchmarks/ranges.py path/to/sirst --split val --checkpoint general [--limit 20]

The exit status is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank import SeRankDet
from serank.datasets import FolderDataset
from serank.metrics import DetectionMetrics

Array = NDArray[Any]

PLAIN = "8 bits"
BARS = {"clean": {"iou": 0.02, "pd": 0.02}, "defect": {"pd": 0.04}}
"""By how much the metrics may differ from those of the frames as 8 bits, by the kind of version."""


def hot_disc(mask: Array, share: float) -> Array:
    """A disc of that share of the frame, in the first of four places where it hides no target, or the first of all."""
    height, width = mask.shape
    rows, columns = np.ogrid[:height, :width]
    radius = math.sqrt(share * mask.size / math.pi)
    places = ((0.3, 0.7), (0.7, 0.3), (0.3, 0.3), (0.7, 0.7))
    discs = [np.hypot(rows - height * y, columns - width * x) < radius for y, x in places]
    return next((disc for disc in discs if not mask[disc].any()), discs[0])


def letterbox(mask: Array, share: float) -> tuple[slice, slice]:
    """A strip of that share of the frame, at the first of the four sides where it hides no target, or the left."""
    high, wide = (int(share * side) for side in mask.shape)
    whole = slice(None)
    strips = [
        (whole, slice(0, wide)),
        (whole, slice(-wide, None)),
        (slice(0, high), whole),
        (slice(-high, None), whole),
    ]
    return next((strip for strip in strips if not mask[strip].any()), strips[0])


def recasts(grey: Array, mask: Array, rng: np.random.Generator) -> Iterator[tuple[str, str, Array]]:
    """Versions of an 8-bit frame `(H, W)`: kind, name and pixels of each; the first is the frame itself.

    Large defects lie where `mask` `(H, W)` has no target: what is hidden can't be found.
    """
    wide = grey.astype(np.int64)
    counts, kelvin = (7000 + 6 * wide).astype(np.uint16), (273 + 0.1 * grey).astype(np.float32)
    unit = (grey / 255).astype(np.float32)

    def changed(array: Array, where: Any, value: Any) -> Array:
        copy = array.copy()
        copy[where] = value
        return copy

    yield "plain", PLAIN, grey
    yield "clean", "14-bit counts", counts
    yield "clean", "12-bit counts", (1000 + 10 * wide).astype(np.uint16)
    yield "clean", "kelvin, float32", kelvin
    yield "clean", "floats in [0, 1]", unit
    yield "clean", "floats, one pixel 1.0000001", changed(unit, (0, 0), 1.0000001)
    yield "defect", "counts, first row 65535", changed(counts, 0, 65535)
    yield "defect", "counts, first row 0", changed(counts, 0, 0)
    dead = rng.random(grey.shape) < 0.002
    yield "defect", "counts, 0.2% dead pixels", changed(counts, dead, rng.choice([0, 16383], int(dead.sum())))
    yield "defect", "counts, one dead column", changed(counts, (slice(None), grey.shape[1] // 3), 0)
    yield "defect", "counts, hot disc of 0.5%", changed(counts, hot_disc(mask, 0.005), 16000)
    yield "defect", "counts, letterbox of 4%", changed(counts, letterbox(mask, 0.04), 0)
    yield "defect", "kelvin, two rows of -9999", changed(kelvin, slice(-2, None), -9999)


def missed(kind: str, found: dict[str, float], plain: dict[str, float]) -> list[str]:
    """The metrics that miss their bar."""
    differences = {name: abs(found[name] - plain[name]) for name in BARS.get(kind, {})}
    return [name for name, d in differences.items() if d > BARS[kind][name] + 1e-9]


def row(name: str, found: dict[str, float], plain: dict[str, float], bar: str) -> str:
    """A line of the table."""
    figures = [f"{found[key]:.3f}" for key in ("iou", "niou", "pd")] + [f"{found['fa'] * 1e6:.1f}"]
    points = [100 * (found[key] - plain[key]) for key in ("iou", "pd")]
    figures += ["" if name == PLAIN or math.isnan(p) else f"{p:+.1f}" for p in points]
    return f"| {name} | {' | '.join(figures)} | {bar} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of a data set of 8-bit frames")
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", default="general")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N frames (default: all)")
    options = parser.parse_args(arguments)
    model = SeRankDet.from_pretrained(options.checkpoint)
    network = model.optimize()
    metrics: dict[tuple[str, str], DetectionMetrics] = {}
    samples = FolderDataset(options.root, options.split)
    for i, sample in enumerate(islice(samples, options.limit)):
        grey = np.rint(sample.frame * 255).astype(np.uint8)
        for kind, name, pixels in recasts(grey, sample.mask, np.random.default_rng(i)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of frames of little contrast
                found = network.detect(pixels)
            metric = metrics.setdefault((kind, name), DetectionMetrics(threshold=model.threshold))
            metric.update(found.probability, sample.mask)
    results = {key: metric.compute() for key, metric in metrics.items()}
    plain = results["plain", PLAIN]
    print(f"`{options.checkpoint}` on {plain['frames']:.0f} frames, {plain['targets']:.0f} targets\n")
    print("| the same frames as | IoU | nIoU | Pd | Fa, 1e-6 | IoU, points | Pd, points | bar |")
    print("|---|---|---|---|---|---|---|---|")
    failed = 0
    for (kind, name), result in results.items():
        off = missed(kind, result, plain)
        failed += bool(off)
        bars = " and ".join(f"{key} {100 * limit:.0f}" for key, limit in BARS.get(kind, {}).items())
        verdict = f"{bars}: {'missed' if off else 'met'}" if bars else ""
        print(row(name, result, plain, verdict))
    print(f"\n{failed} of {len(results) - 1} versions miss a bar")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
