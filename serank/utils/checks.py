"""Checks of arguments that many functions take; Python's, NumPy's and a tensor's numbers count alike, bool is none."""

from __future__ import annotations

from contextlib import suppress
from operator import index
from typing import Any

import numpy as np
import torch


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """`value` as an int; raises ValueError, which names the argument, unless it is a whole number >= `minimum`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{name} must be a whole number >= {minimum}; got {value!r:.200} ({type(value).__name__})")
    if index(value) < minimum:
        raise ValueError(f"{name} must be >= {minimum}; got {value}")
    return index(value)


def check_number(value: Any, name: str, expected: str = "a number") -> float:
    """`value` as a float, NaN and infinities included; raises ValueError unless it is a number."""
    if not isinstance(value, bool) and hasattr(value, "__float__"):
        with suppress(TypeError, ValueError, RuntimeError):  # arrays and tensors of several numbers
            return float(value)
    raise ValueError(f"{name} must be {expected}; got {value!r:.200} ({type(value).__name__})")


def check_threshold(threshold: Any, name: str = "threshold") -> float:
    """`threshold` as a float; raises ValueError unless it is a number in [0, 1]."""
    found = check_number(threshold, name, "a number in [0, 1]")
    if not 0 <= found <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {threshold}")
    return found


def check_map(x: Any, channels: int | None = None, *, name: str = "x") -> None:
    """Checks what a layer or network is called with: a dense floating tensor `(B, channels, H, W)`; B may be 0.

    Args:
        x: to be checked.
        channels: that it must have; `None` for any number.
        name: of the argument in messages.

    Raises:
        TypeError: no tensor.
        ValueError: other dimensions or channels, a sparse layout, or no floating dtype.
    """
    if not isinstance(x, torch.Tensor):
        hint = "; frames in files and arrays go to detect(...)" if isinstance(x, (str, np.ndarray)) else ""
        raise TypeError(f"{name} must be a tensor (B, C, H, W); got {x!r:.80} ({type(x).__name__}){hint}")
    if x.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor; got {x.layout}; convert it with {name}.to_dense()")
    if x.ndim != 4:
        hint = f"; one map without a batch is {name}[None]" if x.ndim == 3 else ""
        raise ValueError(f"{name} must have shape (B, {channels or 'C'}, H, W); got {tuple(x.shape)}{hint}")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"{name} must have {channels} channels, shape (B, {channels}, H, W); got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name} must be of a floating dtype; got {x.dtype}; convert it with {name}.float()")


def values_at_hand(x: torch.Tensor) -> bool:
    """Whether a tensor's values can be looked at: neither is a compiler at work, nor would it wait for a device."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def choose_device(device: str | torch.device) -> str | torch.device:
    """`device`, or for `"auto"` CUDA where there is one, and else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str | torch.device) -> torch.device:
    """`device` as a `torch.device`, after allocating a tensor there; raises ValueError if there is no such device."""
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError) as error:  # what PyTorch raises for a device it wasn't built for
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} is not available here: {reason}") from error
