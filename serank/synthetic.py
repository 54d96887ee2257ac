"""Synthetic infrared scenes with exact masks: backgrounds of filtered noise and Gaussian targets.

Natural scenes have power-law spectra (Field, "Relations between the statistics of natural images and the
response properties of cortical cells", JOSA A 1987), so every background starts from noise of spectrum
`1 / f^beta`. Brightness and contrast were set by eye to those of the frames of SIRST. numpy and scipy only;
the same seed gives the same scene.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from serank.datasets import Sample

__all__ = ["BACKGROUNDS", "MASK_FRACTION", "Scene", "SyntheticScenes", "Target", "make_scene"]

Array = NDArray[np.float64]

MASK_FRACTION = math.exp(-1)
"""A pixel belongs to a target's mask when the target adds at least this share of its amplitude there. At
1/e the mean over the mask is 0.63 of the peak, the median of SIRST's hand-drawn masks; at one half it would
be 0.72."""

MIN_SIDE = 16
STD_FLOOR = 0.005
"""Lowest local standard deviation in the signal-to-clutter ratio, about one grey level of 8 bits."""
WINDOW = 8
"""The local background reaches this many pixels beyond a target's own size, on each side."""
GAP = 4
"""Free pixels between two targets, on top of their sizes."""
CANDIDATES = 32
"""Positions tried for a target before the best of them is taken."""


@dataclass(frozen=True)
class Target:
    """A planted target, the elliptical Gaussian `exp(-(u / a)^2 - (v / b)^2)` sampled at pixel centres.

    It is scaled to `amplitude` at its brightest pixel. `(u, v)` run along its axes, with
    `a = size / 2 * sqrt(aspect)` and `b = size / 2 / sqrt(aspect)`, so that its mask (see `MASK_FRACTION`) is
    an ellipse with the area of a circle of diameter `size`. The standard deviations are `a / sqrt(2)` and
    `b / sqrt(2)`.
    """

    x: float
    """Column of the centre in px; (0, 0) is the centre of the top left pixel."""
    y: float
    """Row of the centre in px."""
    size: float
    """Full width of the mask in px, geometric mean over its two axes."""
    aspect: float
    """Long axis over short axis, >= 1."""
    angle: float
    """From the x axis to the long axis, in radians, in [0, pi), towards positive y."""
    amplitude: float
    """What the target adds at its brightest pixel, in units of the frame."""
    scr: float
    """Signal-to-clutter ratio as reached, see `make_scene`."""


class Scene(NamedTuple):
    """A frame, its mask, and what was planted."""

    frame: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1]."""
    mask: NDArray[np.bool_]
    """`(H, W)` bool, true on targets."""
    targets: tuple[Target, ...]


# Backgrounds: (rng, height, width) -> (H, W) float64, roughly in [0, 1].


def _noise(
    rng: Generator,
    height: int,
    width: int,
    beta: float,
    *,
    outer: float = math.inf,
    stretch: float = 1.0,
) -> Array:
    """Noise of power spectrum `1 / (f^2 + outer^-2)^(beta / 2)`, mean 0 and deviation 1.

    Args:
        rng: source of the noise.
        height: H.
        width: W.
        beta: slope of the spectrum; 2 is rough, 4 smooth.
        outer: longest structure, in px.
        stretch: how many times longer structures are along x than along y.
    """
    # the transform is periodic: a larger field is made and cut, so that opposite borders differ
    rows, columns = (32 * math.ceil(side * 1.25 / 32) for side in (height, width))
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns)))
    squared = np.fft.fftfreq(rows)[:, None] ** 2 + (stretch * np.fft.rfftfreq(columns)) ** 2 + outer**-2.0
    squared[0, 0] = math.inf
    field = np.fft.irfft2(spectrum * squared ** (-beta / 4), s=(rows, columns))[:height, :width]
    return np.asarray((field - field.mean()) / field.std())


def _step(values: Array, softness: float) -> Array:
    """Soft threshold at 0, from 0 to 1 over about four times `softness`."""
    return np.asarray(0.5 + 0.5 * np.tanh(values / (2 * softness)))


def _plane(rng: Generator, height: int, width: int) -> Array:
    """Linear gradient from -0.5 to 0.5 in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    plane = math.sin(angle) * y + math.cos(angle) * x
    return np.asarray(plane / np.ptp(plane))


