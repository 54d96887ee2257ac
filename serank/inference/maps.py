"""Probability maps and masks as pictures, for scoring them, for training on them, and for other programs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serank.utils.files import replacing

KEY = "serank"
"""Of the text in files of maps and masks, which says which of them it is."""


def save_probability(probability: NDArray[np.float32], path: Path) -> None:
    """Writes a map as 8-bit grey, whole or not at all; the folder of `path` is made if its parent is there.

    A text in the file says that it is a map (`is_probability`): a nearly empty one looks like a mask of 0 and 1.

    Args:
        probability: `(H, W)` in [0, 1], rounded to steps of 1/255.
        path: a `.png` file.

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8))
    _save(picture, path, "probability")


def save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Writes a mask as 8-bit grey, 255 on targets, whole or not at all; the folder as `save_probability`.

    A text in the file says who wrote it (`is_mask`): labels of people are not to be written over.

    Args:
        mask: `(H, W)`.
        path: a `.png` file.

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(exist_ok=True)
    _save(Image.fromarray(mask.astype(np.uint8) * np.uint8(255)), path, "mask")


def is_probability(path: Path) -> bool:
    """Whether `save_probability` wrote a file; false too where another program has dropped its text, or no PNG."""
    return _text(path) == "probability"


def is_mask(path: Path) -> bool:
    """Whether `save_mask` wrote a file; as `is_probability`."""
    return _text(path) == "mask"


def is_map_or_mask(path: Path) -> bool:
    """Whether `save_probability` or `save_mask` wrote a file; as `is_probability`."""
    return _text(path) in ("probability", "mask")


def _save(picture: Image.Image, path: Path, kind: str) -> None:
    notes = PngInfo()
    notes.add_text(KEY, kind)
    with replacing(path) as temporary:
        picture.save(temporary, pnginfo=notes)


def _text(path: Path) -> object:
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG",)) as image:
            warnings.simplefilter("ignore")  # of large or odd files, whose pixels are not read here
            return image.info.get(KEY)
    except Exception:  # what is wrong with the file is said when it is decoded
        return None
