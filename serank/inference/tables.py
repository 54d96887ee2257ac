"""Tables of detections, JSON or CSV, that grow with the run and are complete files at any moment."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from serank.utils.files import share

__all__ = ["TABLE_FORMATS", "Record", "TableWriter", "detection_rows"]

Record: TypeAlias = dict[str, Any]
"""Of a finished frame: `frame`, `index`, `picture` and `Detections.to_dict()`; of a failure: `frame`, `reason`."""

TABLE_FORMATS = ("json", "csv")
COLUMNS = ("frame", "index", "x", "y", "score", "area", "x0", "y0", "x1", "y1", "picture")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Text that begins so is a formula to spreadsheets."""

FLUSH_INTERVAL = 1.0
"""Seconds between writes; records in between wait in memory."""


class TableWriter:
    """Writes records to a table; whatever ends the process, the file holds those of all but the last second.

    A table from an earlier run is replaced with the first write that succeeds. An exception before that leaves it as it
    is; one after it, `KeyboardInterrupt` too, adds what was not yet written.

    Args:
        path: of the table, its suffix `.json` or `.csv`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encoding = _JsonTable() if path.suffix == ".json" else _CsvTable()
        self._pending: list[Record] = []
        self._written = 0.0
        self._file: io.FileIO | None = None
        self._length = 0
        """Of what stays; a JSON table has its end after that, which the next record overwrites."""

    def add(self, record: Record) -> None:
        """Writes the record, or keeps it until `FLUSH_INTERVAL` is over."""
        self._pending.append(record)
        if time.monotonic() - self._written >= FLUSH_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Writes the pending records.

        Raises:
            OSError: they can't be written; the file then still is a complete table of those before.
        """
        body = self._encoding.body(self._pending, first=self._length == 0)
        end = self._encoding.end(self._pending)
        try:
            if self._file is None:
                self._create(body + end)
            else:
                self._put(body + end)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
        self._encoding.keep(self._pending)
        self._pending = []
        self._length += len(body)
        self._written = time.monotonic()

    def _create(self, content: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=".detections-", suffix=self.path.suffix, dir=self.path.parent)
        file, temporary = io.FileIO(handle, "r+"), Path(name)
        try:
            _write_all(file, content)
            share(temporary, 0o666)
            temporary.replace(self.path)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
        self._file = file

    def _put(self, content: bytes) -> None:
        assert self._file is not None
        try:
            self._file.seek(self._length)
            _write_all(self._file, content)
        except BaseException:
            # the old end; it was there before, so that it fits even on a full disk
            self._file.seek(self._length)
            _write_all(self._file, self._encoding.end([]))
            raise

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            if self._pending or (self._file is None and (kind is None or interrupted)):
                self.flush()
        finally:
            if self._file is not None:
                self._file.close()


class _JsonTable:
    """`{"frames": [...], "failed": [...]}`, a line for each."""

    def __init__(self) -> None:
        self.empty = True
        self.failed: list[str] = []

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        lines = [json.dumps(record) for record in records if "reason" not in record]
        text = '{"frames": [' if first else ""
        if lines:
            text += ("\n  " if self.empty else ",\n  ") + ",\n  ".join(lines)
        return text.encode()

    def end(self, records: Sequence[Record]) -> bytes:
        failed = ",\n  ".join([*self.failed, *_failures(records)])
        return ('\n ],\n "failed": [' + (f"\n  {failed}\n " if failed else "") + "]\n}\n").encode()

    def keep(self, records: Sequence[Record]) -> None:
        failed = _failures(records)
        self.failed += failed
        self.empty = self.empty and len(failed) == len(records)


def _failures(records: Sequence[Record]) -> list[str]:
    return [json.dumps(record) for record in records if "reason" in record]


class _CsvTable:
    """A row for each detection, and one with empty fields for a frame without any; none for a failure."""

    def body(self, records: Sequence[Record], *, first: bool) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        if first:
            writer.writeheader()
        for record in records:
            if "reason" not in record:
                writer.writerows(_escaped(row) for row in _rows_or_empty(record))
        return text.getvalue().encode()

    def end(self, records: Sequence[Record]) -> bytes:
        return b""

    def keep(self, records: Sequence[Record]) -> None:
        pass


def _rows_or_empty(record: Record) -> list[Record]:
    return list(detection_rows(record)) or [_place(record)]


def _escaped(row: Record) -> Record:
    return {
        key: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
        for key, value in row.items()
    }


def _place(record: Record) -> Record:
    return {key: record.get(key, "") for key in ("frame", "index", "picture")}


def detection_rows(record: Record) -> Iterator[Record]:
    """One row for each detection of a frame, with the keys of the CSV table; none for a failure."""
    place = _place(record)
    for found in record.get("detections", ()):
        names = ("x", "y", "score", "area", "x0", "y0", "x1", "y1")
        values = (*found["centroid"], found["score"], found["area"], *found["box"])
        yield place | dict(zip(names, values, strict=True))


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Writes at the file's position, where the file then ends."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]
    file.truncate()