def _sky(rng: Generator, height: int, width: int) -> Array:
    level, slope = rng.uniform(0.25, 0.5), rng.uniform(0.02, 0.2)
    haze = rng.uniform(0.004, 0.02) * _noise(rng, height, width, 3.2, stretch=1.5)
    plane = _plane(rng, height, width)
    return np.asarray(level + slope * (plane + plane**2) + haze)


def _cloud(rng: Generator, height: int, width: int) -> Array:
    field = _noise(rng, height, width, rng.uniform(3.1, 4.0), stretch=rng.uniform(1.0, 1.8))
    folds = _noise(rng, height, width, 3.2, outer=0.3 * max(height, width))
    cover = _step(field - rng.uniform(-0.3, 0.9), rng.uniform(0.12, 0.6))
    body = cover * (1 + rng.uniform(0.06, 0.18) * folds)
    level, contrast = rng.uniform(0.15, 0.4), rng.uniform(0.12, 0.5)
    gradient = rng.uniform(0.03, 0.15) * _plane(rng, height, width)
    return np.asarray(level + contrast * body + gradient)


def _sea(rng: Generator, height: int, width: int) -> Array:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    # from 0 at the horizon to 1 at the lower border; negative is sky
    depth = (y - rng.uniform(-0.2, 0.35) - rng.uniform(-0.06, 0.06) * x) / 0.85
    below = np.clip(depth, 0, 1)
    far = _noise(rng, height, width, 2.0, outer=16, stretch=5)
    near = _noise(rng, height, width, 2.6, outer=0.12 * height, stretch=4)
    swell = _noise(rng, height, width, 3.4, stretch=4)
    waves = (1 - below) * far + (0.4 + below) * near
    glitter = np.exp(-(((x - rng.uniform(0, 1)) / rng.uniform(0.15, 0.4)) ** 2))
    glints = np.clip(far + 0.5 * near - 2.0, 0, 1.5) * glitter
    level, slope = rng.uniform(0.28, 0.5), rng.uniform(-0.12, 0.12)
    sea = level + slope * below + rng.uniform(0.008, 0.025) * waves + 0.015 * swell + 0.06 * glints
    sea += rng.uniform(0.0, 0.1) * glitter
    sky = level + rng.uniform(-0.15, 0.15) + rng.uniform(-0.2, 0.2) * depth
    sky += 0.015 * _noise(rng, height, width, 3.4, stretch=3)
    # the horizon is sharp: about one pixel
    return np.asarray(sky + _step(depth, 0.3 / height) * (sea - sky))


