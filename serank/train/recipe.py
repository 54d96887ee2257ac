"""The settings of a training, and recipes by name: one for a small network and the paper's four."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from serank.losses import Loss, check_loss, loss_name
from serank.train.augment import Augmentation
from serank.train.sensor import SENSOR
from serank.utils.checks import check_count, check_number

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """All settings of a training; the same recipe, data and machine give the same weights.

    Attributes:
        epochs: passes over the training set.
        batch_size: crops in an optimizer step, over all processes; the last, smaller batch of an epoch is left out.
        accumulation_steps: micro-batches into which each process splits its share of a batch, for batches that don't
            fit into memory; their gradients are added. Batch norm takes its statistics from each micro-batch.
        lr: peak learning rate; linear warm-up, then polynomial decay to 0. The paper uses 1e-4 at width 64; narrow
            networks take more.
        weight_decay: of AdamW.
        warmup: share of all steps over which the learning rate rises, in [0, 1).
        power: of the polynomial decay.
        max_grad_norm: gradients of a larger norm are scaled down to it; 0 clips none.
        loss: one of `serank.losses.LOSSES`, `"soft_iou"` in the paper, or a function `(logits, masks) -> scalar` of one
            map and its masks, both `(B, 1, H, W)` in float32 or better, on the network's device. It should be a mean
            over images, as parts of a batch are averaged; parameters that it has itself are not trained. The run's
            folder holds its name, by which a resumed run knows it; settings of an object are not part of that.
        pixel_weight: weight of the auxiliary pixel loss, see `serank.losses.deep_supervision_loss`.
        distil_weight: weight of the loss against the probabilities of the `teacher` given to `serank.train.fit`, see
            `serank.train.distillation.distillation_loss`.
        soft_weight: weight of the loss against the soft targets of the samples, the same loss as a teacher's, on every
            output that is trained; every training sample must then have one.
        consistency_weight: weight of `serank.train.consistency.consistency_loss`, between the final probabilities of a
            batch and of the batch in another of the eight rotations and flips, each in turn; costs a second forward and
            backward pass.
        deep_supervision: sum the loss over the six outputs, as the paper does; `False` trains the final one alone.
        ema_decay: decay of the exponential moving average (EMA) of the weights, which is validated and kept, in [0, 1);
            0 keeps the raw weights.
        precision: `"float32"`, or autocast to `"bfloat16"` or `"float16"`, the latter with a gradient scaler.
        freeze_encoder: don't train the encoder: its DDC blocks, attention and batch norm statistics.
        freeze_statistics: run batch norm in eval mode: its running statistics normalise and don't change, whatever the
            batch; for networks that are trained already.
        validate_every: epochs between validations.
        seed: of the crops and their order, in [0, 2 ** 40). `torch.manual_seed` before building the network fixes its
            initial weights.
        augmentation: see `serank.train.Augmentation`.

    numpy's numbers are stored as Python's.

    Raises:
        ValueError: a value out of its range or of another type; names the attribute.
    """

    epochs: int = 100
    batch_size: int = 8
    accumulation_steps: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    power: float = 0.9
    max_grad_norm: float = 0.0
    loss: str | Loss = "soft_iou"
    pixel_weight: float = 0.0
    distil_weight: float = 0.0
    soft_weight: float = 0.0
    consistency_weight: float = 0.0
    deep_supervision: bool = True
    ema_decay: float = 0.998
    precision: Precision = "float32"
    freeze_encoder: bool = False
    freeze_statistics: bool = False
    validate_every: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps", "validate_every"):
            object.__setattr__(self, name, check_count(getattr(self, name), name))
        object.__setattr__(self, "seed", check_count(self.seed, "seed", 0))
        weights = ("weight_decay", "pixel_weight", "distil_weight", "soft_weight", "consistency_weight")
        for name in (*weights, "lr", "warmup", "power", "max_grad_norm"):
            object.__setattr__(self, name, check_number(getattr(self, name), name))
        object.__setattr__(self, "ema_decay", check_number(self.ema_decay, "ema_decay"))
        for name in ("deep_supervision", "freeze_encoder", "freeze_statistics"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be > 0 and finite; got {self.lr}")
        for name in (*weights, "power", "max_grad_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite; got {getattr(self, name)}")
        for name in ("warmup", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)}")
        if not isinstance(self.augmentation, Augmentation):
            raise ValueError(f"augmentation must be a serank.train.Augmentation; got {self.augmentation!r:.80}")
        check_loss(self.loss)
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if self.seed >= 2**40:
            raise ValueError(f"seed must be an int >= 0 and below 2 ** 40; got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """All attributes by name, with those of the augmentation, as values that JSON can hold; a loss by its name."""
        flat = {entry.name: getattr(self, entry.name) for entry in fields(self)} | {"loss": loss_name(self.loss)}
        flat |= asdict(flat.pop("augmentation"))
        plain: dict[str, Any] = json.loads(json.dumps(flat))
        return plain

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) out of `steps`: linear warm-up, then polynomial decay."""
        warmup = max(1, round(self.warmup * steps))
        if step < warmup:
            return self.lr * (step + 1) / warmup
        left = 1 - (step - warmup) / max(1, steps - warmup)
        return self.lr * float(left**self.power)


