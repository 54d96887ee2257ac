"""Pictures of detections, and of detections beside the truth, drawn with Pillow alone."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from serank.metrics.components import component_table, label_components
from serank.utils.files import replacing

__all__ = ["Cell", "Verdict", "contact_sheet", "crop", "overlay", "plain_text", "save_overlay", "verdict_overlay"]

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

BOX_COLOUR = (255, 80, 0)
BOX = 255
"""Its place in the palette of a picture of detections; greys have those before it."""
TEXT = 12
PNG_LEVEL = 2
"""zlib's: files come out 5% larger than with its usual 6, in a sixth of the time (Pillow 13)."""
MARGIN = 3
"""Pixels of the frame between a target and its box, so that the box does not cover it."""
SMALLEST_SIDE = 480
"""Smaller frames are enlarged by a whole factor until their longest side reaches this."""


def overlay(frame: Float, boxes: Float, scores: Float) -> Image.Image:
    """The frame as a picture with a box and the score around each detection.

    Args:
        frame: `(H, W)` float32 in [0, 1].
        boxes: `(N, 4)`, x0, y0, x1, y1 in pixels.
        scores: `(N,)`.

    Returns:
        Palette image of the greys 0 to 254 (255 becomes 254) and the colour of the boxes, which takes a fraction of the
        time of an RGB one to write; of the frame's size times a whole factor, 1 for frames of 480 pixels or more.
    """
    height, width = frame.shape
    factor = max(1, math.ceil(SMALLEST_SIDE / max(height, width)))
    grey = Image.fromarray(np.clip(np.rint(255 * frame), 0, BOX - 1).astype(np.uint8))
    picture = grey.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    picture.putpalette([i for i in range(BOX) for _ in range(3)] + list(BOX_COLOUR))
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(TEXT)  # smaller ones are hard to read where a palette leaves no soft edges
    for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        left, top = (x0 - MARGIN) * factor, (y0 - MARGIN) * factor
        right, bottom = (x1 + MARGIN) * factor - 1, (y1 + MARGIN) * factor - 1
        draw.rectangle((left, top, right, bottom), outline=BOX)
        text = f"{score:.2f}"
        _, _, text_width, text_height = draw.textbbox((0, 0), text)
        # beside the frame's edge the label moves inside
        x = min(max(left, 0), picture.width - text_width)
        y = top - text_height - 4 if top > text_height + 4 else bottom + 2
        draw.text((x, y), text, fill=BOX)
    return picture


def save_overlay(path: str | os.PathLike[str], frame: Float, boxes: Float, scores: Float) -> None:
    """Writes `overlay(frame, boxes, scores)` to `path`, whole or not at all.

    Raises:
        ValueError: the suffix is no image format.
        OSError: the file can't be written.
    """
    target = Path(path)
    if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"path {str(target)!r} has no known image suffix; use .png, .jpg, .tif or .bmp")
    picture = overlay(frame, boxes, scores)
    with replacing(target) as temporary:
        if target.suffix.lower() == ".png":
            picture.save(temporary, compress_level=PNG_LEVEL)
        else:  # some formats, such as JPEG, know no palette
            picture.convert("RGB").save(temporary)


# Pictures beside the truth. They are palette images: 248 greys and a few colours, a third of the size of RGB files.

GREYS = 248
PAPER, INK, FAINT, FOUND, MISSED, MATCHED, FALSE = range(GREYS, GREYS + 7)
# Okabe and Ito's colours, made lighter where they must show on grey: readers with colour-blindness can tell them apart
COLOURS = (
    (24, 24, 28),
    (240, 240, 240),
    (170, 170, 175),
    (240, 228, 66),
    (255, 110, 0),
    (86, 180, 233),
    (255, 90, 205),
)
LEGEND = (
    (FOUND, "target, detected"),
    (MISSED, "target, missed"),
    (MATCHED, "prediction, matched"),
    (FALSE, "prediction, false"),
)
OVERLAY_SIDE = 640
"""Frames whose longest side is shorter are enlarged by the whole factor that reaches this."""
CROP_SIDE = 192
"""Crops of a contact sheet are enlarged by the largest whole factor that keeps them within this."""
SHEET_COLUMNS = 3
GAP = 10
LINE = 17
MOST_MARKS = 300
"""A picture with more components to mark shows their outlines alone."""


