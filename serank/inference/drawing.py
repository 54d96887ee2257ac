"""Pictures of detections: boxes and scores over a frame, drawn with Pillow."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from serank.inference.label_room import LabelRoom
from serank.utils.files import replacing

BOX_INDEX = 255  # palette index of the box colour; 0-254 are greys
BOX_COLOUR = (255, 80, 0)
FONT_SIZE = 12  # smaller text is hard to read where a palette leaves no soft edges
PNG_LEVEL = 2  # zlib level: files 5% larger than at the default 6, in a sixth of the time
MARGIN = 3  # frame pixels between a target and its box, so that the box does not cover it
MIN_SIDE = 480  # smaller frames are enlarged by a whole factor until their longest side reaches this


def overlay(
    frame: NDArray[np.floating], boxes: NDArray[Any], scores: NDArray[Any], tracks: NDArray[Any] | None = None
) -> Image.Image:
    """Draws a box around each detection of a frame, and its score beside it on black.

    Labels cover neither each other nor a box: one that has no room beside its box goes further off, with a line to
    it, and where there is none at all it is left out, that of the lowest score first.

    Args:
        frame: `(H, W)` in [0, 1].
        boxes: `(N, 4)`, x0, y0, x1, y1 in pixels; x1 and y1 are exclusive.
        scores: `(N,)` in [0, 1], peak probabilities or calibrated scores, written as `p=0.93`.
        tracks: `(N,)`, track numbers, written before the score as `#4`.

    Returns:
        Palette image, faster to write than RGB: greys 0 to 254 (255 becomes 254) and the colour of the boxes. Its size
        is the frame's times a whole factor, 1 for frames of 480 pixels or more.
    """
    height, width = frame.shape
    factor = max(1, math.ceil(MIN_SIDE / max(height, width)))
    grey = Image.fromarray(np.clip(np.rint(255 * frame), 0, BOX_INDEX - 1).astype(np.uint8))
    picture = grey.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    picture.putpalette([i for i in range(BOX_INDEX) for _ in range(3)] + list(BOX_COLOUR))
    draw = ImageDraw.Draw(picture)
    outlines = [
        ((x0 - MARGIN) * factor, (y0 - MARGIN) * factor, (x1 + MARGIN) * factor - 1, (y1 + MARGIN) * factor - 1)
        for x0, y0, x1, y1 in boxes.astype(int).tolist()
    ]
    room = LabelRoom(picture.width, picture.height)
    for outline in outlines:
        draw.rectangle(outline, outline=BOX_INDEX)
        room.take(outline)
    labels: dict[str, Image.Image] = {}
    for number in np.argsort(-scores, kind="stable").tolist():
        text = f"p={scores[number]:.2f}" if tracks is None else f"#{tracks[number]} p={scores[number]:.2f}"
        if text not in labels:
            labels[text] = _text_mask(text)
        label = labels[text]
        place = room.place(outlines[number], label.width, label.height)
        if place is None:
            continue
        # on black: thin letters are lost on a bright or busy background, and in videos, whose colour is coarser
        draw.rectangle((place.x, place.y, place.x + label.width - 1, place.y + label.height - 1), fill=0)
        draw.bitmap((place.x, place.y), label, fill=BOX_INDEX)
        if place.line is not None:
            draw.line(place.line, fill=BOX_INDEX)
    return picture


def save_overlay(
    path: str | os.PathLike[str],
    frame: NDArray[np.floating],
    boxes: NDArray[Any],
    scores: NDArray[Any],
    tracks: NDArray[Any] | None = None,
) -> None:
    """Writes the picture of `overlay` to `path`, whole or not at all.

    Args:
        path: its suffix sets the format, such as `.png`.
        frame: as for `overlay`.
        boxes: as for `overlay`.
        scores: as for `overlay`.
        tracks: as for `overlay`.

    Raises:
        ValueError: the suffix is no image format.
        OSError: the file can't be written.
    """
    target = Path(path)
    if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"path {str(target)!r} has no known image suffix; use .png, .jpg, .tif or .bmp")
    picture = overlay(frame, boxes, scores, tracks)
    with replacing(target) as temporary:
        if target.suffix.lower() == ".png":
            picture.save(temporary, **png_options())
        else:  # some formats, such as JPEG, know no palette
            picture.convert("RGB").save(temporary)


def png_options() -> dict[str, Any]:
    """How PNG files are saved, as keyword arguments of Pillow."""
    return {"compress_level": PNG_LEVEL}


def _text_mask(text: str) -> Image.Image:
    """`text` as a 1-bit image whose first pixel is the text's origin."""
    font = ImageFont.load_default(FONT_SIZE)
    _, _, right, bottom = font.getbbox(text, mode="1")
    mask = Image.new("1", (math.ceil(right), math.ceil(bottom)))
    ImageDraw.Draw(mask).text((0, 0), text, fill=1, font=font)
    return mask
