"""Palette images with text and a legend, which overlays and contact sheets share.

A palette image takes a third of the size of an RGB file. The palette is the same for all: 248 greys and a few colours.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GREYS = 248  # palette indices 0-247 are greys
BACKGROUND, INK, FAINT, DETECTED, MISSED, MATCHED, FALSE = range(GREYS, GREYS + 7)  # palette indices of the colours
# Okabe and Ito's colours, which readers with colour-blindness can tell apart, made lighter where they lie on grey
COLOURS = "18181c f0f0f0 aaaaaf f0e442 ff6e00 56b4e9 ff5acd"
PALETTE = bytes(round(255 * i / (GREYS - 1)) for i in range(GREYS) for _ in range(3)) + bytes.fromhex(COLOURS)
LEGEND = (
    (DETECTED, "target, detected"),
    (MISSED, "target, missed"),
    (MATCHED, "prediction, matched"),
    (FALSE, "prediction, false"),
)
FONT_SIZE = 12
LINE_HEIGHT = 17  # px from one line of text to the next


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all text, which comes with Pillow."""
    return ImageFont.load_default(FONT_SIZE)


def new_canvas(width: int, height: int) -> Image.Image:
    """An empty palette image."""
    return palette_image(np.full((height, width), BACKGROUND, np.uint8))


def palette_image(indices: NDArray[np.uint8]) -> Image.Image:
    """`(H, W)` palette indices as an image."""
    image = Image.fromarray(indices)
    image.putpalette(PALETTE)  # turns a grey image into a palette image
    return image


def draw_legend(width: int) -> Image.Image:
    """The meaning of the outlines' colours, wrapped to `width`."""
    positions: list[tuple[int, int]] = []
    x, y = 4, 4
    for _, text in LEGEND:
        entry = 15 + math.ceil(_font().getlength(text)) + 14
        if x > 4 and x + entry > width:
            x, y = 4, y + LINE_HEIGHT
        positions.append((x, y))
        x += entry
    image = new_canvas(width, y + LINE_HEIGHT + 4)
    draw = ImageDraw.Draw(image)
    for (colour, text), (x, y) in zip(LEGEND, positions, strict=True):
        draw.rectangle((x, y + 4, x + 10, y + 11), fill=colour)
        draw.text((x + 15, y), text, fill=INK, font=_font())
    return image


def printable(text: str) -> str:
    """`text` with `?` for every character that fonts may lack: all but printable Latin-1."""
    return "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in text)


def write_line(image: Image.Image, position: tuple[int, int], text: str, width: int, colour: int = INK) -> None:
    """Writes `text`, made printable and cut with `...` to at most `width` px."""
    text = whole = printable(text)
    while text and _font().getlength(whole) > width:
        text = text[:-1]
        whole = text + "..."
    ImageDraw.Draw(image).text(position, whole, fill=colour, font=_font())
