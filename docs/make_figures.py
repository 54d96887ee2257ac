"""Draws the figures of the method page, one SVG a layer: boxes joined by arrows.

python docs/make_figures.py [--output docs/figures]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
HEIGHT = 44
MARGIN = 12


class Box(NamedTuple):
    """A labelled box; x and y of its left upper corner, in SVG units."""

    x: int
    y: int
    width: int
    text: str


FIGURES: dict[str, tuple[str, list[Box], list[tuple[int, int]]]] = {
    "ddc": (
        "Dilated difference convolution",
        [
            Box(0, 70, 60, "X"),
            Box(110, 0, 310, "vanilla: conv 3×3, three times"),
            Box(110, 70, 310, "difference: W with centre w₀ − θ Σw"),
            Box(110, 140, 310, "dilated: conv 3×3, dilation 2, 4, 2"),
            Box(480, 70, 110, "concatenate"),
            Box(640, 70, 100, "conv 1×1"),
            Box(800, 70, 60, "Y"),
        ],
        [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5), (5, 6)],
    ),
    "serank": (
        "Selective rank-aware attention",
        [
            Box(0, 140, 90, "X: C×H×W"),
            Box(130, 0, 150, "F: K largest values"),
            Box(130, 70, 150, "P: sin, cos at them"),
            Box(320, 35, 90, "T = F + P"),
            Box(450, 0, 90, "Q = T·Wq"),
            Box(450, 70, 90, "K = T·Wk"),
            Box(580, 35, 180, "A = softmax(norm(QKᵀ))"),
            Box(690, 140, 90, "(1 + A) X"),
            Box(820, 140, 40, "Y"),
        ],
        [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6), (6, 7), (0, 7), (7, 8)],
    ),
    "lsff": (
        "Large selective feature fusion",
        [
            Box(0, 0, 140, "X, of the encoder"),
            Box(0, 140, 140, "X′, of the decoder"),
            Box(180, 70, 190, "mean, max over channels"),
            Box(410, 70, 160, "s: conv 7×7, sigmoid"),
            Box(620, 0, 90, "X s"),
            Box(620, 140, 90, "X′ (1 − s)"),
            Box(750, 70, 40, "+"),
            Box(820, 70, 40, "Y"),
        ],
        [(0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (0, 4), (1, 5), (4, 6), (5, 6), (6, 7)],
    ),
}
"""By file name: title, boxes, and arrows as pairs of boxes."""

STYLE = (
    "rect{fill:#fff4ee;stroke:#d84315}line{stroke:#555;marker-end:url(#head)}"
    "text{font:15px sans-serif;fill:#222;text-anchor:middle;dominant-baseline:central}"
)


def ends(a: Box, b: Box) -> tuple[int, int, int, int]:
    """An arrow from `a` to `b`: sideways where b lies to the right, down within a column."""
    if b.x >= a.x + a.width:
        return a.x + a.width, a.y + HEIGHT // 2, b.x - 3, b.y + HEIGHT // 2
    return a.x + a.width // 2, a.y + HEIGHT, b.x + b.width // 2, b.y - 3


def svg(title: str, boxes: Sequence[Box], arrows: Sequence[tuple[int, int]]) -> str:
    """The figure as SVG, on white, so that it is read on dark pages too."""
    width = max(box.x + box.width for box in boxes) + 2 * MARGIN
    height = max(box.y for box in boxes) + HEIGHT + 2 * MARGIN
    lines = []
    for start, end in arrows:
        x1, y1, x2, y2 = ends(boxes[start], boxes[end])
        lines.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for box in boxes:
        lines.append(f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{HEIGHT}" rx="6"/>')
        lines.append(f'<text x="{box.x + box.width // 2}" y="{box.y + HEIGHT // 2}">{escape(box.text)}</text>')
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN} {-MARGIN} {width} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>\n'
        f'<rect x="{-MARGIN}" y="{-MARGIN}" width="{width}" height="{height}" style="fill:#fff;stroke:none"/>\n'
        f"{body}\n</svg>\n"
    )


def main() -> None:
    """Reads the command line and writes the figures."""
    parser = argparse.ArgumentParser(description="Draw the method's figures.")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "figures")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, figure in FIGURES.items():
        (output / f"{name}.svg").write_text(svg(*figure), encoding="utf-8")


if __name__ == "__main__":
    main()
