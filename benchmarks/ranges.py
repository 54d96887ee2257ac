"""A checkpoint's metrics on the same frames as other ranges, types and with defects of sensors.

python benchmarks/ranges.py path/to/sirst --split val --checkpoint general [--frames 20]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank import SeRankDet
from serank.datasets import FolderDataset
from serank.frames import FramePreparer
from serank.inference import predict
from serank.metrics import DetectionMetrics

Array = NDArray[Any]


def recasts(grey: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Versions of an 8-bit frame `(H, W)`, each with its name."""
    height, width = grey.shape
    counts = (7000 + 6 * grey.astype(np.int64)).astype(np.uint16)
    kelvin = (273 + 0.1 * grey).astype(np.float32)

    def changed(array: Array, where: Any, value: Any) -> Array:
        copy = array.copy()
        copy[where] = value
        return copy

    yield "8 bits", grey
    yield "floats in [0, 1], one 1.0000001", changed((grey / 255).astype(np.float32), (0, 0), 1.0000001)
    yield "14-bit counts", counts
    yield "- first row 65535", changed(counts, 0, 65535)
    yield "- first row 0", changed(counts, 0, 0)
    dead = rng.random(grey.shape) < 0.002
    yield "- 0.2% dead pixels", changed(counts, dead, rng.choice([0, 16383], int(dead.sum())))
    yield "- one dead column", changed(counts, (slice(None), width // 3), 0)
    rows, columns = np.ogrid[:height, :width]
    disc = np.hypot(rows - height * 0.3, columns - width * 0.7) < np.sqrt(0.005 * grey.size / np.pi)
    yield "- hot disc of 0.5%", changed(counts, disc, 16000)
    yield "kelvin", kelvin
    yield "- two rows of -9999", changed(kelvin, slice(-2, None), -9999)
    yield "14-bit counts, letterbox of 4%", changed(counts, (slice(None), slice(0, int(0.04 * width))), 0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of a data set of 8-bit frames")
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", default="general")
    parser.add_argument("--frames", type=int, help="the first of them (default: all)")
    options = parser.parse_args(arguments)
    model = SeRankDet.from_pretrained(options.checkpoint)
    network = model.optimize()
    prepare = FramePreparer(model.frame_spec.scaling)
    metrics: dict[str, DetectionMetrics] = {}
    for i, sample in enumerate(islice(FolderDataset(options.root, options.split), options.frames)):
        versions = list(recasts(np.rint(sample.frame * 255).astype(np.uint8), np.random.default_rng(i)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of frames of little contrast
            frames = [prepare(array) for _, array in versions]
        probabilities = predict(network, frames, model.frame_spec, channels=model.in_channels)
        for (name, _), probability in zip(versions, probabilities, strict=True):
            metric = metrics.setdefault(name, DetectionMetrics(threshold=model.threshold))
            metric.update(probability, sample.mask)
    print("| the same frames as | IoU | nIoU | Pd | Fa, 1e-6 | false components a frame |\n|---|---|---|---|---|---|")
    for name, metric in metrics.items():
        m = metric.compute()
        figures = f"{m['iou']:.3f} | {m['niou']:.3f} | {m['pd']:.3f} | {m['fa'] * 1e6:.1f}"
        print(f"| {name} | {figures} | {m['false_components']:.2f} |")


if __name__ == "__main__":
    main()
