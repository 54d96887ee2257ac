"""The kinds of tables of detections: JSON, lines of JSON, CSV and COCO, as text that grows by records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from serank.inference.conversions import COCO_CATEGORIES, DETECTION_COLUMNS, coco_annotation
from serank.utils.text import no_formula

Record: TypeAlias = dict[str, Any]
"""Of a finished frame: `frame`, `index`, `picture`, `probability` and `mask`, each in its folder, and
`Detections.to_dict()`, for COCO also `runs`, the detections'
masks as of `pixel_runs`; of a failure: `frame`, `reason`."""

COLUMNS = ("frame", "index", *DETECTION_COLUMNS[:-1], "picture", "track")


class Encoding(Protocol):
    """A table as bytes: bodies, one after the other, and an end that each following body overwrites."""

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        """What these records add and no later one changes; the first body has the table's head."""

    def end(self, records: Sequence[Record]) -> bytes:
        """What makes the table whole once the body of these records is written."""

    def keep(self, records: Sequence[Record]) -> None:
        """Counts these records as written."""


class JsonTable:
    """`{"frames": [...], "failed": [...]}`, a line for each."""

    def __init__(self) -> None:
        self.empty = True
        self.failed: list[str] = []

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        """As `Encoding`."""
        lines = [json.dumps(record) for record in _finished(records)]
        text = '{"frames": [' if first else ""
        if lines:
            text += ("\n  " if self.empty else ",\n  ") + ",\n  ".join(lines)
        return text.encode()

    def end(self, records: Sequence[Record]) -> bytes:
        """As `Encoding`."""
        failed = ",\n  ".join([*self.failed, *_failures(records)])
        return ('\n ],\n "failed": [' + (f"\n  {failed}\n " if failed else "") + "]\n}\n").encode()

    def keep(self, records: Sequence[Record]) -> None:
        """As `Encoding`."""
        failed = _failures(records)
        self.failed += failed
        self.empty = self.empty and len(failed) == len(records)


class JsonlTable:
    """A line of JSON for each frame and each failure."""

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        """As `Encoding`."""
        return "".join(json.dumps(record) + "\n" for record in records).encode()

    def end(self, records: Sequence[Record]) -> bytes:
        """As `Encoding`: nothing."""
        return b""

    def keep(self, records: Sequence[Record]) -> None:
        """As `Encoding`: nothing."""


class CsvTable:
    """A row for each detection, and one with empty fields for a frame without any; none for a failure."""

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        """As `Encoding`."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        if first:
            writer.writeheader()
        for record in _finished(records):
            writer.writerows(_escaped(row) for row in list(detection_rows(record)) or [_place(record)])
        return text.getvalue().encode()

    def end(self, records: Sequence[Record]) -> bytes:
        """As `Encoding`: nothing."""
        return b""

    def keep(self, records: Sequence[Record]) -> None:
        """As `Encoding`: nothing."""


class CocoTable:
    """A COCO data set; `info.failed` has the failures. Its list of images, one line a frame, is kept in memory."""

    def __init__(self) -> None:
        self.annotations = 0
        self.images: list[str] = []
        self.failed: list[str] = []

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        """As `Encoding`."""
        text = '{"annotations": [' if first else ""
        number = self.annotations
        for image, record in enumerate(_finished(records), len(self.images) + 1):
            for one, runs in zip(record["detections"], record["runs"], strict=True):
                number += 1
                text += "\n  " if number == 1 else ",\n  "
                text += json.dumps(coco_annotation(one, runs, number, image))
        return text.encode()

    def end(self, records: Sequence[Record]) -> bytes:
        """As `Encoding`."""
        images = ",\n  ".join([*self.images, *self._images(records)])
        failed = ",\n  ".join([*self.failed, *_failures(records)])
        return (
            f'\n ],\n "images": [\n  {images}\n ],\n "categories": {json.dumps(COCO_CATEGORIES)},\n'
            f' "info": {{"description": "serank detect", "failed": [{failed}]}}\n}}\n'
        ).encode()

    def keep(self, records: Sequence[Record]) -> None:
        """As `Encoding`."""
        self.annotations += sum(len(record["detections"]) for record in _finished(records))
        self.images += self._images(records)
        self.failed += _failures(records)

    def _images(self, records: Sequence[Record]) -> list[str]:
        return [
            json.dumps(
                {"id": number, "file_name": record["frame"], "width": record["width"], "height": record["height"]}
                | ({"index": record["index"]} if "index" in record else {})
            )
            for number, record in enumerate(_finished(records), len(self.images) + 1)
        ]


ENCODINGS: dict[str, type[Encoding]] = {
    ".json": JsonTable,
    ".jsonl": JsonlTable,
    ".csv": CsvTable,
    ".coco.json": CocoTable,
}
"""By the end of the table's name."""


def detection_rows(record: Record) -> Iterator[Record]:
    """One row for each detection of a frame, with the keys of the CSV table; none for a failure."""
    place = _place(record)
    for found in record.get("detections", ()):
        values = (*found["centroid"], found["score"], found["area"], *found["box"], found.get("track", ""))
        yield place | dict(zip(DETECTION_COLUMNS, values, strict=True))


def _place(record: Record) -> Record:
    return {key: record.get(key, "") for key in ("frame", "index", "picture")}


def _finished(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if "reason" not in record]


def _failures(records: Sequence[Record]) -> list[str]:
    return [json.dumps(record) for record in records if "reason" in record]


def _escaped(row: Record) -> Record:
    return {key: no_formula(value) for key, value in row.items()}
