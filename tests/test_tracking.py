"""Tracks of point targets: they keep their numbers, and false alarms are not confirmed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serank import Detections
from serank.inference import CentroidTracker, find_detections

SIDE = 128


def detections(*places: tuple[float, float]) -> Detections:
    """A detection of 2x2 pixels at each x, y."""
    frame = np.zeros((SIDE, SIDE), np.float32)
    for number, (x, y) in enumerate(places):
        frame[round(y) : round(y) + 2, round(x) : round(x) + 2] = 1 - 0.01 * number
    found = find_detections(frame, frame)
    assert len(found) == len(places)
    return found


def numbers(found: Detections) -> list[int]:
    assert found.tracks is not None
    return [int(number) for number in found.tracks]


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pixels that two boxes have in common."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.prod(np.maximum(sides, 0)))


def test_targets_without_overlap_keep_their_numbers() -> None:
    """Two targets cross at 4 px a frame: boxes of following frames share no pixel, the case that IoU can't follow."""
    tracker = CentroidTracker(max_distance=6)
    before = None
    for t in range(25):
        found = detections((10 + 4 * t, 40), (110 - 4 * t, 60 - t))
        if before is not None:
            assert all(overlap(a, b) == 0 for a, b in zip(before, found.boxes, strict=True))
        before = found.boxes
        assert numbers(tracker.update(found)) == [1, 2]


def test_a_faster_target_is_another_one_until_its_velocity_is_known() -> None:
    slow, fast = CentroidTracker(max_distance=3), CentroidTracker(max_distance=9)
    places = [(5 + 8 * t, 30) for t in range(6)]
    assert [numbers(slow.update(detections(p))) for p in places] == [[i] for i in range(1, 7)]
    assert [numbers(fast.update(detections(p))) for p in places] == [[1]] * 6
    # once it is, the distance counts from where the target is expected
    assert [numbers(fast.update(detections((5 + 8 * t, 30)))) for t in (6, 7)] == [[1], [1]]


def test_a_target_that_is_hidden_for_three_frames_keeps_its_number() -> None:
    for hidden, number in ((3, 1), (4, 2)):
        tracker = CentroidTracker(max_distance=4)
        for t in range(4):
            tracker.update(detections((10 + 3 * t, 50)))
        for _ in range(hidden):
            tracker.update(detections())
        assert numbers(tracker.update(detections((10 + 3 * (4 + hidden), 50)))) == [number]


def test_as_many_targets_as_can_be_are_followed() -> None:
    """The nearest pair alone would leave the other target without its track."""
    tracker = CentroidTracker(max_distance=10)
    tracker.update(detections((40, 40), (50, 40)))
    assert numbers(tracker.update(detections((49, 40), (58, 40)))) == [1, 2]


def test_other_sequences_get_other_numbers() -> None:
    tracker = CentroidTracker()
    assert numbers(tracker.update(detections((10, 10)))) == [1]
    tracker.reset()
    assert numbers(tracker.update(detections((10, 10)))) == [2]


def test_a_frame_that_is_skipped_counts_as_one_without_detections() -> None:
    empty, skipped = (CentroidTracker(max_distance=5, confirm=(2, 3)) for _ in range(2))
    for t, seen in enumerate([True, False, True, True, False, False, True]):
        found = detections((10 + 4 * t, 40)) if seen else detections()
        expected = empty.update(found)
        if seen:
            assert numbers(skipped.update(found)) == numbers(expected)
            assert len(expected) == (0 if t in (0, 6) else 1)
        else:
            skipped.skip()


def test_confirmed_is_what_was_seen_in_m_of_the_last_n_frames() -> None:
    seen = [1, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    tracker = CentroidTracker(confirm=(3, 4))
    kept = [len(tracker.update(detections((30, 30)) if s else detections())) for s in seen]
    # seen[0:4] has three, seen[2:6] too but nothing is there, seen[4:8] has two
    assert kept == [0, 0, 0, 1, 1, 0, 0, 0, 0, 1]
    assert kept == [int(s and sum(seen[max(0, t - 3) : t + 1]) >= 3) for t, s in enumerate(seen)]


def test_what_is_not_confirmed_leaves_the_mask_too() -> None:
    tracker = CentroidTracker(confirm=(2, 2))
    tracker.update(detections((30, 30)))
    found = tracker.update(detections((100, 100), (31, 30)))
    assert numbers(found) == [1]
    assert found.mask.sum() == 4
    assert found.mask[30:32, 31:33].all()


def test_false_alarms_go_and_targets_stay() -> None:
    rng = np.random.default_rng(0)
    tracker = CentroidTracker(max_distance=5, confirm=(3, 5))
    frames = 40
    false = hits = alarms = 0
    for t in range(frames):
        target = (8 + 2.5 * t, 60 + 10 * np.sin(t / 8))
        spots = [tuple(rng.integers(2, SIDE - 4, 2)) for _ in range(6)]
        apart = [s for s in spots if np.hypot(s[0] - target[0], s[1] - target[1]) > 8]
        places: list[Any] = [*dict.fromkeys((s[0] // 4 * 4, s[1] // 4 * 4) for s in apart)]
        frame = np.zeros((SIDE, SIDE), np.float32)
        for x, y in [*places, target]:
            frame[round(y) : round(y) + 2, round(x) : round(x) + 2] = 1
        found = tracker.update(find_detections(frame, frame))
        near = np.hypot(*(found.centroids - target).T) < 3
        alarms += len(places)
        hits += near.any()
        false += (~near).sum()
    assert alarms > 200
    assert false < alarms / 20
    assert hits == frames - 2  # its first two sightings are not yet confirmed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_distance": 0}, "max_distance must be > 0 px and finite; got 0"),
        ({"max_distance": float("nan")}, "max_distance must be > 0 px"),
        ({"max_distance": "5"}, r"max_distance must be a number of pixels > 0, such as 10.0; got '5' \(str\)"),
        ({"max_distance": None}, r"max_distance must be a number of pixels.*got None \(NoneType\)"),
        ({"max_distance": True}, r"max_distance must be a number of pixels.*got True \(bool\)"),
        ({"confirm": (3, 2)}, r"confirm must be \(M, N\) with M <= N.*got \(3, 2\); did you mean \(2, 3\)\?"),
        ({"confirm": 3}, r"confirm must be \(M, N\).*got 3 \(int\); give two whole numbers such as \(3, 5\)"),
        ({"confirm": "3/5"}, r"confirm must be \(M, N\).*got '3/5' \(str\)"),
        ({"confirm": "35"}, r"confirm's M must be a whole number >= 1; got '3' \(str\)"),
        ({"confirm": (1, 2, 3)}, r"confirm must be \(M, N\): seen"),
        ({"confirm": (1.5, 2)}, "confirm's M must be a whole number"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CentroidTracker(**arguments)
