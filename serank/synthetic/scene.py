"""One synthetic scene: background, sensor, targets, mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from serank.synthetic.arguments import check_scene, count_range, value_range
from serank.synthetic.sensor import Sensor, add_defects, clutter
from serank.synthetic.targets import MASK_FRACTION, Target, footprint, plant
from serank.utils.checks import check_count

SizeLaw: TypeAlias = Literal["even", "log"]


class Scene(NamedTuple):
    """A frame, its mask, and what was planted."""

    frame: NDArray[np.float32]
    """`(H, W)` float32 in [0, 1]."""
    mask: NDArray[np.bool_]
    """`(H, W)` bool, true on targets."""
    targets: tuple[Target, ...]


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
    sizes: SizeLaw = "even",
    shot: float = 0.0,
    stripes: float = 0.0,
    shading: float = 0.0,
    defects: float = 0.0,
) -> Scene:
    """An infrared frame with planted targets and their mask.

    The signal-to-clutter ratio is `(peak - mean) / max(std, 0.005)`. `peak` is the brightest value inside
    the target's mask; `mean` and `std` are of the clutter, the frame as the same seed gives it with
    `targets=0` and `defects=0`, over a square window around the target's nearest pixel that reaches
    `ceil(size) + 8` px to each side and is cut at the frame's border. Real targets can stand out more than
    the default range: by a like measure, half of SIRST's are above 20.

    A target goes where it reaches its ratio with a peak <= 1. Where none of 32 random places allows that,
    the best is taken, `Target.scr` tells the ratio reached, and the whole frame, targets and noise
    included, is divided by its maximum, which keeps every ratio (but for the floor of `std`).

    Args:
        height: H, >= 16 px.
        width: W, >= 16 px.
        background: one of `BACKGROUNDS`.
        targets: how many, or `(low, high)`, both included.
        size: full width of a target's mask in px, or `(low, high)` to draw from; at least 1, at most a third of
            the shorter side. The mask has about `pi / 4 * size**2` pixels: 1 to 4 at a size of 1 to 1.8, depending
            on where between pixels the centre is, and 80 at 10.
        scr: signal-to-clutter ratio, or `(low, high)` to draw from evenly; >= 0.001.
        noise: standard deviation of the sensor's Gaussian noise in units of the full range, in [0, 0.5].
        blur: standard deviation of the optical blur of the background in px, in [0, 10]. It leaves targets
            alone: `size` is what the sensor sees.
        seed: an int >= 0, or a generator, which is advanced.
        sizes: how `size` is drawn, `"even"`, or `"log"` for evenly in its logarithm: small ones dominate.
        shot: strength of noise that grows with the level, in [0, 0.5]: its standard deviation is `shot` times the
            root of the background's value.
        stripes: fixed-pattern noise, in [0, 0.5]: standard deviation of the columns' offsets; that of the rows' is
            half of it.
        shading: fixed-pattern noise, in [0, 0.5]: standard deviation of a smooth field across the frame.
        defects: share of defective pixels, in [0, 0.1]: single pixels, half of them dead and half hot, moved by 0.3
            to 1 of the way to 0 or 1. They are no targets: the mask is false there. None lies within 2 px of a
            target's mask. A target of less than about 1.5 px has as little light beside its pixel as a hot one.

    Returns:
        Frame, mask and targets. The background does not depend on `targets`, `size`, `sizes`, `scr` or `defects`.

    Raises:
        ValueError: an argument is out of its range, or the targets do not fit apart from each other.
    """
    count, widths, ratios = count_range(targets), value_range("size", size, 1.0), value_range("scr", scr, 1e-3)
    sensor = Sensor(noise, blur, shot, stripes, shading, defects)
    check_scene(height, width, (background,), widths[1], sizes, sensor)
    if not isinstance(seed, Generator):
        seed = check_count(seed, "seed", 0)
    rng = np.random.default_rng(seed)
    frame = clutter(rng, height, width, background, sensor)
    number = int(rng.integers(count[0], count[1] + 1))
    planted = plant(rng, frame, number, widths, ratios, log_sizes=sizes == "log")
    mask = np.zeros((height, width), dtype=bool)
    for target in planted:
        box, profile = footprint(target, (height, width))
        frame[box] += target.amplitude * profile
        mask[box] |= profile >= MASK_FRACTION
    gain = 1 / max(1.0, float(frame.max()))
    planted = [replace(t, amplitude=gain * t.amplitude) for t in planted]
    frame = gain * frame
    if defects:
        add_defects(rng, frame, mask, defects)
    return Scene(frame.astype(np.float32), mask, tuple(planted))
