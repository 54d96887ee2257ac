"""A data set of synthetic scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from serank.datasets.sample import Sample, Samples
from serank.synthetic.arguments import check_scene, count_range, value_range
from serank.synthetic.backgrounds import BACKGROUNDS
from serank.synthetic.scene import SizeLaw, make_scene
from serank.synthetic.sensor import Sensor
from serank.utils.checks import check_count


class SyntheticScenes(Samples[Sample]):
    """A data set of synthetic scenes, each made when it is asked for.

    Sample i depends on `seed`, i and the other arguments but `length`, neither on the order of access nor
    on the process, so data loader workers agree. Arguments that aren't listed are `make_scene`'s.

    Args:
        length: how many samples, >= 1.
        height: H, >= 16 px.
        width: W, >= 16 px.
        background: a name of `BACKGROUNDS`, or several to draw from evenly.
        targets: targets of a sample that has any, a number or `(low, high)`.
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
        sizes: SizeLaw = "even",
        shot: float = 0.0,
        stripes: float = 0.0,
        shading: float = 0.0,
        defects: float = 0.0,
    ) -> None:
        if not 0 <= empty <= 1:
            raise ValueError(f"empty must be a probability in [0, 1]; got {empty!r}")
        self.length, self.height, self.width = check_count(length, "length"), height, width
        self.backgrounds = (background,) if isinstance(background, str) else tuple(background)
        self.targets, self.size = count_range(targets), value_range("size", size, 1.0)
        self.scr = value_range("scr", scr, 1e-3)
        self.empty, self.seed, self.sizes = empty, check_count(seed, "seed", 0), sizes
        self.sensor = Sensor(noise, blur, shot, stripes, shading, defects)
        check_scene(height, width, self.backgrounds, self.size[1], sizes, self.sensor)

    def __len__(self) -> int:
        return self.length

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
            sizes=self.sizes,
            seed=rng,
            **asdict(self.sensor),
        )
        return Sample(f"{background}_{index:06d}", scene.frame, scene.mask)
