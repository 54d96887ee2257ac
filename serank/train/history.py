"""What a training saw, and by what its epochs are compared."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """Losses and metrics of a training.

    Attributes:
        rows: one for each epoch: `epoch`, `loss`, `grad_norm` (mean before clipping, over the steps where it is
            finite), `lr`, `seconds` of its steps, `waiting` (share of these in which process 0 waited for crops, lower
            with `workers`; an upper bound on a GPU, whose work is queued), and on validated epochs the metrics.
        best: the row of the kept weights; empty before the first validation.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)


def selection_score(row: dict[str, float]) -> float:
    """The mean of IoU and nIoU, by which epochs are compared; `row` holds the metrics of a validation."""
    return (row["iou"] + row["niou"]) / 2
