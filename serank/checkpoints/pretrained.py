"""Loading a network by name, folder or Hub id, saving it, and pushing it to the Hub."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from serank.checkpoints.card import short_card
from serank.checkpoints.config_file import (
    MAX_CONFIG,
    check_constructor,
    config_digest,
    config_text,
    read_config,
)
from serank.checkpoints.folder import CARD, CONFIG, FILES, WEIGHTS, Folder, bundled
from serank.checkpoints.hub import Repository, push
from serank.checkpoints.registry import OTHERS, no_weights
from serank.checkpoints.weights import largest_file, load_strictly, save_weights
from serank.errors import CheckpointError
from serank.utils.checks import check_device
from serank.utils.files import remove_leftovers, replacing
from serank.utils.text import did_you_mean

Model = TypeVar("Model", bound="Pretrained")
LEFT = 3600.0
"""Seconds after which an unfinished file is no other thread's or process's any more."""


class Pretrained:
    """Adds `from_pretrained`, `save_pretrained` and `push_to_hub` to a network.

    Attributes:
        config: the network's constructor arguments, JSON-able.
    """

    config: dict[str, Any]

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
    ) -> Model:
        """Builds the network of a checkpoint and loads its weights, strictly.

        Only `config.json` and `model.safetensors` are read, both of one commit. Sizes, arguments and the weights'
        names, shapes and types are checked before the network takes memory. The environment variables of
        huggingface_hub hold, such as HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN. Warns of arguments that the config
        lacks, which take their defaults.

        Args:
            name: a published name such as `"sirst"` (`serank checkpoints` lists them), a local folder, or a Hub
                repository id, looked for in that order.
            revision: branch, tag or commit on the Hub.
            token: the Hub's access token; `True` takes the stored one.
            cache_dir: where the Hub's files are cached.
            force_download: download the Hub's files although they are cached.
            local_files_only: take the Hub's files from the cache alone.
            device: where to put the network.

        Returns:
            The network in eval mode, in PyTorch's default dtype, float32.

        Raises:
            serank.errors.CheckpointError: a name that is unknown or has no weights; a repository, revision or file
                that isn't there or can't be had; unreadable or too large files; a config of a newer serank, with
                unknown entries or bad values; weights with missing, unexpected or misshapen entries (lists them), with
                NaN or infinity, or saved with another config.
            ValueError: a `device` that isn't there.
        """
        target = check_device(device)
        source = _locate(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        file = source.fetch(CONFIG, MAX_CONFIG)
        config = read_config(file, cls)
        try:
            with torch.device("meta"):  # shapes without memory
                model = cls(**config)
        except ValueError as error:
            raise CheckpointError(f"{file}: {str(error)[:1000]}") from error  # it quotes what the file says
        network = cast(nn.Module, model)
        load_strictly(network, source.fetch(WEIGHTS, largest_file(network)), config_digest(config))
        network.to(target).eval()
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None, half: bool = False) -> None:
        """Writes `config.json`, `model.safetensors` and the model card `README.md`, each whole or not at all.

        The weights carry a digest of the config, so that loading refuses files of two saves.

        Args:
            folder: made if it doesn't exist.
            card: text of the card; `None` leaves an existing card, or writes a short one.
            half: store floating weights in float16, half the size. Loading gives float32 again.

        Raises:
            ValueError: an entry holds NaN or infinity, `half` and an entry exceeds float16's range, or a subclass whose
                constructor doesn't take the entries of its config.
            OSError: a file can't be written, for example to a full disk.
        """
        check_constructor(type(self), self.config)
        text, target = config_text(self.config), Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            remove_leftovers(target / name, age=LEFT)
        with ExitStack() as files:  # none is replaced before all are written, the weights first
            if card is not None or not (target / CARD).exists():
                files.enter_context(replacing(target / CARD)).write_text(card or short_card(), encoding="utf-8")
            files.enter_context(replacing(target / CONFIG)).write_text(text, encoding="utf-8")
            save_weights(cast(nn.Module, self), target / WEIGHTS, config_digest(json.loads(text)), half=half)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        card: str | None = None,
        half: bool = False,
    ) -> str:
        """Uploads what `save_pretrained` writes to the Hub, in one commit.

        The repository and the branch are made if they don't exist. `serank publish` does the same for a folder, and
        checks it first.

        Args:
            repo_id: `owner/name`.
            private: make a new repository private; `None` takes the owner's default. `True` refuses an existing public
                repository.
            token: access token with the right to write; `None` takes the stored one.
            revision: branch, `None` means `main`.
            commit_message: `None` writes one with the version of serank.
            card: as for `save_pretrained`; `None` leaves the card of the branch, if it has one.
            half: as for `save_pretrained`.

        Returns:
            Address of the commit.

        Raises:
            serank.errors.CheckpointError: an id or revision of a wrong form, or the Hub refused or couldn't be
                reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=card, half=half)
            return push(
                Path(folder),
                FILES,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                message=commit_message,
                keep=(CARD,) if card is None else (),
            )


def _is_folder(text: str) -> bool:
    return os.path.isdir(text)  # noqa: PTH112 - Path.is_dir raises for names that are too long


def _locate(name: str | os.PathLike[str], *, revision: str | None, **options: Any) -> Folder | Repository:
    """Finds the files of a checkpoint: published name, local folder, Hub repository, in that order."""
    known, text = bundled(), os.fspath(name)
    if isinstance(name, str) and name in known:
        return Folder(known[name])
    row = OTHERS.get(text)
    if row is not None and row.repo_id is not None:
        return Repository(row.repo_id, revision or row.revision, **options)
    if _is_folder(text):
        return Folder(Path(text))
    if row is not None:
        raise CheckpointError(no_weights(row))
    # where the first part is a folder here, the rest of a path is missing, and asking the Hub would only take time
    owner, slash, rest = text.partition("/")
    if not isinstance(name, str) and text in known:
        raise CheckpointError(f"{text}: no such folder; for the bundled checkpoint pass the string {text!r}")
    if not slash or "/" in rest or "\\" in text or text.startswith((".", "~")) or _is_folder(owner):
        names = ", ".join(known) or "none"
        raise CheckpointError(
            f"{text!r:.200} is no published checkpoint (bundled: {names}), no local folder and no Hub id (owner/name)"
            f"{did_you_mean(text, known)}"
        )
    return Repository(text, revision, **options)
