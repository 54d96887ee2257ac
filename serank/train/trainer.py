"""The trainer: the paper's loss and schedule, averaged weights, resumable, on one process or several."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from tqdm import tqdm

from serank.datasets.sample import Sample, check_samples
from serank.evaluation.runner import evaluate
from serank.inference.fused_network import InferenceNetwork
from serank.serankdet import SeRankDet
from serank.train.folder import RunFolder
from serank.train.history import History
from serank.train.preflight import inspect_samples, warn_shared_frames
from serank.train.recipe import Preset, Recipe
from serank.train.run import TrainingRun
from serank.utils.checks import check_count, check_device, choose_device
from serank.utils.distributed import is_main, restore_batch_norm, world_size

LOGGER = logging.getLogger("serank.train")


def fit(
    model: SeRankDet,
    train_set: Sequence[Sample],
    val_set: Sequence[Sample] | None = None,
    *,
    recipe: Recipe | None = None,
    teacher: SeRankDet | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    workers: int = 0,
    compile: bool = False,
    checkpointing: bool = False,
    save_every: int | None = None,
    tensorboard: bool = False,
    progress: bool = True,
    origin: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
) -> History:
    """Trains `model` in place; it ends with the best averaged weights, in eval mode, and without calibration of scores.

    Soft IoU over the six outputs of `forward_deep`, AdamW, linear warm-up and polynomial decay (paper, section IV-A).
    Crops depend on seed, epoch and frame alone, so that neither `workers`, `save_every` nor a stop changes the result:
    on a CPU a resumed run ends with the weights of an uninterrupted one, bit for bit.

    Both sets are read once before the first step, and a summary of each is logged (logger `serank.train`, level info),
    as is a line for each epoch where no progress bar is shown.

    In processes started by `torchrun` (within `serank.utils.distributed.started`) each takes its share of every batch;
    loss and metrics are those of the whole batch and set, and process 0 alone writes. Batch norm takes its statistics
    over the whole batch on CUDA (`torch.nn.SyncBatchNorm`); on a CPU each process normalises by those of its own share,
    and the running statistics are the mean over processes.

    Args:
        model: trained on `device`; its `frame_spec` normalises the crops and scales validation frames.
        train_set: samples, such as `serank.datasets.FolderDataset(..., cache=True)`; with `soft=...` they bring the
            soft targets that `recipe.soft_weight` weighs.
        val_set: measured at each frame's own size under the standard protocol, with the network's threshold and `tta`;
            the weights with the best mean of IoU and nIoU are kept. `None` keeps the last.
        recipe: see `Recipe`.
        teacher: a trained network for knowledge distillation, weighed by `recipe.distil_weight`; of any width. It isn't
            changed.
        output: folder for `log.csv`, `curves.png` (with matplotlib installed), `last.pt` (to resume from) and
            `best/` (the kept checkpoint, which `SeRankDet.from_pretrained` loads). `None` writes nothing.
        resume: continue from `output/last.pt` if there is one.
        device: where to train; `"auto"` takes CUDA where there is one. There the whole step is one CUDA graph
            (in one process, without teacher, accumulation, checkpointing, `compile`, float16 and a loss of one's own),
            and loss and gradient are looked at every 16 steps; a step that isn't finite leaves the weights as they are
            until then.
        workers: processes of the data loader; 0 prepares crops in this one.
        compile: run the network through `torch.compile`.
        checkpointing: activation checkpointing: less memory, more time, the same result, see `SeRankDet`. A run may be
            resumed with or without it.
        save_every: steps between checkpoints within an epoch, besides the one at its end.
        tensorboard: write `output/tensorboard` too; needs the extra `serank[tensorboard]`.
        progress: show a bar on standard error.
        origin: for the model card of `best/`: how the run was started, such as its command line.
        license: likewise, the licence of the weights: an identifier of the Hub's list, such as `apache-2.0`.
        datasets: likewise, names of what is trained on.

    Returns:
        Losses and metrics by epoch.

    Raises:
        TypeError: no data set, `model` or `teacher` is no `SeRankDet`, or a loss of one's own gives no tensor.
        ValueError: a data set that can't be trained on (the message lists what is wrong), fewer training frames than a
            batch, a `batch_size` that isn't divisible by processes times `accumulation_steps`, `teacher` without
            `distil_weight` or the reverse, an unavailable `device`, `compile` in several processes or with
            `checkpointing`, `resume` or `tensorboard` without `output`, `tensorboard` without its package, an `output`
            that holds a run when not resuming, or one with another recipe, network or data.
        serank.errors.CheckpointError: `last.pt` can't be read or is damaged.
        OSError: `output` can't be written to or is held by another run (`BlockingIOError`), which is found before
            anything is read; or a checkpoint can't, for example to a full disk, where the last good one is left as it
            was.
        FloatingPointError: loss or gradient is NaN or infinite; names epoch, step, learning rate and frames.
    """
    for name, network in (("model", model), ("teacher", teacher)):
        if not isinstance(network, SeRankDet) and (name == "model" or network is not None):
            if hasattr(network, "_orig_mod"):  # of torch.compile
                raise TypeError(f"{name} is compiled already; pass the network itself (compile=True compiles model)")
            raise TypeError(
                f"{name} must be a SeRankDet; got {type(network).__name__}; another network trains in a loop of its "
                "own, with serank.train.RandomCrops and serank.losses"
            )
    recipe = Recipe() if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        hint = "; a preset's is preset(name).recipe" if isinstance(recipe, (Preset, str)) else ""
        raise ValueError(f"recipe must be a serank.train.Recipe; got {recipe!r:.80} ({type(recipe).__name__}){hint}")
    target = check_device(choose_device(device))
    workers = check_count(workers, "workers", 0)
    save_every = None if save_every is None else check_count(save_every, "save_every")
    check_samples(train_set, "train_set")
    if len(train_set) < recipe.batch_size:
        raise ValueError(
            f"train_set has {len(train_set)} frames, fewer than batch_size={recipe.batch_size}; lower batch_size"
        )
    micro_batches = world_size() * recipe.accumulation_steps
    if recipe.batch_size % micro_batches:
        raise ValueError(
            f"batch_size must be a multiple of {micro_batches}, {world_size()} processes times accumulation_steps="
            f"{recipe.accumulation_steps}; got {recipe.batch_size}"
        )
    if compile and world_size() > 1:
        raise ValueError("compile works in one process alone: several exchange their statistics within batch norm")
    if compile and checkpointing:
        raise ValueError("compile decides by itself what to keep for the backward pass; leave checkpointing out")
    if (teacher is None) != (not recipe.distil_weight):
        raise ValueError(
            f"teacher and recipe.distil_weight belong together; got {'no' if teacher is None else 'a'} teacher and "
            f"distil_weight={recipe.distil_weight}"
        )
    if output is None and (resume or tensorboard):
        raise ValueError("resume and tensorboard need output, the folder of the run")
    opened = (
        nullcontext()
        if output is None
        else RunFolder(output, resume=resume, tensorboard=tensorboard, licence=license, data_sets=datasets)
    )
    with opened as folder:
        summaries = {"train_set": inspect_samples(train_set, "train_set", need_soft=recipe.soft_weight > 0)}
        if val_set is not None:
            summaries["val_set"] = inspect_samples(val_set, "val_set", need_targets=False)
            warn_shared_frames(train_set, val_set)
        if is_main():
            for name, summary in summaries.items():
                LOGGER.info("%s: %s", name, summary)
        notes = ([] if origin is None else [origin]) + [f"{name}: {summary}" for name, summary in summaries.items()]
        digests = {name: summary.digest for name, summary in summaries.items()}
        model.score_calibration = None  # it was fitted to other weights
        with _trainable(model, recipe, checkpointing):
            run = TrainingRun(
                model, train_set, recipe, target, digests, workers=workers, compile=compile, teacher=teacher
            )
            if folder is not None and (state := folder.load()) is not None:
                run.restore(state)
                folder.log(run.history.rows)  # a run that was stopped after saving may not have logged its last row
                if run.epoch == recipe.epochs and is_main():
                    LOGGER.info("%s: all %d epochs are done already", folder.path, recipe.epochs)
            _train_epochs(run, val_set, folder, save_every=save_every, progress=progress, notes=notes)
        model.load_state_dict(run.best_state)
        model.eval()
        if folder is not None:  # once more: a run that was stopped while saving may have left an older one
            folder.keep(model, recipe, run.history.best, notes)
            folder.finish(run.history.rows)
    return run.history


def _train_epochs(
    run: TrainingRun,
    val_set: Sequence[Sample] | None,
    folder: RunFolder | None,
    *,
    save_every: int | None,
    progress: bool,
    notes: Sequence[str],
) -> None:
    """The epochs that are left: trains, validates, logs, and keeps the state and the best weights in `folder`."""
    recipe = run.recipe
    with tqdm(
        total=recipe.epochs * run.steps, initial=run.done, disable=not (progress and is_main()), unit="step"
    ) as bar:
        while run.epoch < recipe.epochs:
            for _ in run.train_epoch(bar):
                if folder is not None and save_every and run.step % save_every == 0:
                    folder.save(run.state())
            run.average.copy_counts()
            row = run.end_epoch()
            if val_set is not None and (run.epoch % recipe.validate_every == 0 or run.epoch == recipe.epochs):
                row |= evaluate(_for_validation(run.ema), val_set, curves=False).metrics
                bar.set_postfix(loss=f"{row['loss']:.3f}", iou=f"{row['iou']:.3f}", refresh=False)
            better = run.record(row, last=run.epoch == recipe.epochs, validated=val_set is not None)
            if bar.disable and is_main():
                metrics = f", IoU {row['iou']:.4f}, nIoU {row['niou']:.4f}" if "iou" in row else ""
                LOGGER.info("epoch %d of %d: loss %.4f%s", run.epoch, recipe.epochs, row["loss"], metrics)
            if folder is not None:
                folder.save(run.state())
                folder.log(run.history.rows)
                if better:
                    folder.keep(run.ema, recipe, row, notes)
    run.close()


def _for_validation(model: SeRankDet) -> SeRankDet | InferenceNetwork:
    """The fast copy where it computes in the same precision, float32."""
    # no graphs: one a validation would not pay, and the loader's thread pins memory meanwhile
    return model.optimize(graphs=False) if model.head.weight.dtype == torch.float32 else model


@contextmanager
def _trainable(model: SeRankDet, recipe: Recipe, checkpointing: bool) -> Iterator[None]:
    """Freezes the parameters that the recipe freezes; restores the network's settings at the end."""
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    was, model.checkpointing = model.checkpointing, checkpointing
    try:
        if recipe.freeze_encoder:
            for part in (model.encoder, model.attention):
                part.requires_grad_(False)
        if not recipe.deep_supervision:
            model.side_heads.requires_grad_(False)
        yield
    finally:
        restore_batch_norm(model)
        model.checkpointing = was
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