class Verdict(NamedTuple):
    """The components of a frame by what an evaluation made of them, each mask `(H, W)` bool."""

    found: Mask
    """Targets that were detected."""
    missed: Mask
    matched: Mask
    """Predicted components that belong to a detected target."""
    false: Mask

    def cut(self, place: tuple[slice, slice]) -> Verdict:
        """The same within a rectangle."""
        return Verdict(*(mask[place] for mask in self))


class Cell(NamedTuple):
    """One entry of a contact sheet; all arrays of one size, `(H, W)`."""

    picture: Float
    """In [0, 1], the crop of the frame."""
    probability: Float
    verdict: Verdict
    lines: Sequence[str]
    """Written below, each on a line, cut where it is too long."""


def plain_text(text: str) -> str:
    """`text` with `?` for what the fonts of pictures may lack: all but printable Latin-1."""
    return "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in text)


def crop(shape: tuple[int, int], x: float, y: float, side: int) -> tuple[slice, slice]:
    """Rows and columns of the square around a place, moved inside the frame, smaller only where the frame is.

    Args:
        shape: H and W of the frame.
        x: column of the place.
        y: row of the place.
        side: of the square, px.
    """
    height, width = shape
    top = min(max(0, round(y) - side // 2), max(0, height - side))
    left = min(max(0, round(x) - side // 2), max(0, width - side))
    return slice(top, min(height, top + side)), slice(left, min(width, left + side))


def verdict_overlay(picture: Float, verdict: Verdict, caption: str) -> Image.Image:
    """A frame with the outlines of targets and predictions, caption and legend.

    A ring stands around each missed target and a diamond around each false prediction.

    Outlines run outside of the pixels that they belong to; where two coincide their colours alternate.

    Args:
        picture: `(H, W)` in [0, 1], the frame or, without one, the probability. Its range is stretched.
        verdict: masks of the same size.
        caption: one line, written above.

    Returns:
        A palette image, the frame enlarged by a whole factor where it is small.
    """
    height, width = picture.shape
    factor = max(1, math.ceil(OVERLAY_SIDE / max(height, width)))
    indices = _outlined(picture, verdict, factor)
    font = ImageFont.load_default(TEXT)
    canvas_width = max(indices.shape[1], 240)
    legend = _legend(canvas_width, font)
    bottom = LINE + 6 + indices.shape[0]
    image = _canvas(canvas_width, bottom + legend.height)
    frame = _palette_image(indices)
    _mark(ImageDraw.Draw(frame), verdict, factor)
    image.paste(frame, (0, LINE + 6))
    draw = ImageDraw.Draw(image)
    draw.text((4, 3), _fitted(caption, font, canvas_width - 8), fill=INK, font=font)
    image.paste(legend, (0, bottom))
    return image


def contact_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Crops with outlines, each beside its probability, three to a row.

    The frame's crop is stretched to its own range; the probability goes from black, 0, to white, 1, and shows the
    targets' outlines alone.

    Args:
        cells: one or more.

    Returns:
        A palette image.

    Raises:
        ValueError: no cell.
    """
    if not cells:
        raise ValueError("cells is empty; expected at least one")
    font = ImageFont.load_default(TEXT)
    columns = min(SHEET_COLUMNS, len(cells))
    cell_width = 2 * CROP_SIDE + 4 + GAP
    cell_height = CROP_SIDE + LINE * max(len(cell.lines) for cell in cells) + 4 + GAP
    legend = _legend(columns * cell_width, font)
    rows = -(-len(cells) // columns)
    image = _canvas(columns * cell_width + GAP, legend.height + rows * cell_height)
    image.paste(legend, (GAP - 4, 0))
    draw = ImageDraw.Draw(image)
    for i, cell in enumerate(cells):
        left = GAP + i % columns * cell_width
        top = legend.height + i // columns * cell_height
        factor = max(1, CROP_SIDE // max(cell.picture.shape))
        nothing = np.zeros_like(cell.verdict.false)
        truth = cell.verdict._replace(matched=nothing, false=nothing)
        pair = (_outlined(cell.picture, cell.verdict, factor), _outlined(cell.probability, truth, factor, (0.0, 1.0)))
        for j, indices in enumerate(pair):
            image.paste(_palette_image(indices), (left + j * (CROP_SIDE + 4), top))
        for j, line in enumerate(cell.lines):
            place = (left, top + CROP_SIDE + 2 + j * LINE)
            draw.text(place, _fitted(line, font, cell_width - GAP), fill=FAINT if j else INK, font=font)
    return image


def _canvas(width: int, height: int) -> Image.Image:
    image = Image.new("P", (width, height), PAPER)
    _set_palette(image)
    return image


def _palette_image(indices: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(indices)
    _set_palette(image)  # which makes a palette image of a grey one
    return image


def _set_palette(image: Image.Image) -> None:
    greys = [round(255 * i / (GREYS - 1)) for i in range(GREYS)]
    image.putpalette([value for grey in greys for value in (grey, grey, grey)] + [v for c in COLOURS for v in c])


def _outlined(
    picture: Float, verdict: Verdict, factor: int, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Palette indices `(H * factor, W * factor)`: greys and outlines."""
    low, high = limits or (float(picture.min()), float(picture.max()))
    unit = np.clip((picture - low) / (high - low if high > low else 1.0), 0, 1)
    indices = _enlarged(np.rint(unit * (GREYS - 1)).astype(np.uint8), factor)
    thickness = min(max(1, factor // 4), 4)
    diagonal = np.arange(indices.shape[0])[:, None] + np.arange(indices.shape[1])
    dashes = diagonal // (2 * thickness) % 2 == 0
    drawn = np.zeros(indices.shape, np.bool_)
    for mask, colour in zip(verdict, (FOUND, MISSED, MATCHED, FALSE), strict=True):
        if mask.any():
            line = _outline(_enlarged(mask, factor), thickness)
            indices[line & (~drawn | dashes)] = colour
            drawn |= line
    return indices


def _enlarged(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _outline(mask: Mask, thickness: int) -> Mask:
    """The pixels within `thickness` of the mask, outside it."""
    grown = np.pad(mask, thickness)
    for axis in (0, 1):
        grown = np.logical_or.reduce([np.roll(grown, shift, axis) for shift in range(-thickness, thickness + 1)])
    inner = slice(thickness, -thickness)
    outline: Mask = grown[inner, inner] & ~mask
    return outline


def _mark(draw: ImageDraw.ImageDraw, verdict: Verdict, factor: int) -> None:
    """A ring around each missed target and a diamond around each false prediction."""
    for mask, colour in ((verdict.missed, MISSED), (verdict.false, FALSE)):
        table = component_table(*label_components(mask))
        if len(table) > MOST_MARKS:
            continue
        for x0, y0, x1, y1 in (table.boxes * factor).tolist():
            x, y = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
            radius = math.hypot(x1 - x0, y1 - y0) / 2 + 8
            if colour == MISSED:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)
            else:
                reach = radius * 1.4
                corners = [(x - reach, y), (x, y - reach), (x + reach, y), (x, y + reach)]
                draw.polygon(corners, outline=colour)


def _legend(width: int, font: Font) -> Image.Image:
    """The colours' meaning, wrapped to `width`."""
    places: list[tuple[int, int]] = []
    x, y = 4, 4
    for _, text in LEGEND:
        entry = 15 + math.ceil(font.getlength(text)) + 14
        if x > 4 and x + entry > width:
            x, y = 4, y + LINE
        places.append((x, y))
        x += entry
    image = _canvas(width, y + LINE + 4)
    draw = ImageDraw.Draw(image)
    for (colour, text), (x, y) in zip(LEGEND, places, strict=True):
        draw.rectangle((x, y + 4, x + 10, y + 11), fill=colour)
        draw.text((x + 15, y), text, fill=INK, font=font)
    return image


def _fitted(text: str, font: Font, width: int) -> str:
    """`text`, cut until it is no wider than `width`."""
    text = plain_text(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
