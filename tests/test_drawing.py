"""Pictures of detections: what is drawn, and how long many boxes take."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from serank.inference.drawing import BOX_COLOUR, BOX_INDEX, overlay, save_overlay
from serank.inference.label_room import LabelRoom

NO_BOXES = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def test_boxes_and_scores_are_drawn_over_the_frame() -> None:
    frame = np.random.default_rng(0).random((500, 600), dtype=np.float32)
    boxes = np.array([[100, 200, 104, 203], [0, 0, 2, 2], [597, 498, 600, 500]], np.float32)
    picture = overlay(frame, boxes, np.array([0.875, 1.0, 0.5], np.float32))
    expected = overlay(frame, *NO_BOXES)
    draw = ImageDraw.Draw(expected)
    draw.font = ImageFont.load_default(12)
    for box, text in (((97, 197, 106, 205), "p=0.88"), ((-3, -3, 4, 4), "p=1.00"), ((594, 495, 602, 502), "p=0.50")):
        draw.rectangle(box, outline=BOX_INDEX)
        _, _, width, height = draw.textbbox((0, 0), text)
        y = box[1] - height - 4 if box[1] > height + 4 else box[3] + 2
        x = min(max(box[0], 0), 600 - width)
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=0)
        draw.text((x, y), text, fill=BOX_INDEX)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    assert (np.asarray(picture) == BOX_INDEX).any()


def test_labels_of_close_detections_do_not_overlap() -> None:
    boxes = np.array([[250 + 4 * i, 250 + 3 * (i % 2), 252 + 4 * i, 252 + 3 * (i % 2)] for i in range(6)], np.float32)
    together = LabelRoom(500, 500)
    outlines = [(int(x0) - 3, int(y0) - 3, int(x1) + 2, int(y1) + 2) for x0, y0, x1, y1 in boxes]
    for outline in outlines:
        together.take(outline)
    taken = np.zeros((500, 500), int)
    for x0, y0, x1, y1 in outlines:
        taken[y0 : y1 + 1, x0 : x1 + 1] = 1
    lines = 0
    for outline in outlines:
        place = together.place(outline, 40, 12)
        assert place is not None
        taken[place.y : place.y + 12, place.x : place.x + 40] += 1
        lines += place.line is not None
    assert taken.max() == 1
    assert lines > 0  # some had to go further off


def test_labels_without_room_are_left_out() -> None:
    room = LabelRoom(60, 30)
    room.take((-5, -5, 70, 40))
    assert room.place((20, 10, 30, 20), 10, 5) is None
    assert LabelRoom(8, 30).place((2, 10, 4, 20), 10, 5) is None  # wider than the picture


def test_track_numbers_are_drawn() -> None:
    frame, box, score = np.zeros((500, 500), np.float32), np.array([[250, 250, 252, 252]]), np.array([0.5])
    pictures = [np.asarray(overlay(frame, box, score, tracks)) for tracks in (None, np.array([7]), np.array([8]))]
    counts = [(picture == BOX_INDEX).sum() for picture in pictures]
    assert counts[1] > counts[0]
    assert not np.array_equal(pictures[1], pictures[2])


def test_greys_and_enlargement() -> None:
    frame = np.array([[0.0, 0.5], [1.0, 0.25]], np.float32)
    picture = overlay(frame, *NO_BOXES)
    assert picture.size == (480, 480)
    assert np.asarray(picture)[::240, ::240].tolist() == [[0, 128], [254, 64]]
    palette = picture.getpalette()
    assert palette is not None
    assert tuple(palette[3 * BOX_INDEX : 3 * BOX_INDEX + 3]) == BOX_COLOUR


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_saving(suffix: str, tmp_path: Path) -> None:
    boxes, scores = np.array([[5, 5, 8, 8]], np.float32), np.array([0.9], np.float32)
    save_overlay(tmp_path / f"a.{suffix}", np.zeros((48, 60), np.float32), boxes, scores)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.size == (480, 384)
        assert np.ptp(np.asarray(image.convert("RGB"))) > 100


def test_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known image suffix"):
        save_overlay(tmp_path / "a.txt", np.zeros((4, 4), np.float32), *NO_BOXES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", [200, 512])
def test_very_many_boxes_are_drawn_in_seconds(side: int) -> None:
    """40,000 of them and 262,144."""
    rows, columns = np.divmod(np.arange(side * side), side)
    boxes = np.stack([2 * columns, 2 * rows, 2 * columns + 1, 2 * rows + 1], axis=1)
    scores = np.random.default_rng(0).random(side * side)
    start = time.process_time()
    overlay(np.zeros((2 * side, 2 * side), np.float32), boxes, scores)
    assert time.process_time() - start < 5
