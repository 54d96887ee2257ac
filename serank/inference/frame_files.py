"""The files of single frames: their names, pictures, probabilities and masks, and what the table says of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serank.frames.sources import SourceFrame
from serank.inference.conversions import pixel_runs
from serank.inference.detections import Detections
from serank.inference.maps import save_mask, save_probability
from serank.inference.table_formats import Record
from serank.utils.names import FreeNames
from serank.utils.text import printable

if TYPE_CHECKING:
    from PIL import Image


class PictureNames:
    """Where each frame's picture goes: by its file's name, numbered where several share it; a folder for each video."""

    def __init__(self, files: Iterable[Path]) -> None:
        free = FreeNames()
        self._names = {file: free(printable(file.stem), file) for file in files}

    def __call__(self, item: SourceFrame, ending: str = "_detections") -> str:
        """Name of the item's picture, map or mask, in its folder."""
        name = self._names[item.file]
        return f"{name}{ending}.png" if item.index is None else f"{name}/{item.index:06d}{ending}.png"


@dataclass(frozen=True)
class FrameWriter:
    """Writes the files of single frames, in any thread.

    Attributes:
        folder: of the pictures.
        maps: folder of the probabilities, `None` for none.
        masks: folder of the masks, `None` for none.
        names: of all three.
        pictures: write pictures, each to its file.
        drawn: draw pictures for a video.
        runs: add the detections' masks to the records, for COCO.
    """

    folder: Path
    maps: Path | None
    masks: Path | None
    names: PictureNames
    pictures: bool
    drawn: bool
    runs: bool

    def __call__(self, item: SourceFrame, found: Detections | None) -> tuple[Record, Image.Image | None]:
        """The record of a frame, and its picture where that goes into a video."""
        record: Record = {"frame": printable(str(item.file))}
        if found is None:
            return record | {"reason": printable(item.reason)}, None
        if item.index is not None:
            record["index"] = item.index
        if self.pictures:
            picture = self.folder / self.names(item)
            picture.parent.mkdir(exist_ok=True)
            found.save(picture)
            record["picture"] = picture.relative_to(self.folder).as_posix()
        if self.maps is not None:
            record["probability"] = self.names(item, "")
            save_probability(found.probability, self.maps / record["probability"])
        if self.masks is not None:
            record["mask"] = self.names(item, "")
            save_mask(found.mask, self.masks / record["mask"])
        record |= found.to_dict()
        if self.runs:
            record["runs"] = pixel_runs(found)
        return record, found.image() if self.drawn else None
