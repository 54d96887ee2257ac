"""The file `model.safetensors`: written with digests of its content and config, checked, and loaded strictly."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from serank.errors import CheckpointError
from serank.utils.digest import content_digest
from serank.utils.files import replacing
from serank.utils.text import listing

MAX_WEIGHTS = 2**33
"""Largest `model.safetensors` that is read, in bytes, whatever its config asks for: width 350 in float32."""

CONFIG_DIGEST = "config_sha256"
"""Entry of the file's metadata with the digest of the config that it was saved with."""

WEIGHTS_DIGEST = "weights_sha256"
"""Entry of the file's metadata with the digest of its entries: names, types, shapes and values."""

HEADER = 2**20
"""Bytes allowed for names, shapes and metadata; those of a network take 40 kB."""
FLOATS = ("F16", "BF16", "F32", "F64")
SHOWN = 20


def largest_file(model: nn.Module) -> int:
    """Size in bytes of the largest file that can hold the entries of `model`, which may be on the meta device."""
    numbers = sum(int(value.numel()) for value in model.state_dict().values())
    return min(MAX_WEIGHTS, 8 * numbers + HEADER)


def non_finite(state: Mapping[str, Tensor]) -> str:
    """Names the entries that hold NaN or infinity, with how many values; empty if there are none."""
    counts = {
        name: int(value.numel() - value.isfinite().sum()) for name, value in state.items() if value.is_floating_point()
    }
    found = [f"{name} ({count} of {state[name].numel()})" for name, count in counts.items() if count]
    return listing(found, SHOWN)


def save_weights(model: nn.Module, file: Path, digest: str, *, half: bool = False) -> None:
    """Writes the state dict of `model` as safetensors, whole or not at all.

    `digest` is the config's, as `config_digest` gives it; `half` stores floating entries in float16.

    Raises:
        ValueError: an entry holds NaN or infinity, or `half` and an entry exceeds float16's range.
        OSError: the file can't be written.
    """
    state: dict[str, Tensor] = model.state_dict()
    if bad := non_finite(state):
        raise ValueError(f"not saved, entries hold NaN or infinity: {bad}; take an earlier checkpoint or train anew")
    tensors = {name: (_half(name, v) if half else v).detach().cpu().contiguous() for name, v in state.items()}
    with replacing(file) as temporary:
        try:
            metadata = {"format": "pt", CONFIG_DIGEST: digest, WEIGHTS_DIGEST: _digest(tensors)}
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # what a full disk comes as
            raise OSError(f"{file}: can't be written: {error}") from error


def load_strictly(model: nn.Module, file: Path, digest: str) -> None:
    """Replaces the tensors of `model`, which may be on the meta device, by those of `file`.

    Entries keep the dtypes of `model`; in the file, floating ones may have any of `FLOATS`.

    `digest` is the config's, as `config_digest` gives it. It and the digest of the entries are compared with the
    file's, if it has them.

    Raises:
        CheckpointError: no safetensors; missing, unexpected, misshapen entries or ones of another kind of number,
            listed as `name: file -> model`; entries with NaN or infinity; weights saved with another config, or
            changed since they were saved.
    """
    expected = model.state_dict()
    try:
        with safe_open(file, framework="pt") as weights:
            header = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - it is no dict
            found = {name: (entry.get_dtype(), tuple(entry.get_shape())) for name, entry in header.items()}
            if wrong := _differences(found, expected):
                shown = listing(wrong, SHOWN, "\n  ")
                raise CheckpointError(f"{file}: {len(wrong)} entries don't fit the config (file -> model):\n  {shown}")
            metadata = weights.metadata() or {}
            _check_config(file, metadata.get(CONFIG_DIGEST), digest)
            stored = {name: weights.get_tensor(name) for name in expected}
            _check_content(file, metadata.get(WEIGHTS_DIGEST), stored)
            # a copy, since what is read stays tied to the file
            state = {name: stored[name].to(value.dtype, copy=True) for name, value in expected.items()}
    except CheckpointError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error)[:200]
        raise CheckpointError(
            f"{file}: can't be read as safetensors: {reason}; copy it again (from the Hub: force_download=True)"
        ) from error
    if bad := non_finite(state):
        raise CheckpointError(f"{file}: entries hold NaN or infinity: {bad}; take an earlier checkpoint or train anew")
    model.load_state_dict(state, assign=True)


def _half(name: str, entry: Tensor) -> Tensor:
    """Converts a finite floating entry to float16; others stay as they are."""
    if not entry.is_floating_point():
        return entry
    converted = entry.to(torch.float16)
    if not converted.isfinite().all():
        raise ValueError(
            f"half: {name} reaches {float(entry.abs().max()):.3g} and float16 ends at 65504; save with half=False"
        )
    return converted


def _digest(entries: Mapping[str, Tensor]) -> str:
    return content_digest(dict(sorted(entries.items())))


def _check_content(file: Path, written: str | None, entries: Mapping[str, Tensor]) -> None:
    """Refuses entries that are not those that were saved; older files have no digest."""
    if written is not None and written != _digest(entries):
        raise CheckpointError(
            f"{file}: its weights are not those that were saved: the file was damaged or edited; copy it again (from "
            f"the Hub: force_download=True). A program that changes weights on purpose must leave out {WEIGHTS_DIGEST} "
            "of the file's metadata, or save with save_pretrained"
        )


def _check_config(file: Path, stored: str | None, digest: str) -> None:
    """Refuses weights that were saved with another config; older files have no digest."""
    if stored is not None and stored != digest:
        raise CheckpointError(
            f"{file}: was saved with another config than the config.json beside it. The folder mixes two checkpoints "
            "(a save or copy was interrupted), or config.json was edited: restore it, or copy both files of one "
            "checkpoint again. To change a setting, use model.reconfigured(...).save_pretrained(folder); only "
            "threshold may be edited in the file"
        )


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
