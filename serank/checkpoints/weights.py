"""The file `model.safetensors`: checked against the network before anything is allocated, then loaded strictly."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from serank.errors import CheckpointError

__all__ = ["MAX_WEIGHTS", "largest_file", "load_strictly"]

MAX_WEIGHTS = 2**33
"""Bytes of the largest `model.safetensors` that is read, whatever its config asks for: width 350 in float32."""

HEADER = 2**20
"""Bytes allowed for names, shapes and metadata; those of a network take 40 kB."""
FLOATS = ("F16", "BF16", "F32", "F64")
SHOWN = 20


def largest_file(model: nn.Module) -> int:
    """Bytes of the largest file that can hold the entries of `model`, which may be on the meta device."""
    numbers = sum(int(value.numel()) for value in model.state_dict().values())
    return min(MAX_WEIGHTS, 8 * numbers + HEADER)


def load_strictly(model: nn.Module, file: Path) -> None:
    """Replaces the tensors of `model`, which may be on the meta device, by those of `file`.

    Entries keep the dtypes of `model`; in the file, floating ones may have any of `FLOATS`.

    Raises:
        CheckpointError: no safetensors, or missing, unexpected, misshapen entries or ones of another kind of number,
            listed as `name: file -> model`.
    """
    expected = model.state_dict()
    try:
        with safe_open(file, framework="pt") as weights:
            header = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - it is no dict
            found = {name: (entry.get_dtype(), tuple(entry.get_shape())) for name, entry in header.items()}
            if wrong := _differences(found, expected):
                more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
                raise CheckpointError(
                    f"{file}: {len(wrong)} entries don't fit the config (file -> model):\n  "
                    + "\n  ".join(wrong[:SHOWN] + more)
                )
            # a copy, since what is read stays tied to the file
            state = {name: weights.get_tensor(name).to(value.dtype, copy=True) for name, value in expected.items()}
    except CheckpointError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error)[:200]
        raise CheckpointError(
            f"{file}: can't be read as safetensors: {reason}; copy it again (from the Hub: force_download=True)"
        ) from error
    model.load_state_dict(state, assign=True)


def _differences(found: dict[str, tuple[str, tuple[int, ...]]], expected: dict[str, Any]) -> list[str]:
    wrong = [f"{k}: missing in file -> {tuple(v.shape)}" for k, v in expected.items() if k not in found]
    for name, (dtype, shape) in found.items():
        if name not in expected:
            shown = name if name.isprintable() and len(name) < 100 else reprlib.repr(name)
            wrong.append(f"{shown}: {shape} -> not in model")
            continue
        value = expected[name]
        if shape != tuple(value.shape):
            wrong.append(f"{name}: {shape} -> {tuple(value.shape)}")
        elif dtype not in (FLOATS if value.is_floating_point() else ("I64",)):
            wrong.append(f"{name}: {dtype} -> {' or '.join(FLOATS) if value.is_floating_point() else 'I64'}")
    return wrong
