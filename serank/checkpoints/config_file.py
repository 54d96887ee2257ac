"""The file `config.json`: the network's constructor arguments and the version of serank that wrote them."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
import warnings
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from serank._version import __version__
from serank.errors import CheckpointError

MAX_CONFIG = 2**20
"""Largest `config.json` that is read, in bytes; a real one has about 1 kB."""

VERSION = "serank_version"
"""Entry with the version that wrote the file; all others are constructor arguments."""

FREE = frozenset({VERSION, "threshold"})
"""Entries that may be edited without saving the weights again: the digest leaves them out."""


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the entries that the weights depend on, stored with them by `save_pretrained`.

    Order of entries and white space don't matter; the entries in `FREE` are left out.
    """
    entries = {name: value for name, value in config.items() if name not in FREE}
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def config_text(config: Mapping[str, Any]) -> str:
    """Content of `config.json` for a network with these constructor arguments."""
    return json.dumps({VERSION: __version__, **config}, indent=2) + "\n"


def known_arguments(cls: type[Any]) -> list[str]:
    """Names of the constructor arguments of a network's class; `**kwargs` stands for those of the class it extends."""
    return list(_parameters(cls))


def check_constructor(cls: type[Any], config: Mapping[str, Any]) -> None:
    """Raises ValueError unless the constructor of `cls` takes every entry of a config by name."""
    if refused := sorted(set(config) - {VERSION} - set(known_arguments(cls))):
        raise ValueError(
            f"{cls.__name__}'s constructor doesn't take {', '.join(refused[:5])}{', ...' if len(refused) > 5 else ''}, "
            "which its config holds: it couldn't be built again from it. Let the constructor take **kwargs and hand "
            "them on, or set self.config to the arguments that it takes"
        )


def _parameters(cls: type[Any]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(signature(vars(base)["__init__"]).parameters.values())[1:]
        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        found |= {p.name: p for p in own if p.kind in kinds and p.name not in found}
        if not any(p.kind == Parameter.VAR_KEYWORD for p in own):
            break
    return found


def read_config(file: Path, cls: type[Any]) -> dict[str, Any]:
    """Reads the constructor arguments in `file`; their values are unchecked.

    Warns of arguments that the file lacks, which take their defaults.

    Raises:
        CheckpointError: too large, no JSON object, written by a newer serank, or entries that `cls` doesn't take.
    """
    config = _parse(file)
    _check_version(file, config.pop(VERSION, None))
    known = _parameters(cls)
    if unknown := sorted(set(config) - set(known)):
        names = ", ".join(
            name if name.isidentifier() and len(name) < 40 else reprlib.repr(name) for name in unknown[:20]
        )
        raise CheckpointError(
            f"{file}: unknown entries {names}{', ...' if len(unknown) > 20 else ''}; {cls.__name__} takes "
            f"{', '.join(sorted(known))}. Correct or remove them"
        )
    if missing := [name for name in known if name not in config]:
        taken = ", ".join(
            name if known[name].default is Parameter.empty else f"{name}={known[name].default!r}" for name in missing
        )
        warnings.warn(
            f"{file}: lacks entries, whose defaults are taken: {taken}. The network may have been "
            "trained with other values; add the right ones, or save the checkpoint again to confirm these",
            stacklevel=3,
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
    """Builds an object and refuses duplicate names, of which other readers might take another value."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("an entry comes twice")
    return entries


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _check_version(file: Path, written: Any) -> None:
    """Refuses a file of a newer serank, whose entries may mean something else; files without a version pass."""
    if written is None:
        return
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
