"""The steps of a training and its state; `serank.train` starts, validates and stores it."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from serank.datasets import Sample
from serank.losses import deep_supervision_loss
from serank.serankdet import SeRankDet
from serank.train.augment import RandomCrops
from serank.train.distillation import Teacher, distillation_loss
from serank.train.recipe import Recipe
from serank.utils.distributed import (
    all_objects,
    pool_statistics,
    rank,
    same_weights,
    synchronise_batch_norm,
    world_size,
)

__all__ = ["History", "TrainingRun", "selection_score"]

MOST_SKIPPED = 50
"""Steps in a row that float16's scaler may skip because the gradient overflows. It halves its scale each time, from
65536, so that after these no overflow is left and the gradient itself must be NaN or infinite."""


@dataclass
class History:
    """What `fit` saw.

    Attributes:
        rows: one for each epoch: epoch, loss, gradient (mean norm before clipping, of the steps where it is finite),
            learning_rate, seconds of its steps, waiting (share of these in which process 0 waited for crops, lower with
            `workers`; on a GPU, whose work is queued, an upper bound), and on validated epochs the metrics.
        best: the row of the kept weights; empty before the first validation.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)


class _Outputs(nn.Module):
    """The logit maps that the loss sees, as the forward pass that DistributedDataParallel and compile expect."""

    def __init__(self, model: SeRankDet, deep: bool) -> None:
        super().__init__()
        self.model = model
        self.deep = deep

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_deep(x) if self.deep else [self.model(x)]


