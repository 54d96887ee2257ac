"""The model card of a trained checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from serank._version import __version__
from serank.checkpoints.card import INTRODUCTION, METRICS, UNKNOWN, Result, front_matter
from serank.train.recipe import Recipe


def training_card(
    config: Mapping[str, Any],
    recipe: Recipe,
    row: Mapping[str, float],
    origin: Sequence[str] = (),
    *,
    licence: str | None = None,
    data_sets: Sequence[str] = (),
) -> str:
    """The model card of a checkpoint of `serank.train.fit`, in Markdown.

    Its metadata hold the metrics. With licence, data sets and metrics, `serank publish` takes it as it is.

    Args:
        config: the network's arguments.
        recipe: of the training.
        row: of the history, for the kept weights; without metrics if nothing was validated.
        origin: lines on how the training was started and on its data sets.
        licence: of the weights, an identifier of the Hub's list; `None` leaves it to the user.
        data_sets: names of what was trained on; none leaves them to the user, and the metrics' one `UNKNOWN`.
    """
    metrics = {key: round(row[key], 8) for key in METRICS if math.isfinite(row.get(key, math.nan))}
    metadata = front_matter(
        "SeRankDet",
        [Result(" + ".join(data_sets) or UNKNOWN, "val", metrics)] if metrics else [],
        licence=licence,
        data_sets=data_sets,
    )
    lines = [metadata, INTRODUCTION]
    if "iou" in row:
        lines += [
            "## Metrics\n",
            f"On the validation set ({row['frames']:.0f} frames, {row['targets']:.0f} targets), native resolution, "
            f"standard protocol, threshold {config['threshold']}. The epoch was chosen on this same set, which "
            "flatters the metrics.\n",
            "| IoU | nIoU | Pd | Fa, 1e-6 | false components a frame |",
            "|---|---|---|---|---|",
            f"| {row['iou']:.4f} | {row['niou']:.4f} | {row['pd']:.4f} | {row['fa'] * 1e6:.2f} "
            f"| {row['false_components']:.3f} |\n",
        ]
    lines += [
        "## Training\n",
        f"serank {__version__}, PyTorch {torch.__version__}; {'averaged ' if recipe.ema_decay else ''}weights after "
        f"epoch {row['epoch']:.0f} of {recipe.epochs}.\n",
        *(f"- {entry}" for entry in origin),
        *([""] if origin else []),
        "```json",
        json.dumps({"network": dict(config), "recipe": recipe.to_dict()}, indent=1),
        "```",
    ]
    return "\n".join(lines) + "\n"
