"""Choice and checks of devices."""

from __future__ import annotations

import torch

__all__ = ["check_device", "choose_device"]


def choose_device(device: str | torch.device) -> str | torch.device:
    """`device`, or for `"auto"` CUDA where there is one, and else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str | torch.device) -> torch.device:
    """`device` as a `torch.device`, after allocating a tensor there.

    Raises:
        ValueError: no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError) as error:  # what PyTorch raises for a device it wasn't built for
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} is not available here: {reason}") from error
