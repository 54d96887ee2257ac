"""Training: one function, the paper's loss and schedule, averaged weights, resumable."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from serank.augment import Augmentation, RandomCrops
from serank.checkpoints import check_device
from serank.datasets import Sample
from serank.errors import CheckpointError
from serank.evaluate import evaluate
from serank.files import replacing
from serank.losses import deep_supervision_loss
from serank.network import SeRankDet

__all__ = ["History", "Recipe", "fit"]


@dataclass(frozen=True)
class Recipe:
    """Everything that sets the course of a training; the same recipe, data and machine give the same weights.

    Attributes:
        epochs: passes over the training set.
        batch_size: crops in a step; the last, smaller batch of an epoch is left out.
        learning_rate: peak of the schedule, linear warm-up then polynomial decay to 0. The paper uses 1e-4 at width
            64; narrow networks take more.
        weight_decay: of AdamW.
        warmup: share of all steps over which the rate rises.
        power: of the polynomial decay.
        pixel_weight: weight of the auxiliary pixel loss, see `serank.losses.deep_supervision_loss`.
        average: decay of the exponential average of weights that is validated and kept; 0 keeps the raw weights.
        precision: `"float32"` or `"bfloat16"` (autocast).
        validate_every: epochs between validations.
        seed: of the crops and their order. Seed PyTorch before building the network to fix its first weights.
        augmentation: see `serank.augment.Augmentation`.

    Raises:
        ValueError: a value out of its range.
    """

    epochs: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    power: float = 0.9
    pixel_weight: float = 0.0
    average: float = 0.998
    precision: str = "float32"
    validate_every: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1; got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be > 0; got {self.learning_rate}")
        for name in ("weight_decay", "pixel_weight", "power"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0; got {getattr(self, name)}")
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f'precision must be "float32" or "bfloat16"; got {self.precision!r}')
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0; got {self.seed}")


@dataclass
class History:
    """What `fit` saw.

    Attributes:
        rows: one for each epoch: epoch, loss, learning_rate, seconds, and on validated epochs the metrics.
        best: the row of the kept weights; empty before the first validation.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)


