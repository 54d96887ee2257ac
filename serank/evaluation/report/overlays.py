"""Frames with the outlines of targets and predictions, coloured by how they were matched."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from serank.evaluation.report.canvas import (
    DETECTED,
    FALSE,
    GREYS,
    LINE_HEIGHT,
    MATCHED,
    MISSED,
    draw_legend,
    new_canvas,
    palette_image,
    write_line,
)
from serank.metrics.checks import Protocol
from serank.metrics.components import component_table, dilate, find_components, label_components
from serank.metrics.counting import match_components

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

MIN_SIDE = 640  # frames whose longest side is shorter are enlarged by the whole factor that reaches this
MIN_WIDTH = 240  # px of a picture, for its caption and legend
MAX_MARKS = 300  # where more components are to be marked, their outlines alone are drawn


class MatchMasks(NamedTuple):
    """The components of a frame by how they were matched, each mask `(H, W)` bool."""

    detected: Mask  # targets with a match
    missed: Mask  # and without one
    matched: Mask  # predicted components with a match
    false: Mask  # and without one

    def crop(self, window: tuple[slice, slice]) -> MatchMasks:
        """The masks within a window of rows and columns."""
        return MatchMasks(*(mask[window] for mask in self))


def match_masks(predicted: Mask, target: Mask, max_distance: float, protocol: Protocol) -> MatchMasks:
    """Matches the components of two masks `(H, W)` bool as `serank.metrics.counting.match_components` does."""
    target_labels, target_count = label_components(target)
    labels, count = label_components(predicted)
    matches = match_components(
        component_table(labels, count), component_table(target_labels, target_count), max_distance, protocol
    )
    detected = np.isin(target_labels, [1 + match.target for match in matches])
    matched = np.isin(labels, [1 + match.prediction for match in matches])
    return MatchMasks(detected, target & ~detected, matched, predicted & ~matched)


def match_overlay(picture: Float, masks: MatchMasks, caption: str) -> Image.Image:
    """Draws a frame with outlines, a caption above and a legend below.

    Outlines run just outside of the components, and where two coincide their colours alternate. A circle marks each
    missed target and a diamond each false prediction. `picture`, `(H, W)` in [0, 1], is stretched to its own range and
    enlarged by a whole factor where it is small; the caption is cut where it is too long.
    """
    height, width = picture.shape
    factor = max(1, math.ceil(MIN_SIDE / max(height, width)))
    indices = draw_outlines(picture, masks, factor)
    canvas_width = max(indices.shape[1], MIN_WIDTH)
    legend = draw_legend(canvas_width)
    top = LINE_HEIGHT + 6
    image = new_canvas(canvas_width, top + indices.shape[0] + legend.height)
    frame = palette_image(indices)
    _draw_marks(ImageDraw.Draw(frame), masks, factor)
    image.paste(frame, (0, top))
    write_line(image, (4, 3), caption, canvas_width - 8)
    image.paste(legend, (0, top + frame.height))
    return image


def draw_outlines(
    picture: Float, masks: MatchMasks, factor: int, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Greys and outlines as palette indices, `(H * factor, W * factor)` uint8.

    `limits` are the values of black and white; `None` takes the picture's own range.
    """
    low, high = limits or (float(picture.min()), float(picture.max()))
    unit = np.clip((picture - low) / (high - low if high > low else 1.0), 0, 1)
    indices = _enlarge(np.rint(unit * (GREYS - 1)).astype(np.uint8), factor)
    thickness = min(max(1, factor // 4), 4)
    diagonal = np.arange(indices.shape[0])[:, None] + np.arange(indices.shape[1])
    dashes = diagonal // (2 * thickness) % 2 == 0
    drawn = np.zeros(indices.shape, np.bool_)
    for mask, colour in zip(masks, (DETECTED, MISSED, MATCHED, FALSE), strict=True):
        if mask.any():
            enlarged = _enlarge(mask, factor)
            line = dilate(enlarged, thickness) & ~enlarged
            indices[line & (~drawn | dashes)] = colour
            drawn |= line
    return indices


def _enlarge(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_marks(draw: ImageDraw.ImageDraw, masks: MatchMasks, factor: int) -> None:
    """Draws a circle around each missed target and a diamond around each false prediction."""
    for mask, colour in ((masks.missed, MISSED), (masks.false, FALSE)):
        table = find_components(mask)
        if len(table) > MAX_MARKS:
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
