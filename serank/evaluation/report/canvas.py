"""Palette images with text and a legend, which overlays and contact sheets share.

A palette image takes a third of the size of an RGB file. The palette is the same for all: 248 greys and a few colours.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "DETECTED",
    "FAINT",
    "FALSE",
    "GREYS",
    "INK",
    "LINE_HEIGHT",
    "MATCHED",
    "MISSED",
    "Font",
    "draw_legend",
    "fit_text",
    "load_font",
    "new_canvas",
    "palette_image",
    "printable",
]

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

GREYS = 248  # palette indices 0-247 are greys
BACKGROUND, INK, FAINT, DETECTED, MISSED, MATCHED, FALSE = range(GREYS, GREYS + 7)  # palette indices of the colours
# Okabe and Ito's colours, which readers with colour-blindness can tell apart, made lighter where they lie on grey
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
    (DETECTED, "target, detected"),
    (MISSED, "target, missed"),
    (MATCHED, "prediction, matched"),
    (FALSE, "prediction, false"),
)
FONT_SIZE = 12
LINE_HEIGHT = 17  # px from one line of text to the next


def load_font() -> Font:
    """The font of all text, which comes with Pillow."""
    return ImageFont.load_default(FONT_SIZE)


def new_canvas(width: int, height: int) -> Image.Image:
    """An empty palette image."""
    image = Image.new("P", (width, height), BACKGROUND)
    _set_palette(image)
    return image


def palette_image(indices: NDArray[np.uint8]) -> Image.Image:
    """`(H, W)` palette indices as an image."""
    image = Image.fromarray(indices)
    _set_palette(image)  # turns a grey image into a palette image
    return image


def _set_palette(image: Image.Image) -> None:
    greys = [round(255 * i / (GREYS - 1)) for i in range(GREYS)]
    image.putpalette([value for grey in greys for value in (grey, grey, grey)] + [v for c in COLOURS for v in c])


def draw_legend(width: int, font: Font) -> Image.Image:
    """The meaning of the outlines' colours, wrapped to `width`."""
    positions: list[tuple[int, int]] = []
    x, y = 4, 4
    for _, text in LEGEND:
        entry = 15 + math.ceil(font.getlength(text)) + 14
        if x > 4 and x + entry > width:
            x, y = 4, y + LINE_HEIGHT
        positions.append((x, y))
        x += entry
    image = new_canvas(width, y + LINE_HEIGHT + 4)
    draw = ImageDraw.Draw(image)
    for (colour, text), (x, y) in zip(LEGEND, positions, strict=True):
        draw.rectangle((x, y + 4, x + 10, y + 11), fill=colour)
        draw.text((x + 15, y), text, fill=INK, font=font)
    return image


def printable(text: str) -> str:
    """`text` with `?` for every character that fonts may lack: all but printable Latin-1."""
    return "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in text)


def fit_text(text: str, font: Font, width: int) -> str:
    """`text`, made printable and cut with `...` to at most `width` px."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
