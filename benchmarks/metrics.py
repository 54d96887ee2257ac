"""How long the metrics take: Pd and Fa of 100 frames of 512 x 512 px with 20 components each, on one core.

python benchmarks/metrics.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from serank.metrics import DetectionMetrics, pd_fa

FRAMES, SIDE, COMPONENTS, REPEATS = 100, 512, 20, 5


def main() -> None:
    rng = np.random.default_rng(0)
    probability = np.zeros((FRAMES, SIDE, SIDE), np.float32)
    target = np.zeros((FRAMES, SIDE, SIDE), bool)
    for i in range(FRAMES):
        # one component in each of 20 places of a grid, predicted 1 px beside its target
        for place in rng.choice(100, COMPONENTS, replace=False):
            row, column = 51 * (place // 10) + 20, 51 * (place % 10) + 20
            side = int(rng.integers(1, 8))
            target[i, row : row + side, column : column + side] = True
            probability[i, row + 1 : row + side + 1, column : column + side] = 0.9

    def time_of(name: str, run: object) -> None:
        assert callable(run)
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        print(f"{name:<32} {statistics.median(seconds):.2f} s (fastest {min(seconds):.2f}, slowest {max(seconds):.2f})")

    print(f"{FRAMES} frames of {SIDE} x {SIDE} px with {COMPONENTS} components each, {REPEATS} runs")
    time_of("pd_fa, standard protocol", lambda: pd_fa(probability, target))
    time_of("pd_fa, released protocol", lambda: pd_fa(probability, target, protocol="released"))
    time_of("all metrics of DetectionMetrics", lambda: DetectionMetrics().update(probability, target))


if __name__ == "__main__":
    main()
