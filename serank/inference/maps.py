"""Probability maps as pictures, for scoring them and for training on them as soft targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.utils.files import replacing


def save_probability(probability: NDArray[np.float32], path: Path) -> None:
    """Writes a map as 8-bit grey, whole or not at all; the folder of `path` is made if its parent is there.

    Args:
        probability: `(H, W)` in [0, 1], rounded to steps of 1/255.
        path: a `.png` file.

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8))
    with replacing(path) as temporary:
        picture.save(temporary)