def fit(
    model: SeRankDet,
    train_set: Sequence[Sample],
    val_set: Sequence[Sample] | None = None,
    *,
    recipe: Recipe | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> History:
    """Trains `model` in place and leaves it with the best averaged weights.

    Soft IoU over the six outputs of `forward_deep`, AdamW, linear warm-up and polynomial decay (paper, section IV-A).
    Crops depend on seed, epoch and frame alone, so that a resumed run goes on exactly as an uninterrupted one.

    Args:
        model: trained on `device`; its `frame_spec` normalises the crops and scales validation frames.
        train_set: samples, such as `serank.datasets.FolderDataset(..., cache=True)`.
        val_set: measured at each frame's own size under the standard protocol; the weights with the best mean of IoU
            and nIoU are kept. `None` keeps the last.
        recipe: see `Recipe`.
        output: folder for `log.csv`, `last.pt` (to resume from) and `best/` (the kept checkpoint, which
            `SeRankDet.from_pretrained` loads). `None` writes nothing.
        resume: go on from `output/last.pt` if there is one.
        device: where to train.
        progress: show a bar on standard error.

    Returns:
        Losses and metrics by epoch.

    Raises:
        ValueError: fewer training frames than a batch, a `device` that isn't there, `resume` without `output`, an
            `output` that holds a run when not resuming, or one with another recipe, network or number of frames.
        serank.errors.CheckpointError: `last.pt` can't be read.
        FloatingPointError: the loss is NaN or infinite; names epoch and step.
    """
    recipe = recipe or Recipe()
    target = check_device(device)
    if len(train_set) < recipe.batch_size:
        raise ValueError(
            f"train_set has {len(train_set)} frames, fewer than batch_size={recipe.batch_size}; lower batch_size"
        )
    if resume and output is None:
        raise ValueError("resume needs output, the folder of the run to go on with")
    folder = None if output is None else Path(output)
    last = None if folder is None else folder / "last.pt"
    if last is not None and last.exists() and not resume:
        raise ValueError(
            f"output {str(folder)!r} holds a run already; pass resume=True (--resume) or choose another folder"
        )
    run = _Run(model, train_set, recipe, target)
    if last is not None and last.exists():
        run.load(last)
    bar = tqdm(total=recipe.epochs * run.steps, initial=run.epoch * run.steps, disable=not progress, unit="step")
    with bar:
        while run.epoch < recipe.epochs:
            row = run.train_epoch(bar)
            if val_set is not None and (run.epoch % recipe.validate_every == 0 or run.epoch == recipe.epochs):
                row |= evaluate(run.average, val_set)
                bar.set_postfix(loss=f"{row['loss']:.3f}", iou=f"{row['iou']:.3f}", refresh=False)
            run.record(row, last=run.epoch == recipe.epochs, validated=val_set is not None)
            if folder is not None:
                run.save(folder)
    model.load_state_dict(run.best_state)
    model.eval()
    if folder is not None:  # once more: a run that was stopped while saving may have an older one there
        model.save_pretrained(folder / "best")
    return run.history


class _Run:
    """State of a training between epochs: what `last.pt` holds."""

    def __init__(self, model: SeRankDet, train_set: Sequence[Sample], recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: SeRankDet = copy.deepcopy(self.model).requires_grad_(False)
        self.crops = RandomCrops(train_set, recipe.augmentation, model.frame_spec, recipe.seed)
        self.steps = len(train_set) // recipe.batch_size
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.epoch = 0
        self.history = History()
        self.best_state = self.average.state_dict()

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then polynomial decay."""
        total = self.recipe.epochs * self.steps
        warmup = max(1, round(self.recipe.warmup * total))
        if step < warmup:
            return self.recipe.learning_rate * (step + 1) / warmup
        left = 1 - (step - warmup) / max(1, total - warmup)
        return self.recipe.learning_rate * float(left**self.recipe.power)

    def train_epoch(self, bar: Any) -> dict[str, float]:
        """One pass over the training set; returns its row of the history."""
        recipe = self.recipe
        self.model.train()
        self.crops.epoch = self.epoch
        order = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.epoch)
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self.crops,  # type: ignore[arg-type]
            recipe.batch_size,
            shuffle=True,
            drop_last=True,
            generator=order,
        )
        started, losses, rate = time.perf_counter(), 0.0, 0.0
        for i, (frames, masks) in enumerate(loader):
            step = self.epoch * self.steps + i
            rate = self.rate(step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            x = self.model.frame_spec.normalise(frames.to(self.device), self.model.in_channels)
            x = x.to(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                outputs = self.model.forward_deep(x)
            loss = deep_supervision_loss(outputs, masks.to(self.device), pixel_weight=recipe.pixel_weight)
            if not math.isfinite(value := loss.item()):
                raise FloatingPointError(
                    f"loss is {value} at epoch {self.epoch + 1}, step {i + 1}, learning rate {rate:.2e}; "
                    "lower learning_rate or use float32 precision"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._average(step)
            losses += value
            bar.set_description(f"epoch {self.epoch + 1} loss {value:.3f}", refresh=False)
            bar.update()
        self.epoch += 1
        return {
            "epoch": self.epoch,
            "loss": losses / self.steps,
            "learning_rate": rate,
            "seconds": time.perf_counter() - started,
        }

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # early on the average follows closely, or it would keep the first random weights for long
        decay = min(self.recipe.average, (1 + step) / (10 + step)) if self.recipe.average else 0.0
        new = self.model.state_dict()
        for name, old in self.average.state_dict().items():
            if old.dtype.is_floating_point:
                old.lerp_(new[name], 1 - decay)
            else:
                old.copy_(new[name])

    def record(self, row: dict[str, float], *, last: bool, validated: bool) -> None:
        """Adds an epoch's row; keeps the averaged weights if they are the best so far."""
        self.history.rows.append(row)
        best = self.history.best
        better = "iou" in row and (not best or _score(row) > _score(best))
        if better or (last and not validated):
            self.history.best = row
            self.best_state = copy.deepcopy(self.average.state_dict())

    def save(self, folder: Path) -> None:
        """Writes `last.pt`, `log.csv` and, if this epoch's weights are the kept ones, `best/`."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "setup": self.setup(),
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "rows": self.history.rows,
            "best": self.history.best,
        }
        with replacing(folder / "last.pt") as path:
            torch.save(state, path)
        fields = list(dict.fromkeys(key for row in self.history.rows for key in row))
        with replacing(folder / "log.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(self.history.rows)
        if self.history.best is self.history.rows[-1]:
            self.average.save_pretrained(folder / "best")

    def load(self, file: Path) -> None:
        """Goes back to where `file` was written."""
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except Exception as error:  # damaged files raise many kinds, struct.error and pickle's own among them
            raise CheckpointError(f"{file}: can't be read: {error}") from error
        setup = self.setup()
        was = state["setup"]
        if changed := [f"{key} was {was.get(key)}, is {now}" for key, now in setup.items() if was.get(key) != now]:
            raise ValueError(f"{file} has another set-up: {'; '.join(changed)}. Repeat it or use another output")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_state = state["best_state"]
        self.epoch = state["epoch"]
        self.history = History(state["rows"], state["best"])

    def setup(self) -> dict[str, Any]:
        """What a run must have in common with the one that it goes on with, as plain values."""
        flat = asdict(self.recipe)
        flat |= flat.pop("augmentation") | {"train_set": len(self.crops)} | self.model.config
        plain: dict[str, Any] = json.loads(json.dumps(flat))
        return plain


def _score(row: dict[str, float]) -> float:
    return (row["iou"] + row["niou"]) / 2
