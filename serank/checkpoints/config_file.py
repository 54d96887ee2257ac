"""The file `config.json`: a network's constructor arguments, and the version of serank that wrote them."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from serank.errors import CheckpointError

__all__ = ["MAX_CONFIG", "VERSION", "config_text", "known_arguments", "read_config"]

MAX_CONFIG = 2**20
"""Bytes of the largest `config.json` that is read, a thousand times what one needs."""

VERSION = "serank_version"
"""The entry with the version that wrote the file; all others are constructor arguments."""


def config_text(config: Mapping[str, Any]) -> str:
    """What `config.json` holds for a network with these arguments."""
    from serank._version import __version__

    return json.dumps({VERSION: __version__, **config}, indent=2) + "\n"


def known_arguments(cls: type[Any]) -> list[str]:
    """Constructor arguments of a network's class."""
    return list(signature(cls).parameters)


def read_config(file: Path, cls: type[Any]) -> dict[str, Any]:
    """The constructor arguments in `file`; their values are unchecked.

    Args:
        file: a `config.json`.
        cls: the network's class.

    Raises:
        CheckpointError: too large, no JSON object, written by a newer serank, or entries that `cls` doesn't take.
    """
    config = _parse(file)
    _check_version(file, config.pop(VERSION, None))
    known = known_arguments(cls)
    if unknown := sorted(set(config) - set(known)):
        names = ", ".join(
            name if name.isidentifier() and len(name) < 40 else reprlib.repr(name) for name in unknown[:20]
        )
        raise CheckpointError(
            f"{file}: unknown entries {names}{', ...' if len(unknown) > 20 else ''}; {cls.__name__} takes "
            f"{', '.join(sorted(known))}. Correct or remove them"
        )
    return config


def _parse(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG + 1)
        if len(content) > MAX_CONFIG:
            raise CheckpointError(f"{file}: more than {MAX_CONFIG} bytes can't be a config")
        config = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: can't be read as JSON: {error}; copy it again (from the Hub: force_download=True)"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: expected an object of constructor arguments, got {type(config).__name__}")
    return config


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name comes twice, where readers would differ about which counts."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("an entry comes twice")
    return entries


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _check_version(file: Path, written: Any) -> None:
    """Refuses a file of a newer serank, whose entries may mean something else; the oldest name no version."""
    if written is None:
        return
    from serank._version import __version__

    numbers = re.match(r"([0-9]{1,6})\.([0-9]{1,6})(?![0-9])", written) if isinstance(written, str) else None
    if numbers is None:
        raise CheckpointError(
            f'{file}: {VERSION} must be a version such as "{__version__}"; got {reprlib.repr(written)}'
        )
    if (int(numbers[1]), int(numbers[2])) > tuple(int(part) for part in __version__.split(".")[:2]):
        raise CheckpointError(
            f"{file}: written by serank {reprlib.repr(written)}, newer than this one, {__version__}; "
            "upgrade with: pip install --upgrade serank"
        )
