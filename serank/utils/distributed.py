"""Process groups of torchrun, and the collectives that training and evaluation need.

Without torchrun there is one process, of rank 0, and every function here returns at once.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from serank.utils.checks import check_device, choose_device

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Of collectives: long, because a slow validation on one process must not end the run."""


@contextmanager
def started(device: str = "cpu") -> Iterator[str]:
    """Joins the process group of torchrun, and leaves it at the end.

    Args:
        device: `"auto"` (CUDA where there is one, else the CPU),
            `"cpu"` (processes talk through gloo) or `"cuda"` (nccl, each takes the GPU of its local rank).

    Yields:
        The device of this process, such as `"cuda:1"`; without torchrun `device` itself, or what `"auto"` chose.

    Raises:
        ValueError: there are several processes and `device` names one GPU for all of them, or one that isn't there.
    """
    device = str(choose_device(device))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    kind = torch.device(device)
    if kind.index is not None:
        raise ValueError(f'device must be "cpu" or "cuda" under torchrun, each process takes its own; got {device!r}')
    check_device(device)
    if kind.type == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    # DDP imports this module, and the defaults of its functions hold the group that exists then until Python ends.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    finally:
        dist.destroy_process_group()
        # Threads of gloo end with the last reference to the group, and DDP's are in cycles; a thread that is still at
        # work when Python ends aborts the process.
        gc.collect()


def rank() -> int:
    """Rank of this process in its group, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes in the group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is process 0, which prints and writes files."""
    return rank() == 0


def all_objects(value: T) -> list[T]:
    """Gathers the value of every process, in the order of their ranks, on all of them."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def same_weights(network: nn.Module) -> None:
    """Broadcasts parameters and buffers of process 0 to all, in place."""
    if world_size() > 1:
        with torch.no_grad():
            for value in network.state_dict().values():
                dist.broadcast(value, src=0)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Replaces batch norms within `network` by `torch.nn.SyncBatchNorm` of the same parameters and buffers.

    They take the mean and variance of a batch over all processes, in training mode on CUDA alone.
    """
    # in place, but for a network that is itself a batch norm
    nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


def restore_batch_norm(network: nn.Module) -> None:
    """Undoes `synchronise_batch_norm`: `torch.nn.BatchNorm2d` again, of the same parameters and buffers."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.SyncBatchNorm):
                norm = nn.BatchNorm2d(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                norm.weight, norm.bias = child.weight, child.bias
                norm.running_mean, norm.running_var = child.running_mean, child.running_var
                norm.num_batches_tracked = child.num_batches_tracked
                norm.training = child.training
                setattr(module, name, norm)


@torch.no_grad()
def pool_statistics(network: nn.Module) -> None:
    """Gives every process the mean of all processes' running statistics of batch norm, which have equal shares."""
    if world_size() > 1:
        for value in network.buffers():
            if value.is_floating_point():
                dist.all_reduce(value)
                value /= world_size()


def from_main(value: T) -> T:
    """Broadcasts the value of process 0 to all."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, on each of them."""
    if world_size() > 1:
        value = value.clone()  # which the sum is written into
        dist.all_reduce(value)
        value = value / world_size()
    return value
