"""Tables of detections: complete files at any moment, whatever stops the run."""

from __future__ import annotations

import csv
import errno
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serank.inference import tables
from serank.inference.table_formats import COLUMNS, Record, detection_rows
from serank.inference.tables import TableWriter, open_table, table_path


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are written as they come, not once a second."""
    monkeypatch.setattr(tables, "FLUSH_INTERVAL", 0.0)


def frame(name: str, detections: int) -> Record:
    found = {"box": [1.0, 2.0, 3.0, 4.0], "centroid": [1.5, 2.5], "score": 0.75, "area": 4}
    return {"frame": name, "height": 8, "width": 9, "threshold": 0.5, "detections": [found] * detections}


def failure(name: str) -> Record:
    return {"frame": name, "reason": f"{name}: truncated or corrupt"}


RECORDS = [failure("a"), frame("b", 0), frame("c", 2), failure("d"), failure("e"), frame("f", 1)]


def read(table: Path) -> list[Any]:
    if table.suffix == ".jsonl":
        return [json.loads(line) for line in table.read_text().splitlines()]
    if table.suffix == ".json":
        content = json.loads(table.read_text())
        assert list(content) == ["frames", "failed"]
        return [*content["frames"], *content["failed"]]
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def expected(table: Path, records: list[Record]) -> list[Any]:
    if table.suffix == ".jsonl":
        return records
    if table.suffix == ".json":
        return sorted(records, key=lambda record: "reason" in record)
    frames = [record for record in records if "reason" not in record]
    rows = [row for record in frames for row in list(detection_rows(record)) or [{"frame": record["frame"]}]]
    return [{column: str(row.get(column, "")) for column in COLUMNS} for row in rows]


each = pytest.mark.parametrize("name", ["detections.json", "detections.jsonl", "detections.csv"])


@each
def test_a_table_is_complete_after_every_record(tmp_path: Path, name: str) -> None:
    table = tmp_path / name
    with TableWriter(table) as writer:
        for count, record in enumerate(RECORDS, 1):
            writer.add(record)
            assert read(table) == expected(table, RECORDS[:count])
    assert read(table) == expected(table, RECORDS)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_frame_without_detections_has_a_row_and_a_failure_none(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.csv") as writer:
        for record in (failure("bad"), frame("empty", 0), frame("one", 1)):
            writer.add(record)
    empty, one = read(tmp_path / "t.csv")
    assert empty == {**dict.fromkeys(COLUMNS, ""), "frame": "empty"}
    assert (one["frame"], one["x"], one["area"], one["y1"]) == ("one", "1.5", "4", "4.0")


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a"])
def test_names_are_no_formulas(tmp_path: Path, name: str) -> None:
    with TableWriter(tmp_path / "t.csv") as writer:
        writer.add(frame(name, 1))
    (row,) = read(tmp_path / "t.csv")
    assert row["frame"] == f"'{name}"


@each
def test_records_wait_a_second_and_come_at_the_end(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FLUSH_INTERVAL", 1000.0)
    table = tmp_path / name
    with pytest.raises(KeyboardInterrupt), TableWriter(table) as writer:  # noqa: PT012
        for record in RECORDS:
            writer.add(record)
        assert read(table) == expected(table, RECORDS[:1])  # the first is written at once
        raise KeyboardInterrupt
    assert read(table) == expected(table, RECORDS)


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@each
def test_records_are_written_though_no_other_one_comes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves what came before the last interval, however long the next record takes."""
    monkeypatch.setattr(tables, "FLUSH_INTERVAL", 0.1)
    table, threads = tmp_path / name, set(threading.enumerate())
    with TableWriter(table) as writer:
        for count in (3, 6):
            for record in RECORDS[count - 3 : count]:
                writer.add(record)
            wait_for(lambda count=count: read(table) == expected(table, RECORDS[:count]))  # type: ignore[misc]
    assert read(table) == expected(table, RECORDS)
    assert not set(threading.enumerate()) - threads


def test_a_full_disk_is_said_though_no_other_record_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FLUSH_INTERVAL", 0.1)
    table, write, refused = tmp_path / "detections.jsonl", os.write, 0

    def limited(handle: int, content: Any) -> int:
        nonlocal refused
        if len(content):
            refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content)

    with pytest.raises(OSError, match=r"No space left on device.*detections\.jsonl"), TableWriter(table) as writer:  # noqa: PT012
        writer.add(RECORDS[1])
        monkeypatch.setattr(os, "write", limited)
        writer.add(RECORDS[2])
        wait_for(lambda: refused > 0)  # by the thread, which has nobody to tell
    assert refused == 2
    assert read(table) == [RECORDS[1]]


@each
def test_a_table_without_records(tmp_path: Path, name: str) -> None:
    with TableWriter(tmp_path / name):
        pass
    assert read(tmp_path / name) == []


