"""What CUDA asks for and a CPU would forgive: one device, failed recordings, convolutions that cuDNN doesn't fuse."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from serank import LSFF, SeRankDet
from serank.inference import fused_conv, fused_network
from serank.inference.fused_conv import fold_batch_norm
from serank.inference.fused_gate import FusedGate
from serank.layers.ddc import conv_bn_relu
from serank.losses import deep_supervision_loss
from serank.utils.cuda_graph import record_graph

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": {"fusion": "gated", "merge_kernel": 3, "table_size": 64, "bias": True, "in_channels": 3},
    "concat": {"fusion": "concat", "attention": "after"},
}


class OnlyMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, no operation may take or make a tensor of another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert not isinstance(value, Tensor) or value.device.type == "meta", func
        return result


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_stays_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device, where no value can be looked at either, stands in for CUDA."""
    monkeypatch.setattr(fused_network, "can_pack", lambda device, dtype: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device
    model = SeRankDet(width=2, **VARIANTS[name])
    fast = model.eval().optimize()
    model.to("meta").train()
    for part in fast.children():
        part.to("meta")
    with OnlyMeta():  # type: ignore[no-untyped-call]
        x = torch.empty(2, model.in_channels, 40, 56, device="meta")
        loss = deep_supervision_loss(model.forward_deep(x), x[:, :1], pixel_weight=1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None for p in model.parameters())
        assert fast(x).shape == (2, 1, 40, 56)
        with pytest.raises(AssertionError):
            x.new_zeros(3).copy_(torch.zeros(3))
        with pytest.raises(RuntimeError):
            x.sum().item()


class FakeCuda:
    """Stands in for `torch.cuda`: which stream is current, and a recording that fails as PyTorch's does."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.current: Any = "default"
        self.calls: list[Any] = []
        patch.setattr(torch.cuda, "device", self.device)
        patch.setattr(torch.cuda, "Stream", lambda: self)
        patch.setattr(torch.cuda, "current_stream", lambda: self)
        patch.setattr(torch.cuda, "set_stream", self.set)
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "graph", self.graph)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: self)

    def wait_stream(self, other: Any) -> None:
        self.calls.append("wait")

    def replay(self) -> None:
        self.calls.append("replay")

    def set(self, stream: Any) -> None:
        self.current = "default"

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.calls.append(device)
        yield

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.current = "side"
        yield
        self.current = "default"

    @contextmanager
    def graph(self, graph: Any, **options: Any) -> Iterator[None]:
        self.calls.append(options["capture_error_mode"])
        self.current = "side"
        yield  # not restored if what is recorded fails
        self.current = "default"


def test_the_order_of_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)

    def run() -> int:
        assert cuda.current == "side"
        cuda.calls.append("run")
        return 7

    device = torch.device("cuda:1")
    replay, result = record_graph(run, device, warm_ups=2)
    replay()
    assert (result, cuda.current) == (7, "default")
    assert cuda.calls == [device, "wait", "run", "run", "wait", "thread_local", "run", "replay"]


def test_a_recording_that_fails_leaves_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)

    def run() -> None:
        if "thread_local" in cuda.calls:
            raise RuntimeError("operation not permitted when stream is capturing")

    for _ in range(2):  # the lock is free again
        cuda.calls.clear()
        with pytest.raises(RuntimeError, match="not permitted"):
            record_graph(run, torch.device("cuda:0"), warm_ups=1)
        assert cuda.current == "default"


def relu(x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()


def add_relu(x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *place: Any) -> Tensor:
    return (F.conv2d(x, weight, bias, *place) + alpha * z).relu()


def refuse(*_: Any) -> Tensor:
    raise RuntimeError("GET was unable to find an engine to execute this computation")


def out_of_memory(*_: Any) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("works", [True, False])
def test_convolutions_that_cudnn_fuses_and_doesnt(parts: int, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    block = conv_bn_relu(nn.Conv2d(6 * parts, 4, 3, padding=2, dilation=2))
    block(torch.randn(2, 6 * parts, 9, 7))  # moves the statistics
    block.eval()
    monkeypatch.setattr(fused_conv, "can_run_cudnn", lambda device, dtype: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu if works else refuse)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu if works else refuse)
    fused = fold_batch_norm(block, dtype=torch.float32, packed=False, parts=parts)
    x = torch.randn(2, 6 * parts, 9, 7)
    with torch.no_grad():
        for _ in range(2):
            total = None
            for number, part in enumerate(x.chunk(parts, dim=1)):
                total = fused.add(part, number, total)
            torch.testing.assert_close(total, block(x), atol=1e-5, rtol=1e-5)
    assert fused.cudnn == works


@pytest.mark.parametrize("options", [{}, {"maps": 4}, {"mode": "gated"}], ids=str)
def test_the_gate_of_fewer_kernels_is_that_of_the_layer(options: dict[str, Any]) -> None:
    layer = LSFF(4, **options)
    maps = [torch.randn(2, 4, 9, 11).to(memory_format=torch.channels_last) for _ in range(2)]
    with torch.no_grad():
        torch.testing.assert_close(FusedGate(layer, torch.float32)(*maps), layer.gate(*maps), atol=1e-6, rtol=1e-5)


def test_out_of_memory_is_no_reason_to_run_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_conv, "can_run_cudnn", lambda device, dtype: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", out_of_memory)
    fused = fold_batch_norm(conv_bn_relu(nn.Conv2d(1, 2, 3)).eval(), dtype=torch.float32, packed=False)
    with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
        fused(torch.zeros(1, 1, 8, 8))
    assert fused.cudnn


def test_recordings_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    inside = threading.Semaphore(1)

    def run() -> None:
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.01)
        inside.release()

    errors: list[BaseException] = []

    def record() -> None:
        try:
            record_graph(run, torch.device("cuda:0"), warm_ups=1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert cuda.calls.count("thread_local") == 4
