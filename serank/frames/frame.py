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

from serank.errors import FrameError
from serank.frames.defects import repair_defects
from serank.frames.filling import fill, is_wide
from serank.frames.options import FrameOptions
from serank.frames.palettes import has_colours, palette_grey
from serank.frames.preparation import FrameSpec, check_pixels, luminance
from serank.frames.reading import read_pixels
from serank.frames.scaling import (
    UNIT_CONTRAST,
    UNIT_MEDIAN,
    Array,
    evenly_spread,
    is_constant,
    location_contrast,
    to_unit,
)

if TYPE_CHECKING:
    from serank.frames.reading import FrameLike

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
    """`(H, W)` float32 in [0, 1], what the network takes, see `serank.frames.scaling.to_unit`."""
    hidden: NDArray[np.bool_] | None = None
    """`(H, W)`, pixels where nothing may be found; `None` for none. All of them in a constant frame."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.grey.shape
        return height, width


@dataclass(frozen=True, eq=False)
class CleanPixels:
    """Grey values as stored, repaired and filled, before they are scaled."""

    values: Array
    """`(H, W)`, of the stored type."""
    missing: NDArray[np.bool_] | None
    """`(H, W)`, pixels without data or ignored, filled from their neighbours; `None` for none."""
    ignored: NDArray[np.bool_] | None = None
    """`(H, W)`, those of them that are ignored."""

    @property
    def valid(self) -> NDArray[np.bool_] | None:
        """The pixels that hold data; `None` for all."""
        return None if self.missing is None else ~self.missing

    @property
    def constant(self) -> bool:
        """Whether all pixels that hold data are equal."""
        return is_constant(self.values, self.valid)

    @property
    def uncounted(self) -> NDArray[np.bool_] | None:
        """Pixels that no metric counts: ignored ones, and regions without data, see `serank.frames.filling.is_wide`.

        Single pixels and thin lines without data count as they were filled.
        """
        if self.missing is None:
            return None
        wide = is_wide(self.missing)
        return wide if self.ignored is None else wide | self.ignored


class FramePreparer:
    """Prepares frames, and warns once of each kind of thing that is likely to spoil the result.

    Args:
        spec: of the network.
        options: what is known of the frames.
    """

    def __init__(self, spec: FrameSpec, options: FrameOptions | None = None) -> None:
        self.options = FrameOptions() if options is None else options
        self.repair = self.options.repaired(spec.repair).repair
        self._said: set[str] = set()

    def __call__(self, source: FrameLike | Frame) -> Frame:
        """The frame that `source` stands for.

        Args:
            source: as for `serank.frames.read_frame`; a `Frame` is taken as it is, where there are no options.

        Raises:
            FileNotFoundError: no such file.
            FrameError: not a frame; names the file and the reason.
            ImportError: `palette` without matplotlib.
            TypeError: `source` is none of these.
            ValueError: an unknown palette, or options for a `Frame`, which is prepared already.
        """
        if isinstance(source, Frame):
            if self.options.given:
                raise ValueError(
                    f"a prepared Frame takes no options; got {', '.join(self.options.given)}. Pass the frame's pixels, "
                    "or give the options to the FramePreparer that makes it"
                )
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
        clean = self.clean(pixels, name, file)
        unit = self.scale(clean)
        hidden = clean.missing
        if self._is_constant(clean, unit, name):
            hidden = np.ones(unit.shape, np.bool_)
        return Frame(unit, hidden)

    def clean(self, pixels: Array, name: str, file: str | os.PathLike[str] | None = None) -> CleanPixels:
        """Decoded pixels as grey values, without defects and gaps; arguments and errors are those of `prepare`."""
        options = self.options
        if file is not None and (maker := _thermal_maker(Path(file))):
            self._warn("jpeg", f"{name}: a rendered preview of a {maker} camera; raw counts show more of a target")
        array, missing = check_pixels(pixels, name, options.missing_values)
        grey = self._grey(array, name)
        height, width = grey.shape
        ignored = options.ignored(height, width, name)
        if ignored is not None:
            missing = ignored if missing is None else missing | ignored
        if missing is not None:
            if missing.all():
                raise FrameError(f"{name}: no pixel is left; each one is without data or ignored")
            grey = fill(grey, missing)
        return CleanPixels(repair_defects(grey) if self.repair else grey, missing, ignored)

    def scale(self, clean: CleanPixels) -> NDArray[np.float32]:
        """Grey `(H, W)` float32 in [0, 1], by the range of the options where they have one."""
        grey = clean.values
        if self.options.value_range is not None:
            low, high = self.options.value_range
            grey = np.clip((grey.astype(np.float64) - low) / (high - low), 0, 1)
        return to_unit(grey, clean.valid, inverted=self.options.polarity == "black-hot")

    def _grey(self, array: Array, name: str) -> Array:
        if array.ndim == 3 and has_colours(array):
            if self.options.palette is not None:
                return palette_grey(array, self.options.palette, name)
            advice = 'pass raw counts, or palette="auto" (--palette auto) or its name'
            self._warn("colour", f"{name}: false colour; targets may be dark in it; {advice}")
        elif array.ndim == 3 and array.dtype.str[1:] in ("u2", "i2") and (array != array[..., :1]).any():
            self._warn(
                "channels",
                f"{name}: three channels of {array.dtype} that differ, taken for one frame in colours; if they are "
                'three frames, write them with one sample a pixel (tifffile: photometric="minisblack")',
            )
        return luminance(array)

    def _is_constant(self, clean: CleanPixels, unit: NDArray[np.float32], name: str) -> bool:
        """Whether nothing can be found in the frame; warns of that and of a crushed one."""
        if clean.constant:
            self._warn(
                "constant",
                f"{name}: constant, nothing can be found in it; if the scene isn't, look at how the file was written",
            )
            return True
        low, high = np.quantile(evenly_spread(unit, clean.valid), (0.05, 0.95))
        if high - low < CRUSHED:
            median, contrast = location_contrast(clean.values, clean.valid)
            full = contrast / UNIT_CONTRAST
            ends = (median - UNIT_MEDIAN * full, median + (1 - UNIT_MEDIAN) * full)
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
