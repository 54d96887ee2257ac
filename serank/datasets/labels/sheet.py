"""A picture of labelled targets beside the masks made of them, to check by eye."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from serank.datasets.labels.masks import ObjectMask

CELLS = 48
"""Most targets on a sheet."""
COLUMNS = 6
SIDE = 96
"""Px of each of a target's two pictures on the sheet."""
AROUND = 24
"""Least side in px of what is cut out of the frame."""
GAP = 2
"""Px between the two."""
CELL = 2 * SIDE + GAP
CAPTION = 14
BOX_COLOUR = (90, 200, 90)
MASK_COLOUR = (255, 70, 40)


class SheetCell(NamedTuple):
    """A target with its surroundings."""

    name: str
    grey: NDArray[np.uint8]
    """`(S, S)` uint8, stretched to the full range."""
    mask: NDArray[np.bool_]
    """`(S, S)` bool."""
    box: tuple[int, int, int, int]
    """In px of `grey`; x1 and y1 are exclusive."""


def cut(name: str, grey: NDArray[Any], found: ObjectMask) -> SheetCell:
    """A square around a target of the frame `name`, `(H, W)` grey levels; beyond the frame's edges it is black."""
    x0, y0, x1, y1 = found.box
    side = max(AROUND, 2 * max(x1 - x0, y1 - y0))
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    near = grey[max(0, top) : top + side, max(0, left) : left + side].astype(np.float64)
    low, high = float(near.min()), float(near.max())
    pixels = np.zeros((side, side), np.uint8)
    mask = np.zeros((side, side), np.bool_)
    row, column = max(0, -top), max(0, -left)
    pixels[row : row + near.shape[0], column : column + near.shape[1]] = np.rint(
        (near - low) / max(high - low, 1e-12) * 255
    )
    rows, columns = np.nonzero(found.mask)
    rows, columns = rows + found.where[1] - top, columns + found.where[0] - left
    kept = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    mask[rows[kept], columns[kept]] = True
    return SheetCell(name, pixels, mask, (x0 - left, y0 - top, x1 - left, y1 - top))


def draw_sheet(cells: list[SheetCell]) -> Image.Image:
    """RGB image of one or more targets in rows, each twice: as it is, and with its box (green) and its mask (red)."""
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (CELL + 8), rows * (SIDE + CAPTION + 6)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10)
    for i, cell in enumerate(cells):
        x, y = i % columns * (CELL + 8) + 4, i // columns * (SIDE + CAPTION + 6) + 3
        plain = Image.fromarray(cell.grey).convert("RGB")
        colours = np.asarray(plain).astype(np.float64)
        colours[cell.mask] = 0.45 * colours[cell.mask] + 0.55 * np.array(MASK_COLOUR)
        marked = Image.fromarray(colours.astype(np.uint8))
        for picture, left in ((plain, x), (marked, x + SIDE + GAP)):
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, y))
        scale = SIDE / len(cell.grey)
        x0, y0, x1, y1 = (round(side * scale) for side in cell.box)
        x0, x1 = x0 + SIDE + GAP, x1 + SIDE + GAP
        draw.rectangle((x + x0 - 1, y + y0 - 1, x + x1, y + y1), outline=BOX_COLOUR)
        caption = "".join(c if c.isascii() and c.isprintable() else "?" for c in cell.name)
        draw.text((x, y + SIDE + 1), caption[:34], fill=(210, 210, 210), font=font)
    return sheet
