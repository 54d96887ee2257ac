"""False colour back to grey, by the tables of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serank.errors import FrameError
from serank.frames.scaling import Array
from serank.utils.text import did_you_mean

KNOWN_PALETTES = (
    "inferno",
    "plasma",
    "magma",
    "viridis",
    "cividis",
    "jet",
    "turbo",
    "rainbow",
    "gist_rainbow",
    "nipy_spectral",
    "hot",
    "afmhot",
    "gist_heat",
    "gnuplot",
    "gnuplot2",
    "CMRmap",
    "cubehelix",
    "copper",
    "bone",
    "pink",
    "coolwarm",
    "hsv",
)
"""Palettes that `palette="auto"` tries."""
CAMERA_PALETTES = {
    "iron": ("inferno", "gnuplot2", "CMRmap", "plasma"),
    "ironbow": ("inferno", "gnuplot2", "CMRmap", "plasma"),
    "rainbow": ("rainbow", "jet", "turbo", "gist_rainbow", "nipy_spectral"),
}
"""Names that cameras use, each for several tables; the one whose colours are nearest is taken."""
UNKNOWN_PALETTES = ("amber", "arctic", "fusion", "glowbow", "lava", "medical", "rainbow-hc", "sepia")
"""Palettes of cameras whose tables their makers keep to themselves."""

COLOURED = 16
"""Difference between a pixel's channels, of 255, above which it has a colour: lossy compression gives grey some."""
COLOURED_SHARE = 0.05
"""Share of such pixels above which a frame is in colours, and not a grey one with burned-in signs."""
FIT = 24.0
"""Largest distance of most colours from a palette's, of 255 in each channel, for it to be the frame's."""
FIT_QUANTILE = 0.8
"""Which share of the pixels must fit: text and scales have colours of their own."""
TRIED_PIXELS = 4096


def has_colours(array: Array) -> bool:
    """Whether a frame `(H, W)` or `(H, W, 3)` is in colours, beyond what compression and a few signs make."""
    if array.ndim == 2 or (array == array[..., :1]).all():
        return False
    rgb = _bytes(array)
    return bool(np.mean(rgb.max(2) - rgb.min(2) > COLOURED) > COLOURED_SHARE)


def palette_grey(array: Array, palette: str, name: str) -> NDArray[np.uint8]:
    """The grey levels that a palette turned into the colours of a frame.

    Args:
        array: `(H, W, 3)`, uint8, uint16 or floats in [0, 1].
        palette: matplotlib's name of it, in any case (one that ends in `_r` is the reverse), a camera's of
            `CAMERA_PALETTES`, or `"auto"`, the one of `KNOWN_PALETTES` whose colours are nearest.
        name: what errors call the frame.

    Returns:
        `(H, W)` uint8, the position of the nearest colour in the palette's 256.

    Raises:
        ImportError: matplotlib isn't installed; names the extra.
        ValueError: an unknown palette, or one without a public table; says what to pass instead.
        FrameError: the frame's colours aren't those of the palette, or of any known one.
    """
    from scipy.spatial import KDTree  # slow to import, and few frames need it

    candidates = _candidates(palette, list(_tables()))
    rgb = _bytes(array).reshape(-1, 3)
    few = rgb[:: -(-len(rgb) // TRIED_PIXELS)]
    best, distance = "", np.inf
    for candidate in candidates:
        off = float(np.quantile(KDTree(_colours(candidate)).query(few)[0], FIT_QUANTILE))
        if off < distance:
            best, distance = candidate, off
    if distance > FIT:
        what = f"palette {best!r}" if palette != "auto" else f"any known palette, {best!r} is the nearest"
        raise FrameError(
            f"{name}: its colours aren't those of {what} ({distance:.0f} of 255 off); pass raw counts, or as "
            "palette= (--palette) the name of theirs in matplotlib"
        )
    return _inverse(best)(rgb).reshape(array.shape[:2])


class _Inverse:
    """The position of the nearest colour of a palette, kept for each colour that was looked up: frames share most."""

    def __init__(self, table: NDArray[np.float64]) -> None:
        from scipy.spatial import KDTree

        self._tree = KDTree(table)
        self._found = np.full(1 << 24, -1, np.int16)

    def __call__(self, rgb: NDArray[np.int16]) -> NDArray[np.uint8]:
        """Of colours `(N, 3)` in 0 to 255, `(N,)`."""
        codes = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        new = np.unique(codes[self._found[codes] < 0])
        if len(new):
            colours = np.stack([new >> 16, (new >> 8) & 255, new & 255], 1)
            self._found[new] = self._tree.query(colours)[1]
        return self._found[codes].astype(np.uint8)


@lru_cache(maxsize=2)  # 32 MB each
def _inverse(name: str) -> _Inverse:
    return _Inverse(_colours(name))


def _colours(name: str) -> NDArray[np.float64]:
    """The 256 colours `(256, 3)` of one of matplotlib's palettes, 0 to 255."""
    colours: NDArray[np.float64] = _tables()[name](np.arange(256), bytes=True)[:, :3].astype(np.float64)
    return colours


def check_palette(palette: str) -> None:
    """Raises as `palette_grey` does for a name that it doesn't know, and without matplotlib."""
    _candidates(palette, list(_tables()))


def _tables() -> Mapping[str, Any]:
    """Matplotlib's palettes by name."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "palette= (--palette) needs the tables of matplotlib; run: pip install 'serank[report]'"
        ) from error
    return matplotlib.colormaps


def _candidates(palette: str, tables: Sequence[str]) -> list[str]:
    """Matplotlib's palettes that a name stands for."""
    name = palette.strip().lower()
    if name in ("white-hot", "black-hot"):
        raise ValueError(f'palette={palette!r} has no colours; pass polarity="{name}" (--polarity {name}) instead')
    if name in UNKNOWN_PALETTES:
        raise ValueError(
            f"palette={palette!r}: no public table of this camera's palette; pass raw counts, or "
            'palette="auto" (--palette auto) for the nearest that is known'
        )
    known = KNOWN_PALETTES if name == "auto" else CAMERA_PALETTES.get(name, ())
    found = [table for table in known if table in tables] or [table for table in tables if table.lower() == name]
    if not found:
        names = [*CAMERA_PALETTES, *tables]
        raise ValueError(
            f'palette (--palette) must be "auto", {", ".join(CAMERA_PALETTES)} or a palette of matplotlib, such as '
            f"{', '.join(KNOWN_PALETTES[:7])}; got {palette!r}{did_you_mean(name, names)}"
        )
    return found


def _bytes(array: Array) -> NDArray[np.int16]:
    """Colours as 0 to 255, whatever their type."""
    if array.dtype == np.uint8:
        return array.astype(np.int16)
    top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else (1.0 if array.max() <= 1 else 255.0)
    scaled: NDArray[np.int16] = np.clip(np.rint(array * (255.0 / top)), 0, 255).astype(np.int16)
    return scaled
