"""Pictures of detections, drawn with Pillow alone."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from serank.files import replacing

if TYPE_CHECKING:
    from serank.detect import Detections

__all__ = ["overlay", "save_overlay"]

BOX_COLOUR = (255, 80, 0)
MARGIN = 3
"""Pixels of the frame between a target and its box, so that the box does not cover it."""
SMALLEST_SIDE = 480
"""Smaller frames are enlarged by a whole factor until their longest side reaches this."""


def overlay(detections: Detections) -> Image.Image:
    """The frame as an RGB picture with a box and the score around each detection.

    Args:
        detections: what `SeRankDet.detect` found in one frame.

    Returns:
        RGB image of the frame's size times a whole factor, 1 for frames of 480 pixels or more.
    """
    height, width = detections.frame.shape
    factor = max(1, math.ceil(SMALLEST_SIDE / max(height, width)))
    grey = Image.fromarray(np.rint(detections.frame * 255).astype(np.uint8))
    picture = grey.resize((width * factor, height * factor), Image.Resampling.NEAREST).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for (x0, y0, x1, y1), score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True):
        left, top = (x0 - MARGIN) * factor, (y0 - MARGIN) * factor
        right, bottom = (x1 + MARGIN) * factor - 1, (y1 + MARGIN) * factor - 1
        draw.rectangle((left, top, right, bottom), outline=BOX_COLOUR)
        text = f"{score:.2f}"
        _, _, text_width, text_height = draw.textbbox((0, 0), text)
        # beside the frame's edge the label moves inside
        x = min(max(left, 0), picture.width - text_width)
        y = top - text_height - 4 if top > text_height + 4 else bottom + 2
        draw.text((x, y), text, fill=BOX_COLOUR)
    return picture


def save_overlay(detections: Detections, path: str | os.PathLike[str]) -> None:
    """Writes `overlay(detections)` to `path`, whole or not at all.

    Raises:
        ValueError: the suffix is no image format.
        OSError: the file can't be written.
    """
    target = Path(path)
    if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"path {str(target)!r} has no known image suffix; use .png, .jpg, .tif or .bmp")
    with replacing(target) as temporary:
        overlay(detections).save(temporary)
