"""How well masks made of boxes and points fit true masks.

    python benchmarks/box_masks.py path/to/sirst path/to/irstd1k path/to/nudt-sirst --split train

Each target of the true masks is given to the rule of `serank.datasets.labels` as its bounding box, as that box grown by
some px on each side (people draw boxes with a margin), and as its centroid, rounded to a pixel. The table has the mean
over targets of the IoU between the rule's mask and the true one, and the share of targets with an IoU below 0.5. `box`
is the mask that takes the whole box, for comparison. The rule's fraction, 0.3, was chosen on the
training lists; measure it on others.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serank.datasets import FolderDataset
from serank.datasets.labels.rule import PixelBox, RuleMask, box_mask, point_mask
from serank.metrics.components import component_table, label_components

Frame = NDArray[np.float32]
Way = Callable[[Frame, PixelBox, tuple[float, float]], RuleMask]


def whole_box(frame: Frame, box: PixelBox, centroid: tuple[float, float]) -> RuleMask:
    return RuleMask(box, np.ones((box[3] - box[1], box[2] - box[0]), np.bool_), True)


def of_box(frame: Frame, box: PixelBox, centroid: tuple[float, float], *, margin: int, fraction: float) -> RuleMask:
    height, width = frame.shape
    x0, y0, x1, y1 = box
    grown = max(0, x0 - margin), max(0, y0 - margin), min(width, x1 + margin), min(height, y1 + margin)
    return box_mask(frame, grown, fraction=fraction)


def of_point(frame: Frame, box: PixelBox, centroid: tuple[float, float], *, fraction: float) -> RuleMask:
    return point_mask(frame, *centroid, fraction=fraction)


def iou(found: RuleMask, truth: NDArray[np.bool_]) -> float:
    x0, y0, x1, y1 = found.box
    shared = np.count_nonzero(found.mask & truth[y0:y1, x0:x1])
    return shared / (np.count_nonzero(found.mask) + np.count_nonzero(truth) - shared)


def measure(root: Path, split: str | None, ways: dict[str, Way]) -> dict[str, NDArray[np.float64]]:
    """IoU of every target by each way."""
    found: dict[str, list[float]] = defaultdict(list)
    for sample in FolderDataset(root, split):
        labels, count = label_components(sample.mask)
        table = component_table(labels, count)
        for i in range(count):
            x0, y0, x1, y1 = table.boxes[i].tolist()
            x, y = table.centroids[i].tolist()
            for name, way in ways.items():
                found[name].append(iou(way(sample.frame, (x0, y0, x1, y1), (x, y)), labels == i + 1))
    return {name: np.array(values) for name, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="folders of frames and masks")
    parser.add_argument("--split", metavar="NAME", help="list to take (default: every frame)")
    parser.add_argument("--box-fractions", nargs="+", type=float, default=[0.2, 0.25, 0.3, 0.35, 0.5])
    parser.add_argument("--point-fractions", nargs="+", type=float, default=[0.25, 0.3, 0.35, 0.5])
    parser.add_argument("--margins", nargs="+", type=int, default=[0, 1, 2], help="px added to each side of a box")
    options = parser.parse_args(arguments)
    ways: dict[str, Way] = {"box": whole_box}
    for fraction in options.box_fractions:
        for margin in options.margins:
            ways[f"box + {margin} px, {fraction:g}"] = partial(of_box, margin=margin, fraction=fraction)
    for fraction in options.point_fractions:
        ways[f"point, {fraction:g}"] = partial(of_point, fraction=fraction)
    results = {root: measure(root, options.split, ways) for root in options.roots}
    heads = (f"{root.name} ({len(next(iter(found.values())))})" for root, found in results.items())
    print("| label, fraction | " + " | ".join(heads) + " |")
    print("|---" * (len(results) + 1) + "|")
    for name in ways:
        cells = (f"{found[name].mean():.3f}, {np.mean(found[name] < 0.5):.1%}" for found in results.values())
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
