"""A frame ready for a network, from anything that stands for one, by what is known of it."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serank.frames.filling import fill
from serank.frames.options import FrameOptions
from serank.frames.palettes import has_colours, palette_grey
from serank.frames.preparation import Array, check_pixels, luminance
from serank.frames.reading import read_pixels
from serank.frames.scaling import (
    UNIT_MEDIAN,
    UNIT_SPREAD,
    Scaling,
    evenly_spread,
    location_spread,
    standardise,
    to_unit,
)

if TYPE_CHECKING:
    from serank.frames.reading import FrameLike

__all__ = ["Frame", "FramePreparer"]

CRUSHED = 0.02
"""Share of the range in which the central 90% of a frame's pixels must not lie; quiet skies of 8 bits keep above it."""
JPEG_SUFFIXES = (".jpg", ".jpeg")
EXIF_MAKE = 271
THERMAL_MAKERS = ("flir", "hikmicro", "infratec", "optris", "seek", "infiray", "raytron", "testo", "fluke", "guide")
"""Makers of thermal cameras, as EXIF names them in lower case."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A prepared frame."""

    grey: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1], to look at."""
    values: NDArray[np.float32]
    """`(H, W)` float32, what the network's scaling makes of it, see `serank.frames.FrameSpec.scaling`."""
    hidden: NDArray[np.bool_] | None = None
    """`(H, W)`, pixels where nothing may be found; `None` for none. All of them in a constant frame."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.grey.shape
        return height, width

    def shown(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """Target probability `(H, W)`, 0 on hidden pixels."""
        return probability if self.hidden is None else np.where(self.hidden, np.float32(0), probability)


class FramePreparer:
    """Prepares frames, and warns once of each kind of thing that is likely to spoil the result.

    Args:
        scaling: of the network.
        options: what is known of the frames.
    """

    def __init__(self, scaling: Scaling, options: FrameOptions | None = None) -> None:
        self.scaling = scaling
        self.options = FrameOptions() if options is None else options
        self._said: set[str] = set()

    def __call__(self, source: FrameLike | Frame) -> Frame:
        """The frame that `source` stands for.

        Args:
            source: as for `serank.frames.read_frame`; a `Frame` is taken as it is.

        Raises:
            FileNotFoundError: no such file.
            FrameError: not a frame; names the file and the reason.
            ImportError: `palette` without matplotlib.
            TypeError: `source` is none of these.
            ValueError: an unknown palette.
        """
        if isinstance(source, Frame):
            return source
        pixels, name = read_pixels(source)
        return self.prepare(pixels, name, source if isinstance(source, (str, os.PathLike)) else None)

    def prepare(self, pixels: Array, name: str, file: str | os.PathLike[str] | None = None) -> Frame:
        """The frame of decoded pixels.

        Args:
            pixels: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`.
            name: what warnings and errors call the frame.
            file: that it came from, where its metadata may be read.

        Raises:
            FrameError: not a frame, or one that doesn't fit the options.
        """
        options = self.options
        if file is not None and (maker := _thermal_maker(Path(file))):
            self._warn("jpeg", f"{name}: a rendered preview of a {maker} camera; raw counts show more of a target")
        array, missing = check_pixels(pixels, name, options.missing_values)
        grey = self._grey(array, name)
        height, width = grey.shape
        if (ignored := options.ignored(height, width, name)) is not None:
            missing = ignored if missing is None else missing | ignored
        valid = None
        if missing is not None:
            valid = ~missing
            grey = fill(grey, missing)
        inverted = options.polarity == "black-hot"
        stored = grey
        if options.value_range is not None:
            low, high = options.value_range
            grey = np.clip((grey.astype(np.float64) - low) / (high - low), 0, 1)
        unit = to_unit(grey, valid, inverted=inverted)
        values = standardise(grey, valid, inverted=inverted) if self.scaling == "standard" else unit
        if self._is_constant(stored, unit, valid, name):
            missing = np.ones(grey.shape, np.bool_)
        return Frame(unit, values, missing)

    def _grey(self, array: Array, name: str) -> Array:
        if array.ndim == 3 and has_colours(array):
            if self.options.palette is not None:
                return palette_grey(array, self.options.palette, name)
            self._warn("colour", f"{name}: false colour; targets may be dark in it; pass raw counts, or palette=")
        return luminance(array)

    def _is_constant(
        self, stored: Array, unit: NDArray[np.float32], valid: NDArray[np.bool_] | None, name: str
    ) -> bool:
        """Whether nothing can be found in the frame; warns of that and of a crushed one."""
        seen = stored if valid is None else stored[valid]
        if seen.min() == seen.max():
            self._warn(
                "constant",
                f"{name}: constant, nothing can be found in it; if the scene isn't, look at how the file was written",
            )
            return True
        if self.scaling == "unit":
            low, high = np.quantile(evenly_spread(unit, valid), (0.05, 0.95))
            if high - low < CRUSHED:
                median, spread = location_spread(stored, valid)
                ends = (median - UNIT_MEDIAN / UNIT_SPREAD * spread, median + (1 - UNIT_MEDIAN) / UNIT_SPREAD * spread)
                self._warn(
                    "crushed",
                    f"{name}: 90% of its pixels lie in {100 * (high - low):.2g}% of the range, and targets may be "
                    f"lost; pass value_range=({ends[0]:.6g}, {ends[1]:.6g}) (--range), or one that you know",
                )
        return False

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"{message} (said once)", stacklevel=4)


def _thermal_maker(file: Path) -> str | None:
    """The maker of the thermal camera that a JPEG file's EXIF names."""
    if file.suffix.lower() not in JPEG_SUFFIXES:
        return None
    try:
        with warnings.catch_warnings(), Image.open(file, formats=("JPEG",)) as image:
            warnings.simplefilter("ignore")  # of odd metadata
            maker = str(image.getexif().get(EXIF_MAKE, "")).strip("\0 ")
    except Exception:  # whatever is wrong with the file is said when it is decoded
        return None
    return maker if maker.lower().startswith(THERMAL_MAKERS) else None
