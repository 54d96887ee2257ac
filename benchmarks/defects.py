"""What the repair of dead pixels changes in real frames, and how many it finds that were put in.

python benchmarks/defects.py path/to/sirst path/to/irstd1k ...

The exit status is 1 where a pixel of a target is changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.datasets import FolderDataset
from serank.frames import FrameOptions, repair_defects

Array = NDArray[Any]

SHARE = 0.002
"""Of the pixels, put in as dead, half of them low and half high."""
FILES = 8
"""Dead pixels are put into every eighth frame."""


def versions(grey: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Versions of an 8-bit frame with dead pixels at the same places; the first is the frame's own type."""
    dead, high = rng.random(grey.shape) < SHARE, rng.random(grey.shape) < 0.5
    counts = (7000 + 6 * grey.astype(np.int64)).astype(np.uint16)
    made = {}
    for name, values, top in (("8 bits", grey, 255), ("14 bits", counts, 16383), ("16 bits", counts, 65535)):
        made[name] = np.where(dead, np.where(high, top, 0), values).astype(values.dtype)
    return made | {"dead": dead}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", help="folders of data sets of 8-bit frames")
    options = parser.parse_args(arguments)
    print("| data | frames | changed in targets | elsewhere | found of dead: 8 bits | 14 bits | 16 bits |")
    print("|---|---|---|---|---|---|---|")
    hurt = 0
    for root in options.roots:
        samples = FolderDataset(root, options=FrameOptions(repair=False))
        inside = outside = put = 0
        found = dict.fromkeys(("8 bits", "14 bits", "16 bits"), 0)
        for i, sample in enumerate(samples):
            grey = np.rint(sample.frame * 255).astype(np.uint8)
            changed = repair_defects(grey) != grey
            inside += int(changed[sample.mask].sum())
            outside += int(changed[~sample.mask].sum())
            if i % FILES == 0:
                made = versions(grey, np.random.default_rng(i))
                dead = made.pop("dead")
                put += int(dead.sum())
                for name, values in made.items():
                    found[name] += int((repair_defects(values) != values)[dead].sum())
        hurt += inside
        shares = " | ".join(f"{100 * count / put:.1f}%" for count in found.values())
        print(f"| {samples.root.name} | {len(samples)} | {inside} | {outside} | {shares} |", flush=True)
    return 1 if hurt else 0


if __name__ == "__main__":
    sys.exit(main())
