"""Finding, loading, saving and pushing checkpoints: `config.json`, `model.safetensors` and a model card."""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from serank.checkpoints.config_file import MAX_CONFIG, config_text, read_config
from serank.checkpoints.weights import largest_file, load_strictly
from serank.errors import CheckpointError
from serank.utils.device import check_device
from serank.utils.files import replacing
from serank.utils.names import did_you_mean

__all__ = [
    "CARD",
    "CONFIG",
    "INTRODUCTION",
    "WEIGHTS",
    "Pretrained",
    "bundled",
    "read_card",
    "short_card",
]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
INTRODUCTION = """# SeRankDet checkpoint

Load it with `serank.SeRankDet.from_pretrained("this folder or repository id")`.
"""

Model = TypeVar("Model", bound="Pretrained")


def bundled() -> dict[str, Path]:
    """Folders of the checkpoints that come with the package, by name."""
    root = Path(str(resources.files("serank"))) / "weights"
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / CONFIG).is_file()}


class Pretrained:
    """Gives a network `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Its `config` holds its constructor's arguments.
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
        huggingface_hub hold, such as HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN.

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
                unknown entries or bad values; or weights with missing, unexpected or misshapen entries (lists them).
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
        load_strictly(network, source.fetch(WEIGHTS, largest_file(network)))
        network.to(target).eval()
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None, half: bool = False) -> None:
        """Writes `config.json`, `model.safetensors` and the model card `README.md`, each whole or not at all.

        Args:
            folder: made if it doesn't exist.
            card: the card's text; `None` writes a short one, and leaves one that is there.
            half: store floating weights in float16, half the size. Loading gives float32 again.

        Raises:
            ValueError: `half`, and an entry has values beyond float16's range.
            OSError: a file can't be written, for example to a full disk.
        """
        state = cast(nn.Module, self).state_dict()
        tensors = {name: (_half(name, v) if half else v).detach().cpu().contiguous() for name, v in state.items()}
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with replacing(target / WEIGHTS) as path:
            try:
                save_file(tensors, path, metadata={"format": "pt"})
            except SafetensorError as error:  # what a full disk comes as
                raise OSError(f"{target / WEIGHTS}: can't be written: {error}") from error
        with replacing(target / CONFIG) as path:
            path.write_text(config_text(self.config), encoding="utf-8")
        if card is not None or not (target / CARD).exists():
            with replacing(target / CARD) as path:
                path.write_text(card or short_card(), encoding="utf-8")

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
            private: of a new repository; `None` takes the owner's default. `True` refuses one that exists and is
                public.
            token: access token with the right to write; `None` takes the stored one.
            revision: branch, `None` means `main`.
            commit_message: `None` names the version of serank.
            card: as for `save_pretrained`; with `None` a card that the branch has stays.
            half: as for `save_pretrained`.

        Returns:
            Address of the commit.

        Raises:
            serank.errors.CheckpointError: an id or revision of a wrong form, or the Hub refused or couldn't be
                reached.
        """
        from serank.checkpoints.hub import push

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=card, half=half)
            return push(
                Path(folder),
                (CONFIG, WEIGHTS, CARD),
                repo_id,
                private=private,
                token=token,
                revision=revision,
                message=commit_message,
                keep=(CARD,) if card is None else (),
            )


def read_card(name: str | os.PathLike[str]) -> str | None:
    """The model card of a bundled name or a local folder; `None` for any other name, or where there is none."""
    folder = bundled().get(str(name), Path(name))
    return (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None


def short_card() -> str:
    """The card of a network about whose making nothing is known."""
    return f"---\nlibrary_name: serank\npipeline_tag: image-segmentation\n---\n\n{INTRODUCTION}"


def _half(name: str, entry: Tensor) -> Tensor:
    """A floating entry in float16; others as they are."""
    if not entry.is_floating_point():
        return entry
    converted = entry.half()
    if converted.isinf().sum() > entry.isinf().sum():
        largest = float(entry[entry.isfinite()].abs().max())
        raise ValueError(f"half: {name} reaches {largest:.3g} and float16 ends at 65504; save with half=False")
    return converted


class _Source(Protocol):
    """Where the files of a checkpoint come from."""

    def fetch(self, file: str, limit: int) -> Path:
        """Path of a file of at most `limit` bytes."""


class _Folder:
    """A checkpoint on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                hint = f"; did you mean {folder / 'best'}?" if (folder / "best" / file).is_file() else ""
                raise CheckpointError(f"{folder}: no {file}; a checkpoint folder holds {CONFIG} and {WEIGHTS}{hint}")

    def fetch(self, file: str, limit: int) -> Path:
        path = self.folder / file
        if path.stat().st_size > limit:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, expected at most {limit}")
        return path


def _is_folder(text: str) -> bool:
    return os.path.isdir(text)  # noqa: PTH112 - Path.is_dir raises for names that are too long


def _locate(name: str | os.PathLike[str], *, revision: str | None, **options: Any) -> _Source:
    """Where the checkpoint's files are."""
    from serank.checkpoints.hub import Repository
    from serank.checkpoints.registry import OTHERS, no_weights

    known, text = bundled(), os.fspath(name)
    if isinstance(name, str) and name in known:
        return _Folder(known[name])
    row = OTHERS.get(text)
    if row is not None and row.repo_id is not None:
        return Repository(row.repo_id, revision or row.revision, **options)
    if _is_folder(text):
        return _Folder(Path(text))
    if row is not None:
        raise CheckpointError(no_weights(row))
    # where the first part is a folder here, the rest of a path is missing, and asking the Hub would only take time
    owner, slash, rest = text.partition("/")
    if not slash or "/" in rest or "\\" in text or text.startswith((".", "~")) or _is_folder(owner):
        names = ", ".join(known) or "none"
        raise CheckpointError(
            f"{text!r:.200} is no published checkpoint (bundled: {names}), no local folder and no Hub id (owner/name)"
            f"{did_you_mean(text, known)}"
        )
    return Repository(text, revision, **options)
