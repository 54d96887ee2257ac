"""Whether a layer runs, or is being traced into a graph that must hold for any size."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Whether `torch.export`, which `torch.onnx` uses too, is tracing."""
    # PyTorch before 2.7 knows no difference between exporting and compiling
    traced: bool = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
    return traced


def exporting_to_onnx() -> bool:
    """Whether `torch.onnx` is tracing."""
    return torch.onnx.is_in_onnx_export()


def traced() -> bool:
    """Whether `torch.jit.trace` records, which also draws TensorBoard's graphs; for one size of map."""
    return torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call,no-any-return]
