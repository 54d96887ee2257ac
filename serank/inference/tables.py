"""Tables of detections that grow with the run and are complete files at any moment, and YOLO's folders of labels."""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from serank.inference.conversions import yolo_lines
from serank.inference.table_formats import ENCODINGS, Record
from serank.utils.files import replacing, share
from serank.utils.names import FreeNames, fold

TABLE_FORMATS = ("json", "jsonl", "csv", "coco", "yolo")

FLUSH_INTERVAL = 1.0
"""Seconds between writes; records in between wait in memory."""


def table_path(folder: Path, kind: str) -> Path:
    """The table of this kind in a folder: a file, of YOLO the folder `labels`."""
    return folder / {"coco": "detections.coco.json", "yolo": "labels"}.get(kind, f"detections.{kind}")


def open_table(path: Path) -> TableWriter | YoloWriter:
    """A writer for a path of `table_path`."""
    return TableWriter(path) if path.suffix else YoloWriter(path)


class TableWriter:
    """Writes records to a table; whatever ends the process, the file holds those of all but the last second.

    A thread writes what has waited that long, also where no further record comes.

    A table from an earlier run is replaced with the first write that succeeds. An exception before that leaves it as it
    is; one after it, `KeyboardInterrupt` too, adds what was not yet written.

    Args:
        path: of the table, its suffix `.json`, `.jsonl`, `.csv` or `.coco.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encoding = ENCODINGS["".join(path.suffixes)]()
        self._pending: list[Record] = []
        self._written = -math.inf
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._file: io.FileIO | None = None
        self._length = 0
        """Of what stays; a JSON table has its end after that, which the next record overwrites."""

    def add(self, record: Record) -> None:
        """Writes the record, or keeps it until `FLUSH_INTERVAL` is over.

        Raises:
            OSError: the waiting records can't be written; the file then still is a complete table of those before.
        """
        with self._lock:
            self._pending.append(record)
            wait = self._written + FLUSH_INTERVAL - time.monotonic()
            if wait <= 0:
                self._write()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._write_late)
                self._timer.daemon = True
                self._timer.start()

    def _write_late(self) -> None:
        with self._lock:
            self._timer = None
            if self._pending:
                with suppress(OSError):  # they stay pending; the next record, or the end, tries again and raises it
                    self._write()

    def _write(self) -> None:
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
        with self._lock:
            try:
                interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
                if self._pending or (self._file is None and (kind is None or interrupted)):
                    self._write()
            finally:
                self._pending = []  # a timer that waits for the lock has nothing to do
                if self._timer is not None:
                    self._timer.cancel()
                if self._file is not None:
                    self._file.close()


class YoloWriter:
    """Writes a label file for each frame into a folder, empty for a frame without detections; none for a failure.

    `NAME.txt`, `NAME_000012.txt` for a page or a video's frame. Label files of an earlier run that have other names
    stay. Where the names of two files would be equal, upper and lower case counting as one, NAME of the later file gets
    a number.

    Args:
        path: of the folder, made with the first file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stem = FreeNames()
        self._series: set[str] = set()
        """Stems of files of several frames, whose labels are `STEM_000012.txt`."""
        self._numbered: set[str] = set()
        """`STEM` of files of one frame whose labels have such names too."""

    def add(self, record: Record) -> None:
        """Writes the frame's label file, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        if "reason" in record:
            return
        self.path.mkdir(exist_ok=True)
        with replacing(self.path / f"{self._name(record)}.txt") as temporary:
            temporary.write_text(yolo_lines(record), encoding="utf-8")

    def _name(self, record: Record) -> str:
        """The stem of the frame's file, and its number; another stem where another file's labels could be the same."""
        frame = record["frame"]
        if "index" in record:
            stem = self._stem(Path(frame).stem, frame, lambda stem: fold(stem) in self._numbered)
            self._series.add(fold(stem))
            return f"{stem}_{record['index']:06d}"
        stem = self._stem(Path(frame).stem, frame, lambda stem: _unnumbered(stem) in self._series)
        self._numbered.add(_unnumbered(stem))
        return stem

    def __enter__(self) -> YoloWriter:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _unnumbered(stem: str) -> str:
    """`STEM` of `STEM_000012`, as `fold` gives it, and of other stems nothing."""
    found = re.fullmatch(r"(.*)_[0-9]{6,}", fold(stem), re.DOTALL)
    return found[1] if found else ""


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Writes at the file's position, where the file then ends."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]
    file.truncate()
