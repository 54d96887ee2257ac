"""The steps of a training and its state; `serank.train.trainer` validates and stores it."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from serank.datasets.sample import Sample
from serank.errors import CheckpointError
from serank.serankdet import SeRankDet
from serank.train.augment import RandomCrops
from serank.train.distillation import Teacher
from serank.train.history import History, selection_score
from serank.train.loader import MicroBatches, crop_loader
from serank.train.optimizer import allocate_moments, load_optimizer, make_optimizer, optimizer_state, set_lr
from serank.train.recipe import Recipe
from serank.train.recorded_step import PendingStep, RecordedStep, execution_on
from serank.train.training_loss import TrainedOutputs, TrainingLoss
from serank.train.weight_average import WeightAverage
from serank.utils.distributed import (
    all_objects,
    mean_over_processes,
    pool_statistics,
    same_weights,
    synchronise_batch_norm,
    world_size,
)

LOGGER = logging.getLogger("serank.train")

MOST_SKIPPED = 50
"""Consecutive steps that float16's scaler may skip because the gradient overflows. It halves its scale each time, from
65536, so that after these the gradient itself must be NaN or infinite."""


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
        frozen = None if teacher is None else Teacher(teacher, device)
        self.digests = digests | ({} if frozen is None else {"teacher": frozen.digest})
        self.workers = workers
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        same_weights(self.model)
        self.ema: SeRankDet = copy.deepcopy(self.model).requires_grad_(False)
        self.outputs: nn.Module = TrainedOutputs(self.model, recipe.deep_supervision)
        if world_size() > 1:
            if device.type == "cuda":
                synchronise_batch_norm(self.model)
            self.outputs = nn.parallel.DistributedDataParallel(self.outputs, broadcast_buffers=False)
        forward = torch.compile(self.outputs) if compile else self.outputs
        self._loss = TrainingLoss(self.model, forward, recipe, device, frozen)
        soft = recipe.soft_weight > 0
        self.crops = RandomCrops(train_set, recipe.augmentation, model.frame_spec, recipe.seed, soft=soft)
        self.steps = len(train_set) // recipe.batch_size
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.execution = execution_on(device)
        recordable = self.execution.record is not None
        self.optimizer = make_optimizer(self.parameters, recipe, device, recordable=recordable)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.epoch = 0
        self.step = 0  # of the current epoch
        self.sums = {"loss": 0.0, "grad_norm": 0.0, "finite": 0.0, "seconds": 0.0, "waiting": 0.0}
        self.skipped = 0  # consecutive steps
        self.history = History()
        self.best_state = _on_cpu(self.ema)
        self.average = WeightAverage(self.ema, self.model)
        # one graph holds one shape, one process, and what reads no value on the way
        self.records = (
            recordable
            and not (compile or self.model.checkpointing or self.scaler.is_enabled())
            and (teacher is None and world_size() == 1 and recipe.accumulation_steps == 1)
            and not recipe.consistency_weight
            and isinstance(recipe.loss, str)
        )
        self._recorded: RecordedStep | None = None
        self._unchecked: list[PendingStep] = []
        self._loader: Iterator[Any] | None = None

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
        if self.records and self._recorded is None and self.step < self.steps:
            self._record()
        started = time.perf_counter()
        if self._loader is None:
            left = MicroBatches(len(self.crops), self.recipe, self.done)
            pin = self.device.type == "cuda"
            self._loader = crop_loader(self.crops, left, workers=self.workers, pin_memory=pin)
        self.sums["waiting"] += time.perf_counter() - started  # for the start of the workers
        for _ in range(self.step, self.steps):
            lr = self.recipe.lr_at(self.done, self.recipe.epochs * self.steps)
            set_lr(self.optimizer, lr)
            self._optimizer_step(self._micro_batches(self._loader), lr)
            self._update_ema()
            self.step += 1
            self.sums["seconds"] += time.perf_counter() - started
            bar.update()
            yield
            started = time.perf_counter()
        self.settle()
        bar.set_description(f"epoch {self.epoch + 1} loss {self.sums['loss'] / self.steps:.3f}", refresh=False)

    def close(self) -> None:
        """Ends the loader's workers."""
        self._loader = None

    def _micro_batches(self, crops: Iterator[Any]) -> Iterator[Any]:
        """The micro-batches of one step; counts the time spent waiting for each."""
        for _ in range(self.recipe.accumulation_steps):
            started = time.perf_counter()
            batch = next(crops)
            self.sums["waiting"] += time.perf_counter() - started
            yield batch

    def _optimizer_step(self, micro_batches: Iterator[Any], lr: float) -> None:
        """One optimizer step; its loss and gradient norm wait to be checked."""
        if self._recorded is not None:
            *tensors, names = next(micro_batches)
            loss, norm = self._recorded(*tensors)
            self._wait_to_check(loss.clone(), norm.clone(), lr, names)
            return
        recipe = self.recipe
        self.optimizer.zero_grad(set_to_none=True)
        total, names = torch.zeros((), device=self.device), []
        distributed = isinstance(self.outputs, nn.parallel.DistributedDataParallel)
        for i, (*tensors, frame_names) in enumerate(micro_batches, start=1):
            names += frame_names
            # processes exchange gradients once, with the last micro-batch
            exchange = i == recipe.accumulation_steps or not distributed
            with nullcontext() if exchange else self.outputs.no_sync():  # type: ignore[operator]
                number = self.done * recipe.accumulation_steps + i
                loss = self._loss(*tensors, number=number) / recipe.accumulation_steps
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        loss, norm = mean_over_processes(total), self._clipped_norm()
        self._wait_to_check(loss, norm, lr, names)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _clipped_norm(self) -> Tensor:
        """The gradient's norm before it is clipped; keeps one that is not finite from the weights.

        On a CPU `settle` stops the run before the optimizer's step.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.max_grad_norm or torch.inf)
        if self.execution.record is not None and not self.scaler.is_enabled():
            # as GradScaler tells a fused optimizer to leave a step out, without waiting for the device
            self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        return norm

    def _recordable_step(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(*tensors, number=0)  # no consistency term, which reads the number
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clipped_norm()
        self.optimizer.step()
        return loss.detach(), norm.detach()

    def _record(self) -> None:
        """Records the step with the crops of the coming one, before the loader starts; goes without if that fails."""
        keys = next(iter(MicroBatches(len(self.crops), self.recipe, self.done)))
        *inputs, _ = zip(*(self.crops[key] for key in keys), strict=True)
        tensors = [torch.stack(part).to(self.device) for part in inputs]
        allocate_moments(self.optimizer)
        moments = [v for values in self.optimizer.state.values() for v in values.values()]
        state = [*self.model.state_dict().values(), *moments]
        try:
            assert self.execution.record is not None
            self._recorded = RecordedStep(self._recordable_step, tensors, state, self.execution.record)
        except RuntimeError as error:
            LOGGER.warning("the training step can't be recorded as a CUDA graph and runs without: %s", error)
            self.records = False

    def _wait_to_check(self, loss: Tensor, norm: Tensor, lr: float, names: Sequence[str]) -> None:
        self._unchecked.append(PendingStep(loss, norm, self.epoch, self.step, lr, names))
        if len(self._unchecked) >= self.execution.check_every:
            self.settle()

    def settle(self) -> None:
        """Counts the losses of the last steps and stops if one is not finite; waits for the device.

        Raises:
            FloatingPointError: names epoch, step, learning rate and frames.
        """
        if not self._unchecked:
            return
        pending, self._unchecked = self._unchecked, []
        # in float64, so that a network in double precision reports what it computed
        losses = torch.stack([p.loss for p in pending]).double().tolist()
        norms = torch.stack([p.norm for p in pending]).double().tolist()
        for item, loss, norm in zip(pending, losses, norms, strict=True):
            finite = math.isfinite(norm)
            # float16's scaler skips steps whose gradient overflows, but a few only
            self.skipped = 0 if finite else self.skipped + 1
            if not math.isfinite(loss) or self.skipped > (MOST_SKIPPED if self.scaler.is_enabled() else 0):
                self._stop(item, loss, norm)
            self.sums["loss"] += loss
            self.sums["grad_norm"] += norm if finite else 0.0
            self.sums["finite"] += finite

    def _stop(self, item: PendingStep, loss: float, norm: float) -> None:
        frames = [name for part in all_objects(list(item.names)) for name in part]
        what = f"loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise FloatingPointError(
            f"{what} at epoch {item.epoch + 1}, step {item.step + 1}, learning rate {item.lr:.2e}, frames "
            f"{', '.join(frames)}; lower lr, set max_grad_norm or use float32 precision"
        )

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Moves the averaged weights towards the new ones."""
        pool_statistics(self.model)  # which differ between processes where batch norm is not synchronised
        # early on the average follows closely, or it would keep the first random weights for long
        decay = min(self.recipe.ema_decay, (1 + self.done) / (10 + self.done)) if self.recipe.ema_decay else 0.0
        self.average.update(decay)

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
            self.average.copy_counts()
            self.best_state = _on_cpu(self.ema)
        return better

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; the random crops and their order follow from recipe, epoch and step."""
        self.settle()
        self.average.copy_counts()
        return {
            "setup": self._setup(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "best_state": self.best_state,
            "optimizer": optimizer_state(self.optimizer),
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
            load_optimizer(self.optimizer, state["optimizer"])
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


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
