"""Dtypes to compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 where its dtype is a half-precision one, as it is otherwise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
