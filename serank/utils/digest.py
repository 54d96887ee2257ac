"""SHA-256 of files, and of nested values with tensors in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def sha256(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal digits."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def content_digest(value: Any) -> str:
    """SHA-256 of a value's content, 64 hexadecimal digits.

    Equal values have equal digests on every device; tensors count with dtype, shape and bits, mappings in their order.

    Args:
        value: None, numbers, strings and dense tensors, nested in mappings, lists and tuples.
    """
    digest = hashlib.sha256()
    _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)  # bfloat16 too
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}".encode())
        for key, entry in value.items():
            _update(digest, key)
            _update(digest, entry)
    elif isinstance(value, (list, tuple)):
        digest.update(f"sequence {len(value)}".encode())
        for entry in value:
            _update(digest, entry)
    else:
        digest.update(f"{type(value).__name__} {value!r}".encode())
