"""What sets the course of a training, and the paper's four recipes by name."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from serank.losses import LOSSES
from serank.train.augment import Augmentation

__all__ = ["PRESETS", "Precision", "Preset", "Recipe", "preset"]

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """Everything that sets the course of a training; the same recipe, data and machine give the same weights.

    Attributes:
        epochs: passes over the training set.
        batch_size: crops in an optimizer step, over all processes; the last, smaller batch of an epoch is left out.
        accumulate: parts into which each process splits its share of a batch, one after the other, for batches that
            don't fit into memory. Batch norm then takes its statistics from each part.
        learning_rate: peak of the schedule, linear warm-up then polynomial decay to 0. The paper uses 1e-4 at width
            64; narrow networks take more.
        weight_decay: of AdamW.
        warmup: share of all steps over which the rate rises.
        power: of the polynomial decay.
        clip: largest norm of the gradient, larger ones are scaled down to it; 0 leaves all as they are.
        loss: one of `serank.losses.LOSSES`, `"soft_iou"` in the paper.
        pixel_weight: weight of the auxiliary pixel loss, see `serank.losses.deep_supervision_loss`.
        distil_weight: weight of the loss against the probabilities of the `teacher` given to `serank.train.fit`, see
            `serank.train.distillation.distillation_loss`.
        deep_supervision: sum the loss over the six outputs, as the paper does; `False` trains the final one alone.
        average: decay of the exponential average of weights that is validated and kept; 0 keeps the raw weights.
        precision: `"float32"`, or autocast to `"bfloat16"` or `"float16"`, the latter with a gradient scaler.
        freeze_encoder: leave the encoder (its DDC blocks, attention and batch norm statistics) as it is.
        freeze_statistics: leave all running statistics of batch norm as they are and normalise by them, so that
            training sees what inference does, whatever the batch; for networks that are trained already.
        validate_every: epochs between validations.
        seed: of the crops and their order. Seed PyTorch before building the network to fix its first weights.
        augmentation: see `serank.train.Augmentation`.

    Raises:
        ValueError: a value out of its range.
    """

    epochs: int = 100
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    power: float = 0.9
    clip: float = 0.0
    loss: str = "soft_iou"
    pixel_weight: float = 0.0
    distil_weight: float = 0.0
    deep_supervision: bool = True
    average: float = 0.998
    precision: Precision = "float32"
    freeze_encoder: bool = False
    freeze_statistics: bool = False
    validate_every: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "validate_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int >= 1; got {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be > 0 and finite; got {self.learning_rate}")
        for name in ("weight_decay", "pixel_weight", "distil_weight", "power", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite; got {getattr(self, name)}")
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**40:
            raise ValueError(f"seed must be an int >= 0 and below 2 ** 40; got {self.seed!r}")

    def to_dict(self) -> dict[str, Any]:
        """All attributes by name, those of the augmentation among them, as plain values for `json.dumps`."""
        flat = asdict(self)
        flat |= flat.pop("augmentation")
        plain: dict[str, Any] = json.loads(json.dumps(flat))
        return plain

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) out of `steps`: linear warm-up, then polynomial decay."""
        warmup = max(1, round(self.warmup * steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        left = 1 - (step - warmup) / max(1, steps - warmup)
        return self.learning_rate * float(left**self.power)


@dataclass(frozen=True)
class Preset:
    """A published recipe with the network that it trains.

    Attributes:
        recipe: see `Recipe`.
        width: of the network.
        working_size: longest side to which frames are scaled, in px.
    """

    recipe: Recipe
    width: int
    working_size: int


def _paper(epochs: int, size: int, batch_size: int) -> Preset:
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=1e-4,
        warmup=5 / epochs,
        average=0.0,
        augmentation=Augmentation(crop=size),
    )
    return Preset(recipe, width=64, working_size=size)


PRESETS: dict[str, Preset] = {
    "sirst": _paper(500, 512, 4),
    "irstd1k": _paper(500, 512, 4),
    "sirstaug": _paper(500, 256, 8),
    "nudt-sirst": _paper(1500, 256, 8),
}
"""Recipes of the paper for its four data sets: epochs, size, AdamW, rate 1e-4, weight decay 0.01, decay power 0.9 and
soft IoU on six outputs from its section IV-A; batch size and five epochs of warm-up, which it leaves open, from the
configuration files of the released code. Crops are `serank.augment`'s, since the paper doesn't describe its own."""


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]
