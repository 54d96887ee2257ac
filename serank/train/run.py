"""The steps of a training and its state; `serank.train.trainer` validates and stores it."""

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

from serank.datasets.sample import Sample
from serank.errors import CheckpointError
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
"""Consecutive steps that float16's scaler may skip because the gradient overflows. It halves its scale each time, from
65536, so that after these the gradient itself must be NaN or infinite."""


@dataclass
class History:
    """Losses and metrics of a training.

    Attributes:
        rows: one for each epoch: `epoch`, `loss`, `grad_norm` (mean before clipping, over the steps where it is
            finite), `lr`, `seconds` of its steps, `waiting` (share of these in which process 0 waited for crops, lower
            with `workers`; an upper bound on a GPU, whose work is queued), and on validated epochs the metrics.
        best: the row of the kept weights; empty before the first validation.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)


class _Outputs(nn.Module):
    """The network whose `forward` gives the logit maps of the loss, for DistributedDataParallel and `torch.compile`."""

    def __init__(self, model: SeRankDet, deep: bool) -> None:
        super().__init__()
        self.model = model
        self.deep = deep

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_deep(x) if self.deep else [self.model(x)]


class TrainingRun:
    """A training and its state.

    Args:
        model: trained in place, moved to `device`.
        train_set: see `serank.train.fit`.
        recipe: see `Recipe`.
        device: see `serank.train.fit`.
        digests: of the data sets by name, which a resumed run must have in common with the first.
        workers: see `serank.train.fit`.
        compile: see `serank.train.fit`.
        teacher: see `serank.train.fit`.

    Attributes:
        ema: the network with the averaged weights, those of `model` where `recipe.ema_decay` is 0.
        best_state: the kept weights, on the CPU.
    """

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
        if teacher is not None and teacher.frame_spec.scaling != model.frame_spec.scaling:
            raise ValueError(
                f"teacher has scaling={teacher.frame_spec.scaling!r} and the network "
                f"{model.frame_spec.scaling!r}; a teacher must see its frames scaled alike"
            )
        self.teacher = None if teacher is None else Teacher(teacher, device)
        self.digests = digests | ({} if self.teacher is None else {"teacher": self.teacher.digest})
        self.workers = workers
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        same_weights(self.model)
        self.ema: SeRankDet = copy.deepcopy(self.model).requires_grad_(False)
        self.outputs: nn.Module = _Outputs(self.model, recipe.deep_supervision)
        if world_size() > 1:
            if device.type == "cuda":
                synchronise_batch_norm(self.model)
            self.outputs = nn.parallel.DistributedDataParallel(self.outputs, broadcast_buffers=False)
        self.forward = torch.compile(self.outputs) if compile else self.outputs
        self.crops = RandomCrops(train_set, recipe.augmentation, model.frame_spec, recipe.seed)
        self.steps = len(train_set) // recipe.batch_size
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.epoch = 0
        self.step = 0  # of the current epoch
        self.sums = {"loss": 0.0, "grad_norm": 0.0, "finite": 0.0, "seconds": 0.0, "waiting": 0.0}
        self.skipped = 0  # consecutive steps
        self.history = History()
        self.best_state = _on_cpu(self.ema)

    @property
    def done(self) -> int:
        """Steps done in all epochs."""
        return self.epoch * self.steps + self.step

    def train_epoch(self, bar: Any) -> Iterator[None]:
        """Runs the rest of the current epoch and yields after each step."""
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
            batch_sampler=[micro_batch for batch in batches[self.step :] for micro_batch in batch],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        started = time.perf_counter()
        crops = iter(loader)
        self.sums["waiting"] += time.perf_counter() - started  # for the start of the workers
        for _ in range(self.step, self.steps):
            lr = self.recipe.lr_at(self.done, self.recipe.epochs * self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            loss, grad_norm = self._optimizer_step(self._micro_batches(crops), lr)
            self._update_ema()
            self.step += 1
            finite = math.isfinite(grad_norm)
            self.sums["loss"] += loss
            self.sums["grad_norm"] += grad_norm if finite else 0.0
            self.sums["finite"] += finite
            self.sums["seconds"] += time.perf_counter() - started
            bar.set_description(f"epoch {self.epoch + 1} loss {loss:.3f}", refresh=False)
            bar.update()
            yield
            started = time.perf_counter()

    def _micro_batches(self, crops: Iterator[Any]) -> Iterator[Any]:
        """The micro-batches of one step; counts the time spent waiting for each."""
        for _ in range(self.recipe.accumulation_steps):
            started = time.perf_counter()
            batch = next(crops)
            self.sums["waiting"] += time.perf_counter() - started
            yield batch

    def _batches(self) -> list[list[list[tuple[int, int]]]]:
        """For each step of the epoch the micro-batches of this process: lists of (epoch, index)."""
        order = torch.randperm(
            len(self.crops), generator=torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        ).tolist()
        share = self.recipe.batch_size // world_size()
        size = share // self.recipe.accumulation_steps
        firsts = range(rank() * share, self.steps * self.recipe.batch_size, self.recipe.batch_size)
        return [
            [[(self.epoch, i) for i in order[at : at + size]] for at in range(first, first + share, size)]
            for first in firsts
        ]

    def _optimizer_step(self, micro_batches: Iterator[Any], lr: float) -> tuple[float, float]:
        """One optimizer step; the loss of the whole batch and the norm of its gradient."""
        recipe = self.recipe
        self.optimizer.zero_grad(set_to_none=True)
        total, names = torch.zeros((), device=self.device), []
        distributed = isinstance(self.outputs, nn.parallel.DistributedDataParallel)
        for i, (frames, masks, frame_names) in enumerate(micro_batches, start=1):
            names += frame_names
            # processes exchange gradients once, with the last micro-batch
            exchange = i == recipe.accumulation_steps or not distributed
            with nullcontext() if exchange else self.outputs.no_sync():  # type: ignore[operator]
                loss = self._loss(frames, masks) / recipe.accumulation_steps
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        value = _mean_over_processes(total)
        self.scaler.unscale_(self.optimizer)
        grad_norm = float(nn.utils.clip_grad_norm_(self.parameters, recipe.max_grad_norm or torch.inf))
        # float16's scaler skips steps whose gradient overflows, but a few only
        self.skipped = 0 if math.isfinite(grad_norm) else self.skipped + 1
        if not math.isfinite(value) or self.skipped > (MOST_SKIPPED if self.scaler.is_enabled() else 0):
            self._stop(value, grad_norm, lr, names)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, grad_norm

    def _loss(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Loss of scaled frames `(B, 1, H, W)` with masks of the same shape, 0 or 1."""
        frames = frames.to(self.device, self.model.head.weight.dtype, non_blocking=True)
        masks = masks.to(self.device, non_blocking=True)
        x = self.model.frame_spec.normalise(frames, self.model.in_channels).to(memory_format=torch.channels_last)
        kind = torch.float16 if self.recipe.precision == "float16" else torch.bfloat16
        with torch.autocast(self.device.type, kind, enabled=self.recipe.precision != "float32"):
            outputs = self.forward(x)
            soft_targets = None if self.teacher is None else self.teacher(frames)
        loss = deep_supervision_loss(outputs, masks, loss=self.recipe.loss, pixel_weight=self.recipe.pixel_weight)
        if soft_targets is not None:
            loss = loss + self.recipe.distil_weight * distillation_loss(outputs, soft_targets)
        return loss

    def _stop(self, loss: float, grad_norm: float, lr: float, names: list[str]) -> None:
        frames = [name for part in all_objects(names) for name in part]
        what = f"loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {grad_norm}"
        raise FloatingPointError(
            f"{what} at epoch {self.epoch + 1}, step {self.step + 1}, learning rate {lr:.2e}, frames "
            f"{', '.join(frames)}; lower lr, set max_grad_norm or use float32 precision"
        )

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Moves the averaged weights towards the new ones."""
        pool_statistics(self.model)  # which differ between processes where batch norm is not synchronised
        # early on the average follows closely, or it would keep the first random weights for long
        decay = min(self.recipe.ema_decay, (1 + self.done) / (10 + self.done)) if self.recipe.ema_decay else 0.0
        new = self.model.state_dict()
        for name, old in self.ema.state_dict().items():
            if old.dtype.is_floating_point:
                old.lerp_(new[name], 1 - decay)
            else:
                old.copy_(new[name])

    def end_epoch(self) -> dict[str, float]:
        """Closes the epoch and returns its row of the history."""
        lr = self.recipe.lr_at(self.done - 1, self.recipe.epochs * self.steps)
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "loss": self.sums["loss"] / self.steps,
            "grad_norm": self.sums["grad_norm"] / max(1.0, self.sums["finite"]),
            "lr": lr,
            "seconds": self.sums["seconds"],
            "waiting": self.sums["waiting"] / self.sums["seconds"],
        }
        self.step = 0
        self.sums = dict.fromkeys(self.sums, 0.0)
        return row

    def record(self, row: dict[str, float], *, last: bool, validated: bool) -> bool:
        """Adds an epoch's row; whether its averaged weights are the best so far, which then are kept."""
        self.history.rows.append(row)
        best = self.history.best
        better = ("iou" in row and (not best or selection_score(row) > selection_score(best))) or (
            last and not validated
        )
        if better:
            self.history.best = row
            self.best_state = _on_cpu(self.ema)
        return better

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; the random crops and their order follow from recipe, epoch and step."""
        return {
            "setup": self._setup(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rows": self.history.rows,
            "best": self.history.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`.

        Raises:
            ValueError: it is of another recipe, network or data set; names what differs.
            CheckpointError: its entries don't fit the network or the optimizer.
        """
        setup, was = self._setup(), state["setup"]
        keys = [key for key in {**setup, **was} if was.get(key) != setup.get(key)]
        if changed := [f"{key} was {was.get(key)}, is {setup.get(key)}" for key in keys]:
            raise ValueError(
                f"resume: the run in output has another set-up: {'; '.join(changed)}. Repeat it, or start a new run "
                "in another output, for example from this one's best/"
            )
        try:
            self.ema.load_state_dict(state["best_state"])  # that it fits, before the end of the training
            self.ema.load_state_dict(state["ema"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"resume: the state doesn't fit the network and its optimizer: {error}") from error
        self.best_state = state["best_state"]
        self.epoch, self.step, self.sums = state["epoch"], state["step"], self.sums | state["sums"]
        self.skipped = state["skipped"]
        self.history = History(state["rows"], state["best"])

    def _setup(self) -> dict[str, Any]:
        """What a resumed run must have in common with the first, as values that JSON can hold."""
        setup: dict[str, Any] = json.loads(json.dumps(self.model.config))
        return self.recipe.to_dict() | self.digests | setup


def _mean_over_processes(value: Tensor) -> float:
    if world_size() > 1:
        torch.distributed.all_reduce(value)
        value = value / world_size()
    return float(value)


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def selection_score(row: dict[str, float]) -> float:
    """The mean of IoU and nIoU, by which epochs are compared; `row` holds the metrics of a validation."""
    return (row["iou"] + row["niou"]) / 2
