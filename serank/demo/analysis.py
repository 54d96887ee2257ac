"""What the page shows of a file: one frame of it, detected on, as pictures, table and files. Knows no Gradio."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from serank.errors import FrameError
from serank.frames.scaling import Array
from serank.frames.sources import SourceFrame, read_sources
from serank.inference.fused_network import InferenceNetwork
from serank.inference.maps import save_probability
from serank.serankdet import SeRankDet

COLUMNS = ("x", "y", "score", "area, px", "box: x0, y0, x1, y1")
"""Heads of the table; positions in pixels, (0, 0) is the first pixel's centre."""
MAX_FRAMES = 1000
"""Frames of a video that the page offers; counting them takes decoding them."""


@dataclass(frozen=True)
class Finding:
    """What was found in one frame.

    Attributes:
        rows: a row of `COLUMNS` for each detection, highest score first.
        summary: one line in words, and one for each warning of `SeRankDet.detect`.
        picture: PNG file of the frame with boxes.
        probability: PNG file of the probability, black 0 and white 1, at the frame's size.
        table: JSON file of `Detections.to_dict`, with the file's name and the number of the frame.
    """

    rows: list[list[str]]
    summary: str
    picture: str
    probability: str
    table: str


class Analyst:
    """Detects on single frames of files, with any of a few checkpoints, each loaded at its first use.

    Args:
        checkpoints: names, folders or Hub ids, as `SeRankDet.from_pretrained` takes them.
        folder: existing folder, to which every finding writes its files.
        device: where to run.
    """

    def __init__(self, checkpoints: Sequence[str], folder: Path, device: str = "cpu") -> None:
        self.checkpoints = tuple(checkpoints)
        self.folder = folder
        self.device = device
        self._load = lru_cache(maxsize=None)(self._load_checkpoint)

    def _load_checkpoint(self, name: str) -> InferenceNetwork:
        return SeRankDet.from_pretrained(name, device=self.device).optimize()

    def settings(self, checkpoint: str) -> tuple[float, int]:
        """The threshold and the test-time augmentation that a checkpoint carries."""
        network = self._load(checkpoint)
        return network.threshold, network.tta

    def find(self, path: str, index: int, checkpoint: str, **options: Any) -> Finding:
        """Detects on one frame of a file.

        Args:
            path: image, TIFF file or video.
            index: number of the page or of the video's frame, from 0.
            checkpoint: one of `checkpoints`.
            options: of `SeRankDet.detect`, such as `threshold`.

        Raises:
            serank.errors.FrameError: the frame can't be read, or there is none of that number.
            ImportError: a video, and the extra that reads it isn't installed.
            ValueError: an option out of its range.
        """
        name = Path(path).name
        number, pixels = _frame(Path(path), index)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            found = self._load(checkpoint).detect(pixels, **options)
        target = Path(tempfile.mkdtemp(dir=self.folder))
        picture = target / f"{Path(name).stem}_detections.png"
        probability = target / f"{Path(name).stem}_probability.png"
        table = target / f"{Path(name).stem}_detections.json"
        found.save(picture)
        save_probability(found.probability, probability)
        record = {"file": name, "index": number, "checkpoint": checkpoint} | found.to_dict()
        table.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        height, width = found.mask.shape
        which = "" if number is None else f", frame {number}"
        meaning = "how often such detections are true (calibrated)" if found.calibrated else "peak probability"
        summary = (
            f"{name}{which}: {len(found)} detection{'' if len(found) == 1 else 's'} in {width} x {height} px with "
            f"probability above {found.threshold:.2f}; score p: {meaning}"
        )
        for warning in caught:
            summary += f"\n\n**Warning:** {str(warning.message).removesuffix(' (said once)')}"
        rows = [
            [f"{x:.1f}", f"{y:.1f}", f"{score:.3f}", f"{area}", ", ".join(f"{side:.0f}" for side in box)]
            for (x, y), score, area, box in zip(
                found.centroids.tolist(), found.scores.tolist(), found.areas.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        return Finding(rows, summary, str(picture), str(probability), str(table))


def count_frames(path: str) -> int:
    """Frames of a file that can be read, `MAX_FRAMES` at most.

    Raises:
        serank.errors.FrameError: not even the first one can be read.
        ImportError: a video, and the extra that reads it isn't installed.
    """
    count = 0
    for frame in islice(read_sources([Path(path)]), MAX_FRAMES):
        if frame.pixels is None:
            if count == 0:
                raise FrameError(_reason(frame))
            break
        count += 1
    return count


def _frame(path: Path, index: int) -> tuple[int | None, Array]:
    """Number of a frame in its file, `None` where there is but one, and its pixels."""
    frame = next(islice(read_sources([path]), index, None), None)
    if frame is None:
        raise FrameError(f"{path.name}: no frame {index}; frames are counted from 0")
    if frame.pixels is None:
        raise FrameError(_reason(frame))
    return frame.index, frame.pixels


def _reason(frame: SourceFrame) -> str:
    """Why a frame can't be read, with the file's bare name: the folder of uploads is nothing to a reader."""
    return frame.reason.replace(str(frame.file), frame.file.name)