@dataclass(frozen=True)
class Preset:
    """A recipe with the network that it trains.

    Attributes:
        recipe: see `Recipe`.
        width: of the network; `None` for one that is trained already, whose settings stay.
        working_size: longest side to which frames are scaled, in pixels; `None` leaves the network's.
        scale_range: least and largest factor of that scaling; `None` leaves the network's.
    """

    recipe: Recipe
    width: int | None = None
    working_size: int | None = None
    scale_range: tuple[float, float] | None = None

    @property
    def preparation(self) -> dict[str, Any]:
        """`working_size` and `scale_range` as settings of the network, without those that stay its own."""
        chosen = {"working_size": self.working_size, "scale_range": self.scale_range}
        return {name: value for name, value in chosen.items() if value is not None}


def _paper(epochs: int, size: int, batch_size: int) -> Preset:
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=1e-4,
        warmup=5 / epochs,
        ema_decay=0.0,
        augmentation=Augmentation(crop=size),
    )
    return Preset(recipe, width=64, working_size=size, scale_range=(0.5, 2.5))


_SMALL = Recipe(
    epochs=40,
    max_grad_norm=2.0,
    pixel_weight=50.0,
    precision="bfloat16",
    augmentation=Augmentation(scale=(0.6, 1.6), unscaled=0.6, **SENSOR),
)
_FINETUNE = replace(
    _SMALL,
    epochs=30,
    deep_supervision=False,
    augmentation=replace(_SMALL.augmentation, scale=(1.0, 1.0), unscaled=0.0),
)

PRESETS: dict[str, Preset] = {
    "small": Preset(_SMALL, width=8, working_size=384, scale_range=(0.375, 1.0)),
    "finetune": Preset(_FINETUNE),
    "paper-sirst": _paper(500, 512, 4),
    "paper-irstd1k": _paper(500, 512, 4),
    "paper-sirstaug": _paper(500, 256, 8),
    "paper-nudt-sirst": _paper(1500, 256, 8),
}
"""Recipes by name. `"small"` is this library's for a few hours on a CPU, with the effects of sensors in its crops, and
`"finetune"` goes on from such a network, whatever its width and scale, on crops at the scale of detection and without
the coarse outputs. The others are the paper's for its four data sets: epochs, size, AdamW, learning rate 1e-4, weight
decay 0.01, decay power 0.9 and soft IoU on six outputs from its section IV-A; batch size and five epochs of warm-up,
which it leaves open, from the configuration files of the released code. Their augmentation is this library's; the paper
doesn't describe its own."""


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]
