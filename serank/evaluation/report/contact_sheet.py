"""Contact sheets: crops of many frames in one picture, each beside its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.evaluation.by_boxes import BoxFrameScore
from serank.evaluation.report.canvas import FAINT, INK, LINE_HEIGHT, draw_legend, new_canvas, palette_image, write_line
from serank.evaluation.report.overlays import MatchMasks, draw_outlines
from serank.evaluation.results import FrameScore, FrameView
from serank.metrics.components import find_components

Float = NDArray[np.float32]

CROP_SIDE = 192  # crops are enlarged by the largest whole factor that keeps them within this, px
COLUMNS = 3
GAP = 10  # px between cells
MIN_CROP = 48  # side of crops in px of the frame, more around larger targets


class Cell(NamedTuple):
    """One entry of a contact sheet; all arrays of one size, `(H, W)`."""

    picture: Float
    """In [0, 1], the crop of the frame."""
    probability: Float
    masks: MatchMasks
    lines: Sequence[str]
    """Written below, each on a line, cut where it is too long."""


def crop_window(shape: tuple[int, int], x: float, y: float, side: int) -> tuple[slice, slice]:
    """Rows and columns of the square of `side` px around (x, y), moved inside a frame of `shape`, cut where larger."""
    height, width = shape
    top = min(max(0, round(y) - side // 2), max(0, height - side))
    left = min(max(0, round(x) - side // 2), max(0, width - side))
    return slice(top, min(height, top + side)), slice(left, min(width, left + side))


def cell_around(
    view: FrameView, masks: MatchMasks, place: tuple[float, float], extent: float, lines: Sequence[str]
) -> Cell:
    """The entry of what lies around `place`, x and y, and is `extent` px large."""
    # the largest whole factor that shows all of it, then as much of the frame as fits
    side = CROP_SIDE // max(1, int(CROP_SIDE / max(MIN_CROP, extent)))
    window = crop_window(view.mask.shape, *place, side)
    return Cell(view.background[window], view.probability[window], masks.crop(window), lines)


def false_alarm_cell(number: int, score: FrameScore | BoxFrameScore, view: FrameView, masks: MatchMasks) -> Cell:
    """The entry of a frame's largest false component, of which there must be one."""
    table = find_components(masks.false)
    x0, y0, x1, y1 = table.boxes[int(table.areas.argmax())].tolist()
    lines = (f"{number}  {score.name}", f"{score.false_pixels} false px, {score.false_components} components")
    return cell_around(view, masks, ((x0 + x1) / 2, (y0 + y1) / 2), 2 * max(x1 - x0, y1 - y0), lines)


def contact_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Draws crops with outlines, each beside its probability, three cells to a row.

    The frame's crop is stretched to its own range; the probability goes from black, 0, to white, 1, and shows the
    targets' outlines alone. Raises ValueError where there is no cell.
    """
    if not cells:
        raise ValueError("cells is empty; expected at least one")
    columns = min(COLUMNS, len(cells))
    cell_width = 2 * CROP_SIDE + 4 + GAP
    cell_height = CROP_SIDE + LINE_HEIGHT * max(len(cell.lines) for cell in cells) + 4 + GAP
    legend = draw_legend(columns * cell_width)
    rows = -(-len(cells) // columns)
    image = new_canvas(columns * cell_width + GAP, legend.height + rows * cell_height)
    image.paste(legend, (GAP - 4, 0))
    for i, cell in enumerate(cells):
        left = GAP + i % columns * cell_width
        top = legend.height + i // columns * cell_height
        factor = max(1, CROP_SIDE // max(cell.picture.shape))
        none = np.zeros_like(cell.masks.false)
        targets = cell.masks._replace(matched=none, false=none)
        pair = (
            draw_outlines(cell.picture, cell.masks, factor),
            draw_outlines(cell.probability, targets, factor, (0.0, 1.0)),
        )
        for j, indices in enumerate(pair):
            image.paste(palette_image(indices), (left + j * (CROP_SIDE + 4), top))
        for j, line in enumerate(cell.lines):
            position = (left, top + CROP_SIDE + 2 + j * LINE_HEIGHT)
            write_line(image, position, line, cell_width - GAP, FAINT if j else INK)
    return image
