"""`serank checkpoints`."""

from __future__ import annotations

import argparse

from serank.checkpoints.card import METRICS
from serank.checkpoints.registry import Published, published

DETAILS = ""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """No options."""


def run(_: argparse.Namespace) -> int:
    head = ("name", "weights", "width", "data", "measured on", "IoU", "nIoU", "Pd", "Fa, 1e-6", "licence")
    rows = [head, *(line for row in published().values() for line in _lines(row))]
    widths = [max(len(line[i]) for line in rows) for i in range(len(head))]
    for line in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(
        "\nWeights of `none` aren't published: train them (serank train --preset paper-NAME) or convert the authors' "
        "(serank convert).\nBesides these: any folder that save_pretrained wrote, and any Hub repository id "
        "(owner/name)."
    )
    return 0


def _lines(row: Published) -> list[tuple[str, ...]]:
    """Table cells of a checkpoint: one line for each split with metrics, at least one."""
    about: tuple[str, ...] = (row.name, row.source, str(row.width or ""), ", ".join(row.data_sets))
    lines = []
    for result in row.results:
        iou, niou, pd, fa = (result.metrics[key] for key in METRICS)
        on = f"{result.data_set} {result.split}".strip()
        lines.append((*about, on, f"{iou:.4f}", f"{niou:.4f}", f"{pd:.4f}", f"{fa * 1e6:.1f}", row.licence or ""))
        about = ("",) * len(about)
    return lines or [(*about, *[""] * (1 + len(METRICS)), row.licence or "")]
