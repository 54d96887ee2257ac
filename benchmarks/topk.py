"""Ways to find the K largest of H * W values of each channel, for the shapes of each encoder level.

    python benchmarks/topk.py

- `sorted`, `unsorted`: torch.topk, of which the second leaves the order of the values open.
- `histogram`: the K-th value's bin in 1024 bins, then torch.topk among the candidates.
- `stable sort`: of the whole channel.
- `kth and count`: the K-th value by torch.topk, all above it and the first of those equal to it by a running count.
- `keys`: each value and its position in one integer, no two of which are equal, then torch.topk.
- `serank`: what the network does, `serank.layers.ranking.top_k_in_spatial_order`. On a CPU that is two stages, each by
  keys: the K blocks of highest maximum hold the K largest values, which are found there.

Each must give the set of values that torch.topk gives. The last four also take the first of equal values and give the
positions in order; the others leave open which of them they take. Maps are channels_last, as in the inference copy, and
bringing each channel together for the other ways counts. They are those after a ReLU, half of them zero, or with
`--sparse` all but 0.02% of them. The table's last column is the time of the whole network, to compare with.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from measure import DTYPES, in_turn, machine
from torch import Tensor

from serank import SeRankDet, rank_size
from serank.layers.ranking import first_largest, top_k_in_spatial_order

LEVELS = 5
BINS = 1024


def by_sorted(x: Tensor, k: int) -> Tensor:
    return x.flatten(2).topk(k, dim=2).indices


def by_unsorted(x: Tensor, k: int) -> Tensor:
    return x.flatten(2).topk(k, dim=2, sorted=False).indices


def by_histogram(x: Tensor, k: int) -> Tensor:
    """By rows, since each has a number of candidates of its own."""
    points = x.flatten(2)
    found = []
    for row in points.flatten(0, 1):
        low, high = float(row.amin()), float(row.amax())
        if low == high:
            found.append(torch.arange(k, device=row.device))
            continue
        above = torch.histc(row, BINS, low, high).flip(0).cumsum(0)
        edge = high - (int((above < k).sum()) + 1.5) * (high - low) / BINS  # half a bin for rounding
        candidates = (row >= edge).nonzero()[:, 0]
        found.append(candidates[row[candidates].topk(k, sorted=False).indices])
    return torch.stack(found).view(*points.shape[:2], k)


def by_stable_sort(x: Tensor, k: int) -> Tensor:
    index = x.flatten(2).sort(dim=2, descending=True, stable=True).indices
    return index[..., :k].sort(dim=2).values


def by_kth_and_count(x: Tensor, k: int) -> Tensor:
    points = x.flatten(2)
    kth = points.topk(k, dim=2, sorted=False).values.amin(2, keepdim=True)
    above = points > kth
    equal = points == kth
    chosen = above | (equal & (equal.cumsum(2, dtype=torch.int32) <= k - above.sum(2, keepdim=True)))
    return chosen.nonzero()[:, 2].view(*points.shape[:2], k)


def by_keys(x: Tensor, k: int) -> Tensor:
    return first_largest(x.flatten(2), k)


def by_serank(x: Tensor, k: int) -> Tensor:
    return top_k_in_spatial_order(x, k)[1]


WAYS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sorted": by_sorted,
    "unsorted": by_unsorted,
    "histogram": by_histogram,
    "stable sort": by_stable_sort,
    "kth and count": by_kth_and_count,
    "keys": by_keys,
    "serank": by_serank,
}
FIRST = ("stable sort", "kth and count", "keys", "serank")
"""Ways that take the first of equal values and give the positions in order."""


def is_exact(found: Tensor, x: Tensor, k: int) -> bool:
    """Whether the positions differ from each other and hold the K largest values."""
    points = x.flatten(2)
    distinct = bool((found.sort(2).values.diff(dim=2) > 0).all())
    values = points.gather(2, found).sort(2, descending=True).values
    return distinct and torch.equal(values, points.topk(k, dim=2).values)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--widths", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--sparse", action="store_true", help="maps of which all but 0.02%% are zero")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    about = machine(options.device)
    print(f"{about['processor']}, {about['threads']}, PyTorch {about['torch']}; medians in ms, one frame\n")
    print(f"| width | px | level | C | K | {' | '.join(WAYS)} | network |\n{'|---' * (6 + len(WAYS))}|")
    with torch.inference_mode():
        for width in options.widths:
            fast = SeRankDet(width=width).to(options.device).optimize(DTYPES[options.dtype])
            for size in options.sizes:
                frame = torch.randn(1, 1, size, size, device=options.device)
                ((*whole,),) = in_turn([partial(fast, frame)], 1, options.device)
                for level in range(1, LEVELS + 1):
                    channels, side = width * 2 ** (level - 1), size // 2 ** (level - 1)
                    k = min(rank_size(channels, level), side * side)
                    x = torch.randn(1, channels, side, side, device=options.device)
                    x = (x - 3.5 if options.sparse else x).relu()
                    x = x.to(DTYPES[options.dtype]).to(memory_format=torch.channels_last)
                    first = by_stable_sort(x, k)
                    for name, way in WAYS.items():
                        found = way(x, k)
                        if not (torch.equal(found, first) if name in FIRST else is_exact(found, x, k)):
                            raise SystemExit(f"{name} is wrong for {channels} channels of {side} x {side}, K {k}")
                    runs = [partial(way, x, k) for way in WAYS.values()]
                    times = [1000 * statistics.median(t) for t in in_turn(runs, options.repeats, options.device)]
                    cells = " | ".join(f"{t:.2f}" for t in times)
                    print(
                        f"| {width} | {size} | {level} | {channels} | {k} | {cells} | {1000 * whole[0]:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