@each
def test_an_error_before_the_first_record_keeps_the_earlier_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("earlier")
    with pytest.raises(RuntimeError, match="no network"), TableWriter(tmp_path / name):
        raise RuntimeError("no network")
    assert (tmp_path / name).read_text() == "earlier"


@each
@pytest.mark.parametrize("before", [0, 3])
def test_a_full_disk(tmp_path: Path, name: str, before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the table; an earlier one stays, and of this one what was written."""
    table = tmp_path / name
    table.write_text("earlier")
    write, limit = os.write, 10**6

    def limited(handle: int, content: Any) -> int:
        room = limit - os.lseek(handle, 0, os.SEEK_CUR)
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, bytes(content)[:room])

    monkeypatch.setattr(os, "write", limited)
    with pytest.raises(OSError, match=f"No space left on device.*{name}"), TableWriter(table) as writer:  # noqa: PT012
        for record in RECORDS[:before]:
            writer.add(record)
        limit = 30 + (table.stat().st_size if before else 0)
        writer.add(RECORDS[5])
    if before:
        assert read(table) == expected(table, RECORDS[:before])
    else:
        assert table.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def coco_frame(name: str, detections: int, **more: Any) -> Record:
    runs = {"size": [8, 9], "counts": [10, 2, 6, 2]}
    return frame(name, detections) | {"runs": [runs] * detections} | more


def test_a_coco_table_is_complete_after_every_record(tmp_path: Path) -> None:
    records = [failure("a"), coco_frame("b", 0), coco_frame("c", 2, index=4), failure("d"), coco_frame("e", 1)]
    table = tmp_path / "detections.coco.json"
    with TableWriter(table) as writer:
        for count, record in enumerate(records, 1):
            writer.add(record)
            data = json.loads(table.read_text())
            done = [r for r in records[:count] if "reason" not in r]
            assert [image["file_name"] for image in data["images"]] == [r["frame"] for r in done]
            assert [image["id"] for image in data["images"]] == list(range(1, len(done) + 1))
            owners = [i for i, r in enumerate(done, 1) for _ in r["detections"]]
            assert [a["image_id"] for a in data["annotations"]] == owners
            assert [a["id"] for a in data["annotations"]] == list(range(1, len(owners) + 1))
            assert data["info"]["failed"] == [r for r in records[:count] if "reason" in r]
    assert data["images"][1]["index"] == 4
    assert data["annotations"][0]["bbox"] == [1.0, 2.0, 2.0, 2.0]
    assert data["annotations"][0]["segmentation"]["size"] == [8, 9]


def test_yolo_writes_a_file_for_each_frame(tmp_path: Path) -> None:
    with open_table(table_path(tmp_path, "yolo")) as writer:
        for record in (failure("a.png"), frame("x/b.png", 0), frame("y/b.png", 2), frame("c.mp4", 1) | {"index": 3}):
            writer.add(record)
    files = {path.name: path.read_text().splitlines() for path in (tmp_path / "labels").iterdir()}
    line = "0 0.222222 0.375000 0.222222 0.250000"
    assert files == {"b.txt": [], "b_2.txt": [line, line], "c_000003.txt": [line]}


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (["clip.npy:0", "clip.npy:1", "clip_000001.png"], ["clip_000000", "clip_000001", "clip_000001_2"]),
        (["clip_000001.png", "clip.npy:0", "clip.npy:1"], ["clip_000001", "clip_2_000000", "clip_2_000001"]),
        (["clip_000001.png", "clip_000002.png", "clip.png"], ["clip_000001", "clip_000002", "clip"]),
        (["a.png", "a.tif:0", "a.tif:1"], ["a", "a_2_000000", "a_2_000001"]),
        (["x/clip.npy:12", "y/clip.npy:12"], ["clip_000012", "clip_2_000012"]),
        (["Clip.npy:0", "CLIP_000000.png", "clip.png"], ["Clip_000000", "CLIP_000000_2", "clip_2"]),
        (["clip.npy:1000000", "clip_1000000.png"], ["clip_1000000", "clip_1000000_2"]),
        (["clip.npy:0", "clip_12.png"], ["clip_000000", "clip_12"]),
        (["a.png", "a.png"], ["a"]),
    ],
)
def test_no_label_file_overwrites_another_frame_s(tmp_path: Path, frames: list[str], expected: list[str]) -> None:
    with open_table(table_path(tmp_path, "yolo")) as writer:
        for entry in frames:
            name, _, index = entry.partition(":")
            writer.add(frame(name, 1) | ({"index": int(index)} if index else {}))
    assert sorted(path.stem for path in (tmp_path / "labels").iterdir()) == sorted(expected)


def test_names_of_tables(tmp_path: Path) -> None:
    names = {kind: table_path(tmp_path, kind).name for kind in tables.TABLE_FORMATS}
    assert names == {
        "json": "detections.json",
        "jsonl": "detections.jsonl",
        "csv": "detections.csv",
        "coco": "detections.coco.json",
        "yolo": "labels",
    }
