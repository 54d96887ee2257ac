"""Trains the bundled checkpoint `sirst`, stage by stage, from random weights on SIRST's own training frames.

    python benchmarks/sirst.py path/to/sirst --output runs/sirst

Each stage starts from the best weights, on `val`, of the one before or of those it names, and leaves a checkpoint,
`runs/sirst/STAGE/best`. Stages that `--output` has already are not trained again, and a stopped one goes on with the
same command. The bundled checkpoint is put together from some, by `serank average` and `serank graft`; its card has the
commands.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from repeats import Chosen
from scipy import ndimage

from serank import SeRankDet
from serank.datasets import FolderDataset, JoinedSamples, Sample, grey_statistics
from serank.inference.detector import predict
from serank.metrics.components import component_table, label_components
from serank.train import Augmentation, Recipe, fit
from serank.train.averaging import average

LARGE = 80
"""Pixels above which a target counts as large. Few frames hold one, and their pixels weigh most in IoU."""
HARD = 25
"""Wrong pixels above which a frame counts as hard: most wrong pixels lie in a few frames, as blobs or lost rims."""


@dataclass(frozen=True)
class Stage:
    """One training of the chain.

    Attributes:
        name: of its folder.
        working_size: longest side to which frames are scaled, in px.
        recipe: see `serank.train.Recipe`.
        large: how often an epoch takes frames with a large target.
        hard: how often it takes frames that the network is wrong on as the stage begins.
        close: how often it takes frames with two targets at most 3 px apart.
        start: stages from the mean of whose best weights it starts; none for those of the stage before.
        teacher: stages the mean of whose best weights is the teacher; none for no teacher.
    """

    name: str
    working_size: int
    recipe: Recipe
    large: int = 1
    hard: int = 1
    close: int = 1
    start: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


COMMON = Recipe(batch_size=4, average=0.99, precision="bfloat16")
CROPS = Augmentation(crop=160, scale=(0.6, 1.6), target_share=0.9)
FINE_CROPS = replace(CROPS, crop=240, target_share=0.5, paste=0.3)
FINE = replace(
    COMMON,
    learning_rate=6e-4,
    clip=2.0,
    loss="soft_iou_area",
    pixel_weight=50.0,
    deep_supervision=False,
    freeze_statistics=True,
)
APART = replace(
    FINE,
    learning_rate=4e-4,
    augmentation=replace(FINE_CROPS, paste=0.5, paste_close=0.4),
)
MEAN = ("finer", "hard", "hard")
STAGES = (
    # from scratch in small frames, as the full network of benchmarks/ablations.py with seed 1
    Stage(
        "small", 320, replace(COMMON, epochs=20, learning_rate=1.5e-3, validate_every=20, seed=1, augmentation=CROPS)
    ),
    Stage(
        "larger",
        480,
        replace(COMMON, epochs=40, clip=2.0, validate_every=5, seed=11, augmentation=replace(CROPS, crop=224)),
    ),
    Stage(
        "fine",
        520,
        replace(FINE, epochs=40, validate_every=4, augmentation=replace(FINE_CROPS, target_share=0.7)),
        large=2,
    ),
    Stage("finer", 520, replace(FINE, epochs=80, validate_every=8, seed=31, augmentation=FINE_CROPS), large=2),
    Stage(
        "hard",
        520,
        replace(FINE, learning_rate=4e-4, epochs=50, validate_every=5, seed=51, augmentation=FINE_CROPS),
        hard=4,
    ),
    # neighbours that nearly touch, which the stages before mark as one; at last without forgetting the rest
    Stage(
        "apart",
        520,
        replace(APART, epochs=20, validate_every=5, seed=92, gap_weight=20.0),
        hard=4,
        close=2,
        start=MEAN,
    ),
    Stage("farther", 520, replace(APART, epochs=14, validate_every=7, seed=93, gap_weight=150.0), hard=4, close=2),
    Stage(
        "taught",
        520,
        replace(APART, epochs=14, validate_every=7, seed=101, gap_weight=150.0, distil_weight=50.0),
        hard=4,
        close=2,
        teacher=MEAN,
    ),
)


def largest_target(sample: Sample) -> int:
    """Pixels of the largest target, 0 without one."""
    labels, count = label_components(sample.mask)
    return int(component_table(labels, count).areas.max(initial=0))


def has_close_targets(sample: Sample) -> bool:
    """Whether two targets lie at most 3 px apart, in the larger of rows and columns."""
    labels, count = label_components(sample.mask)
    square = np.ones((7, 7), np.bool_)
    return any(
        (ndimage.binary_dilation(labels == i, square) & (labels > 0) & (labels != i)).any() for i in range(1, count)
    )


def wrong_pixels(model: SeRankDet, samples: Sequence[Sample]) -> list[int]:
    """Of each frame, how many pixels `model` takes for the wrong thing at threshold 0.5."""
    network = model.optimize(torch.bfloat16)
    found = (predict(network, [sample.frame], model.frame_spec)[0] > 0.5 for sample in samples)
    return [int((mask != sample.mask).sum()) for mask, sample in zip(found, samples, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of SIRST, with train.txt and val.txt")
    parser.add_argument("--output", required=True, help="folder for one folder for each stage")
    parser.add_argument("--until", choices=[stage.name for stage in STAGES], help="stage after which to end")
    options = parser.parse_args(arguments)
    train_set, val_set = (FolderDataset(options.root, split, cache=True) for split in ("train", "val"))
    large = [i for i, sample in enumerate(train_set) if largest_target(sample) > LARGE]
    mean, std = grey_statistics(train_set)
    torch.manual_seed(STAGES[0].recipe.seed)
    model = SeRankDet(width=8, mean=mean, std=std)
    close = [i for i, sample in enumerate(train_set) if has_close_targets(sample)]

    def mean_of(names: Sequence[str]) -> SeRankDet:
        return average([SeRankDet.from_pretrained(Path(options.output) / name / "best") for name in names])

    for stage in STAGES:
        if stage.start:
            model = mean_of(stage.start)
        model = model.reconfigured(working_size=stage.working_size)
        hard = [i for i, n in enumerate(wrong_pixels(model, train_set)) if n > HARD] if stage.hard > 1 else []
        more = large * (stage.large - 1) + close * (stage.close - 1) + hard * (stage.hard - 1)
        samples = JoinedSamples([train_set, Chosen(train_set, more)])
        output = Path(options.output) / stage.name
        teacher = mean_of(stage.teacher) if stage.teacher else None
        fit(model, samples, val_set, recipe=stage.recipe, teacher=teacher, output=output, resume=True)
        if stage.name == options.until:
            break


if __name__ == "__main__":
    main()