def _ground(rng: Generator, height: int, width: int) -> Array:
    side = min(height, width)
    stretch = rng.uniform(1.5, 4.0)
    regions = _noise(rng, height, width, 3.2, stretch=stretch)
    levels = rng.uniform(-1, 1, 7)
    # a few brightness steps with sharp borders between them, as between fields
    scene = levels[np.clip(np.floor(1.3 * regions) + 3, 0, 6).astype(int)]
    scene = 0.9 * scene + 0.5 * _noise(rng, height, width, 2.5, stretch=stretch)
    scrub = np.clip(_noise(rng, height, width, 2.0, outer=12, stretch=1.5) - 1.2, 0, 1.5)
    scene += rng.uniform(-1.2, 1.2) * scrub * _step(regions, 0.2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = rng.uniform(-0.3, 0.3)
    for _ in range(rng.integers(1, 3)):  # roads
        offset = (y - rng.uniform(0.3, 1) * height) * math.cos(angle) - (x - width / 2) * math.sin(angle)
        bend = 0.04 * side * np.sin(2 * math.pi * (x / width * rng.uniform(0.3, 1) + rng.uniform()))
        road = np.abs(offset + bend) < max(1.0, side * rng.uniform(0.006, 0.02))
        scene = np.where(road, rng.uniform(-1.5, 1.5) + 0.15 * scene, scene)
    for _ in range(rng.integers(1, 6)):  # roofs, larger than targets
        u, v = x - rng.uniform(0, width), y - rng.uniform(0.3, 1) * height
        u, v = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
        half_width, half_height = side * rng.uniform(0.04, 0.12), side * rng.uniform(0.02, 0.05)
        roof = (np.abs(u) < half_width) & (np.abs(v) < half_height)
        slope = np.where(v < 0, 0.2, -0.2)
        scene = np.where(roof, rng.uniform(-1.2, 1.8) + slope + 0.2 * scene, scene)
    for _ in range(rng.integers(1, 4)):  # warm patches
        u, v = (x - rng.uniform(0, width)) / (2 * side), (y - rng.uniform(0, height)) / side
        scene += rng.uniform(0.5, 1.5) * np.exp(-(u**2 + v**2) / (2 * rng.uniform(0.04, 0.12) ** 2))
    scene = rng.uniform(0.3, 0.5) + rng.uniform(0.04, 0.1) * scene
    if rng.uniform() < 0.5:  # a ridge with sky above it
        ridge = rng.uniform(0.1, 0.3) + 0.03 * _noise(rng, 1, width, 2.6)
        sky = rng.uniform(0.2, 0.45) + 0.1 * y / height
        scene = sky + _step(y / height - ridge, 0.5 / height) * (scene - sky)
    return np.asarray(scene)


_MAKERS: dict[str, Callable[[Generator, int, int], Array]] = {
    "cloud": _cloud,
    "sea": _sea,
    "ground": _ground,
    "sky": _sky,
}

BACKGROUNDS = tuple(_MAKERS)
"""Names of the backgrounds."""


def _clutter(rng: Generator, height: int, width: int, background: str, blur: float, noise: float) -> Array:
    """What the sensor sees without targets: background, optics, noise; `(H, W)` in [0, 1]."""
    scene = _MAKERS[background](rng, height, width)
    scene = ndimage.gaussian_filter(scene, blur, mode="nearest")
    # real sensors saturate below full scale after their gain control, which leaves room for targets
    scene = np.clip(scene, 0.02, 0.85)
    return np.asarray(np.clip(scene + noise * rng.standard_normal((height, width)), 0, 1))


# Targets.


def _profile(target: Target, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Array]:
    """A target's contribution over its amplitude, 1 at its brightest pixel, in the box where it matters."""
    reach = 2 * math.ceil(target.size)
    box = _box(target, reach, shape)
    y, x = np.mgrid[box].astype(np.float64)
    cos, sin = math.cos(target.angle), math.sin(target.angle)
    u = (x - target.x) * cos + (y - target.y) * sin
    v = (y - target.y) * cos - (x - target.x) * sin
    exponent = (u**2 / target.aspect + v**2 * target.aspect) / (target.size / 2) ** 2
    # a centre between pixels must not cost a one-pixel target its amplitude
    return box, np.exp(exponent.min() - exponent)


def _box(target: Target, reach: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    row, column = round(target.y), round(target.x)
    return (
        slice(max(0, row - reach), min(shape[0], row + reach + 1)),
        slice(max(0, column - reach), min(shape[1], column + reach + 1)),
    )


def _raise_to(target: Target, clutter: Array) -> tuple[Target, float]:
    """The target with the amplitude that gives it `target.scr` at its place, and its peak."""
    window = clutter[_box(target, math.ceil(target.size) + WINDOW, _shape(clutter))]
    mean, std = float(window.mean()), max(float(window.std()), STD_FLOOR)
    box, profile = _profile(target, _shape(clutter))
    inside = profile >= MASK_FRACTION
    behind, profile = clutter[box][inside], profile[inside]
    # the brightest pixel of clutter and target together is then at mean + scr * std
    amplitude = float(np.min((mean + target.scr * std - behind) / profile))
    # never less than half of what it would add to a flat background, or clutter alone would make the peak
    amplitude = max(amplitude, 0.5 * target.scr * std)
    peak = float(np.max(behind + amplitude * profile))
    return replace(target, amplitude=amplitude, scr=(peak - mean) / std), peak


def _place(rng: Generator, wish: Target, clutter: Array, free: NDArray[np.bool_]) -> Target | None:
    """`wish` at a free place where it reaches its ratio below full scale, or the nearest to that."""
    places = np.flatnonzero(free)
    if not len(places):
        return None
    best, least = wish, math.inf
    for place in rng.choice(places, CANDIDATES):
        row, column = divmod(int(place), clutter.shape[1])
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        target, peak = _raise_to(replace(wish, x=float(column + dx), y=float(row + dy)), clutter)
        miss = max(0.0, peak - 1) + max(0.0, target.scr - wish.scr - 1e-6)
        if miss < least:
            best, least = target, miss
        if miss == 0:
            break
    return best


def _plant(
    rng: Generator, clutter: Array, count: int, size: tuple[float, float], scr: tuple[float, float]
) -> list[Target]:
    """`count` targets, each with its amplitude, apart from each other and from the border."""
    height, width = clutter.shape
    targets: list[Target] = []
    for _ in range(count):
        width_px = float(rng.uniform(*size))
        # below 3 px the optics make every target round
        aspect = float(rng.uniform(1.0, 1.6)) if width_px >= 3 else 1.0
        wish = Target(0, 0, width_px, aspect, float(rng.uniform(0, math.pi)), 0, float(rng.uniform(*scr)))
        margin = _margin(width_px)
        free = np.zeros(clutter.shape, dtype=bool)
        free[margin : height - margin, margin : width - margin] = True
        for other in targets:
            y, x = np.ogrid[:height, :width]
            free &= np.hypot(y - other.y, x - other.x) > width_px + other.size + GAP
        target = _place(rng, wish, clutter, free)
        if target is None:
            raise ValueError(
                f"targets: only {len(targets)} of {count} fit into {height} x {width} px at sizes up to "
                f"{size[1]:g} px; ask for fewer or smaller targets or a larger frame"
            )
        targets.append(target)
    return targets


def _margin(size: float) -> int:
    return math.ceil(0.75 * size) + 1


def _shape(array: Array) -> tuple[int, int]:
    height, width = array.shape
    return height, width


# Arguments.


def _range(name: str, value: float | tuple[float, float], least: float) -> tuple[float, float]:
    low, high = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
    if not all(isinstance(v, (int, float, np.integer, np.floating)) for v in (low, high)):
        raise ValueError(f"{name} must be a number or a pair (low, high); got {value!r}")
    if not least <= low <= high < math.inf:
        raise ValueError(f"{name} must be finite, >= {least:g}, low <= high; got {value!r}")
    return low, high


def _count_range(value: int | tuple[int, int]) -> tuple[int, int]:
    low, high = _range("targets", value, 0)
    if low != int(low) or high != int(high):
        raise ValueError(f"targets must be an int or a pair of ints; got {value!r}")
    return int(low), int(high)


def _check(height: int, width: int, backgrounds: Sequence[str], size: float, noise: float, blur: float) -> None:
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, (int, np.integer)) or value < MIN_SIDE:
            raise ValueError(f"{name} must be an int >= {MIN_SIDE} px; got {value!r}")
    unknown = [b for b in backgrounds if b not in BACKGROUNDS]
    if unknown or not backgrounds:
        raise ValueError(f"background must be among {', '.join(BACKGROUNDS)}; got {unknown or backgrounds!r}")
    most_size = min(height, width) / 3
    if size > most_size:
        raise ValueError(
            f"size must be at most a third of the shorter side, {most_size:.1f} px; got {size:g}; "
            "make the frame larger or the targets smaller"
        )
    for name, strength, most in (("noise", noise, 0.5), ("blur", blur, 10.0)):
        if not 0 <= strength <= most:
            raise ValueError(f"{name} must be in [0, {most:g}]; got {strength!r}")


def _check_seed(seed: int) -> None:
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an int >= 0; got {seed!r}")


def make_scene(
    height: int,
    width: int,
    *,
    background: str = "cloud",
    targets: int | tuple[int, int] = 1,
    size: float | tuple[float, float] = (1.0, 5.0),
    scr: float | tuple[float, float] = (3.0, 10.0),
    noise: float = 0.01,
    blur: float = 0.7,
    seed: int | Generator = 0,
) -> Scene:
    """An infrared frame with planted targets and their mask.

    The signal-to-clutter ratio is `(peak - mean) / max(std, 0.005)`. `peak` is the brightest value inside
    the target's mask; `mean` and `std` are of the clutter, the frame as the same seed gives it with
    `targets=0`, over a square window around the target's nearest pixel that reaches `ceil(size) + 8` px to
    each side and is cut at the frame's border. Real targets can stand out more than the default range: by a
    like measure, half of SIRST's are above 20.

    A target goes where it reaches its ratio with a peak <= 1. Where none of 32 random places allows that,
    the best is taken, `Target.scr` tells the ratio reached, and the whole frame, targets and noise
    included, is divided by its maximum, which keeps every ratio (but for the floor of `std`).

    Args:
        height: H, >= 16 px.
        width: W, >= 16 px.
        background: one of `BACKGROUNDS`.
        targets: how many, or `(low, high)`, both included.
        size: full width of a target's mask in px, or `(low, high)` to draw from evenly; at least 1, at most
            a third of the shorter side.
        scr: signal-to-clutter ratio, or `(low, high)` to draw from evenly; >= 0.001.
        noise: standard deviation of the sensor's Gaussian noise in units of the full range, in [0, 0.5].
        blur: standard deviation of the optical blur of the background in px, in [0, 10]. It leaves targets
            alone: `size` is what the sensor sees.
        seed: an int >= 0, or a generator, which is advanced.

    Returns:
        Frame, mask and targets. The background does not depend on `targets`, `size` or `scr`.

    Raises:
        ValueError: an argument is out of its range, or the targets do not fit apart from each other.
    """
    count, sizes, ratios = _count_range(targets), _range("size", size, 1.0), _range("scr", scr, 1e-3)
    _check(height, width, (background,), sizes[1], noise, blur)
    if not isinstance(seed, Generator):
        _check_seed(seed)
    rng = np.random.default_rng(seed)
    frame = _clutter(rng, height, width, background, blur, noise)
    planted = _plant(rng, frame, int(rng.integers(count[0], count[1] + 1)), sizes, ratios)
    mask = np.zeros((height, width), dtype=bool)
    for target in planted:
        box, profile = _profile(target, (height, width))
        frame[box] += target.amplitude * profile
        mask[box] |= profile >= MASK_FRACTION
    gain = 1 / max(1.0, float(frame.max()))
    planted = [replace(t, amplitude=gain * t.amplitude) for t in planted]
    return Scene((gain * frame).astype(np.float32), mask, tuple(planted))


class SyntheticScenes(Sequence[Sample]):
    """A data set of synthetic scenes, each made when it is asked for.

    Sample i depends on `seed`, i and the other arguments but `length`, neither on the order of access nor
    on the process, so data loader workers agree. See `make_scene` for what the arguments mean.

    Args:
        length: how many samples, >= 1.
        height: H, >= 16 px.
        width: W, >= 16 px.
        background: a name of `BACKGROUNDS`, or several to draw from evenly.
        targets: targets of a sample that has any, a number or `(low, high)`.
        size: full width of a target's mask in px, a number or `(low, high)`.
        scr: signal-to-clutter ratio, a number or `(low, high)`.
        noise: standard deviation of the sensor's noise.
        blur: standard deviation of the optical blur in px.
        empty: probability that a sample has no target, in [0, 1].
        seed: an int >= 0; another one gives other samples.

    Raises:
        ValueError: an argument is out of its range; on access, targets that do not fit apart from each other.
    """

    def __init__(
        self,
        length: int,
        height: int,
        width: int,
        *,
        background: str | Sequence[str] = BACKGROUNDS,
        targets: int | tuple[int, int] = (1, 3),
        size: float | tuple[float, float] = (1.0, 5.0),
        scr: float | tuple[float, float] = (3.0, 10.0),
        noise: float = 0.01,
        blur: float = 0.7,
        empty: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not isinstance(length, (int, np.integer)) or length < 1:
            raise ValueError(f"length must be an int >= 1; got {length!r}")
        if not 0 <= empty <= 1:
            raise ValueError(f"empty must be a probability in [0, 1]; got {empty!r}")
        _check_seed(seed)
        self.length, self.height, self.width = int(length), height, width
        self.backgrounds = (background,) if isinstance(background, str) else tuple(background)
        self.targets, self.size = _count_range(targets), _range("size", size, 1.0)
        self.scr = _range("scr", scr, 1e-3)
        self.noise, self.blur, self.empty, self.seed = noise, blur, empty, int(seed)
        _check(height, width, self.backgrounds, self.size[1], noise, blur)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """The sample at `index`, named `BACKGROUND_INDEX`; negative counts from the end."""
        index = range(self.length)[index]
        rng = np.random.default_rng((self.seed, index))
        background = str(rng.choice(self.backgrounds))
        scene = make_scene(
            self.height,
            self.width,
            background=background,
            targets=0 if rng.uniform() < self.empty else self.targets,
            size=self.size,
            scr=self.scr,
            noise=self.noise,
            blur=self.blur,
            seed=rng,
        )
        return Sample(f"{background}_{index:06d}", scene.frame, scene.mask)