class TrainingRun:
    """A training and its state: what `last.pt` holds."""

    def __init__(
        self,
        model: SeRankDet,
        train_set: Sequence[Sample],
        recipe: Recipe,
        device: torch.device,
        digests: dict[str, str],
        *,
        workers: int,
        compile: bool,
        teacher: SeRankDet | None = None,
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.teacher = None if teacher is None else Teacher(teacher, device)
        self.digests = digests | ({} if self.teacher is None else {"teacher": self.teacher.digest})
        self.workers = workers
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        same_weights(self.model)
        self.average: SeRankDet = copy.deepcopy(self.model).requires_grad_(False)
        self.outputs: nn.Module = _Outputs(self.model, recipe.deep_supervision)
        if world_size() > 1:
            if device.type == "cuda":
                synchronise_batch_norm(self.model)
            self.outputs = nn.parallel.DistributedDataParallel(self.outputs, broadcast_buffers=False)
        self.forward = torch.compile(self.outputs) if compile else self.outputs
        self.crops = RandomCrops(train_set, recipe.augmentation, model.frame_spec, recipe.seed)
        self.steps = len(train_set) // recipe.batch_size
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.epoch = 0
        self.step = 0  # of the current epoch
        self.sums = {"loss": 0.0, "gradient": 0.0, "finite": 0.0, "seconds": 0.0, "waiting": 0.0}
        self.skipped = 0  # steps in a row
        self.history = History()
        self.best_state = _kept(self.average)

    @property
    def done(self) -> int:
        """Steps done since the start of the training."""
        return self.epoch * self.steps + self.step

    def train_epoch(self, bar: Any) -> Iterator[None]:
        """The rest of the current epoch, step by step."""
        self.model.train()
        if self.recipe.freeze_encoder:
            self.model.encoder.eval()
        if self.recipe.freeze_statistics:
            for part in self.model.modules():
                if isinstance(part, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                    part.eval()
        batches = self._batches()
        loader: DataLoader[Any] = DataLoader(
            self.crops,  # type: ignore[arg-type]
            batch_sampler=[part for batch in batches[self.step :] for part in batch],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        started = time.perf_counter()
        crops = iter(loader)
        self.sums["waiting"] += time.perf_counter() - started  # workers start
        for _ in range(self.step, self.steps):
            rate = self.recipe.rate(self.done, self.recipe.epochs * self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, gradient = self._update(self._parts(crops), rate)
            self._follow()
            self.step += 1
            finite = math.isfinite(gradient)
            self.sums["loss"] += loss
            self.sums["gradient"] += gradient if finite else 0.0
            self.sums["finite"] += finite
            self.sums["seconds"] += time.perf_counter() - started
            bar.set_description(f"epoch {self.epoch + 1} loss {loss:.3f}", refresh=False)
            bar.update()
            yield
            started = time.perf_counter()

    def _parts(self, crops: Iterator[Any]) -> Iterator[Any]:
        """The parts of one step as they are needed, the wait for each counted."""
        for _ in range(self.recipe.accumulate):
            started = time.perf_counter()
            part = next(crops)
            self.sums["waiting"] += time.perf_counter() - started
            yield part

    def _batches(self) -> list[list[list[tuple[int, int]]]]:
        """For each step of the epoch the parts of this process: lists of (epoch, index)."""
        order = torch.randperm(
            len(self.crops), generator=torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        ).tolist()
        share = self.recipe.batch_size // world_size()
        size = share // self.recipe.accumulate
        firsts = range(rank() * share, self.steps * self.recipe.batch_size, self.recipe.batch_size)
        return [
            [[(self.epoch, i) for i in order[at : at + size]] for at in range(first, first + share, size)]
            for first in firsts
        ]

    def _update(self, parts: Iterator[Any], rate: float) -> tuple[float, float]:
        """One optimizer step; returns the loss of the whole batch and the norm of its gradient."""
        recipe = self.recipe
        self.optimizer.zero_grad(set_to_none=True)
        total, names = torch.zeros((), device=self.device), []
        for i, (frames, masks, part_names) in enumerate(parts):
            names += part_names
            # processes exchange gradients once, with the last part
            together = i == recipe.accumulate - 1 or not isinstance(self.outputs, nn.parallel.DistributedDataParallel)
            with nullcontext() if together else self.outputs.no_sync():  # type: ignore[operator]
                loss = self._loss(frames, masks) / recipe.accumulate
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        value = self._over_processes(total)
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, recipe.clip or torch.inf))
        # a gradient that overflows float16 is the scaler's to skip, but not for ever
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        if not math.isfinite(value) or self.skipped > (MOST_SKIPPED if self.scaler.is_enabled() else 0):
            self._stop(value, norm, rate, names)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, norm

    def _loss(self, frames: Tensor, masks: Tensor) -> Tensor:
        frames = frames.to(self.device, self.model.head.weight.dtype, non_blocking=True)
        masks = masks.to(self.device, non_blocking=True)
        x = self.model.frame_spec.normalise(frames, self.model.in_channels).to(memory_format=torch.channels_last)
        kind = torch.float16 if self.recipe.precision == "float16" else torch.bfloat16
        with torch.autocast(self.device.type, kind, enabled=self.recipe.precision != "float32"):
            outputs = self.forward(x)
            taught = None if self.teacher is None else self.teacher(frames)
        loss = deep_supervision_loss(
            outputs,
            masks,
            loss=self.recipe.loss,
            pixel_weight=self.recipe.pixel_weight,
            gap_weight=self.recipe.gap_weight,
        )
        if taught is not None:
            between = masks if self.recipe.gap_weight else None
            loss = loss + self.recipe.distil_weight * distillation_loss(outputs, taught, between)
        return loss

    def _over_processes(self, value: Tensor) -> float:
        if world_size() > 1:
            torch.distributed.all_reduce(value)
            value = value / world_size()
        return float(value)

    def _stop(self, loss: float, norm: float, rate: float, names: list[str]) -> None:
        frames = [name for part in all_objects(names) for name in part]
        what = f"loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise FloatingPointError(
            f"{what} at epoch {self.epoch + 1}, step {self.step + 1}, learning rate {rate:.2e}, frames "
            f"{', '.join(frames)}; lower learning_rate, set clip or use float32 precision"
        )

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the averaged weights towards the new ones."""
        pool_statistics(self.model)  # which differ between processes where batch norm is not synchronised
        # early on the average follows closely, or it would keep the first random weights for long
        decay = min(self.recipe.average, (1 + self.done) / (10 + self.done)) if self.recipe.average else 0.0
        new = self.model.state_dict()
        for name, old in self.average.state_dict().items():
            if old.dtype.is_floating_point:
                old.lerp_(new[name], 1 - decay)
            else:
                old.copy_(new[name])

    def end_epoch(self) -> dict[str, float]:
        """Closes the epoch and returns its row of the history."""
        rate = self.recipe.rate(self.done - 1, self.recipe.epochs * self.steps)
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "loss": self.sums["loss"] / self.steps,
            "gradient": self.sums["gradient"] / max(1.0, self.sums["finite"]),
            "learning_rate": rate,
            "seconds": self.sums["seconds"],
            "waiting": self.sums["waiting"] / self.sums["seconds"],
        }
        self.step = 0
        self.sums = dict.fromkeys(self.sums, 0.0)
        return row

    def record(self, row: dict[str, float], *, last: bool, validated: bool) -> bool:
        """Adds an epoch's row; keeps the averaged weights if they are the best so far, and says whether."""
        self.history.rows.append(row)
        best = self.history.best
        kept = ("iou" in row and (not best or selection_score(row) > selection_score(best))) or (last and not validated)
        if kept:
            self.history.best = row
            self.best_state = _kept(self.average)
        return kept

    def state(self) -> dict[str, Any]:
        """All that `restore` needs. Crops and their order follow from recipe, epoch and step; nothing else is drawn."""
        return {
            "setup": self._setup(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rows": self.history.rows,
            "best": self.history.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        setup, was = self._setup(), state["setup"]
        keys = [key for key in {**setup, **was} if was.get(key) != setup.get(key)]
        if changed := [f"{key} was {was.get(key)}, is {setup.get(key)}" for key in keys]:
            raise ValueError(
                f"resume: the run in output has another set-up: {'; '.join(changed)}. Repeat it, or start a new run "
                "in another output, from this one's best/ if you like"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_state = state["best_state"]
        self.epoch, self.step, self.sums = state["epoch"], state["step"], self.sums | state["sums"]
        self.skipped = state["skipped"]
        self.history = History(state["rows"], state["best"])

    def _setup(self) -> dict[str, Any]:
        """What a run must have in common with the one that it goes on with, as plain values."""
        setup: dict[str, Any] = json.loads(json.dumps(self.model.config))
        return self.recipe.to_dict() | self.digests | setup


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def selection_score(row: dict[str, float]) -> float:
    """By what epochs are compared, the mean of IoU and nIoU; from a validation's figures."""
    return (row["iou"] + row["niou"]) / 2
