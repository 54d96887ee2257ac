"""Writing any data set as a folder of frames, masks and lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from serank.datasets.layouts import write_list
from serank.datasets.sample import Sample
from serank.frames.reading import FRAME_SUFFIXES
from serank.utils.files import check_new_folder, new_folder


def write_folder(
    samples: Sequence[Sample] | Mapping[str, Sequence[Sample]],
    folder: str | os.PathLike[str],
    *,
    split: str = "train",
) -> Path:
    """Writes `images/NAME.png` and `masks/NAME.png` (8-bit grey; masks 0 or 255) and a list of the names, `SPLIT.txt`.

    Frames are rounded to 256 levels. The folder appears when it is complete: after an error, a full disk for one,
    nothing is left of it. `FolderDataset(folder, split)` reads it.

    Args:
        samples: a data set, or several by the name of their split, such as `{"train": a, "val": b}`.
        folder: where to; made if it isn't there, else it must be empty. Its parent must exist.
        split: name of the list, where `samples` is a single data set.

    Returns:
        The folder.

    Raises:
        FileExistsError: `folder` is a file or not empty.
        FileNotFoundError: its parent doesn't exist.
        ValueError: nothing to write, two samples of one name, or a name that can't be a file's.
        OSError: the files can't be written.
    """
    sets = samples if isinstance(samples, Mapping) else {split: samples}
    target = check_new_folder(folder)
    if not any(len(each) for each in sets.values()):
        raise ValueError("samples is empty; expected at least one frame to write")
    with new_folder(target) as temporary:
        _write(sets, temporary)
    return target


def _write(sets: Mapping[str, Sequence[Sample]], folder: Path) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    written: set[str] = set()
    for split, samples in sets.items():
        _check_name("split", split)
        names: list[str] = []
        for i in range(len(samples)):
            name, frame, mask, *_ = samples[i]
            _check_name("sample", name)
            if name in written:
                raise ValueError(f"two samples are called {name!r}; names must differ, since they become file names")
            written.add(name)
            names.append(name)
            grey = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / "images" / f"{name}.png")
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / "masks" / f"{name}.png")
        write_list(folder / f"{split}.txt", names)


def _check_name(kind: str, name: str) -> None:
    if Path(name).suffix.lower() in FRAME_SUFFIXES:
        raise ValueError(f"{kind} name {name!r} ends as a file does; give it without {Path(name).suffix}")
    if not name or name.startswith(".") or name != name.strip() or any(c in name for c in '/\\:*?"<>|\0\r\n'):
        raise ValueError(f"{kind} name {name!r} can't be a file name; rename it")
