"""Finding, loading and saving checkpoints: `config.json`, `model.safetensors` and a model card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from serank.errors import CheckpointError
from serank.files import replacing

__all__ = ["CONFIG", "WEIGHTS", "Pretrained", "bundled", "check_device", "describe", "read_card", "short_card"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"

Model = TypeVar("Model", bound="Pretrained")


def bundled() -> dict[str, Path]:
    """Folders of the checkpoints that come with the package, by name."""
    root = Path(str(resources.files("serank"))) / "weights"
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / CONFIG).is_file()}


def describe(folder: Path) -> str:
    """Size in megabytes and the first line of text in the model card of a checkpoint folder."""
    card = (folder / CARD).read_text(encoding="utf-8")
    if card.startswith("---\n"):  # the Hub's metadata
        card = card.partition("\n---\n")[2]
    text = next((line for line in card.splitlines() if line and not line.startswith("#")), "")
    return f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB  {text}"


def check_device(device: str | torch.device) -> torch.device:
    """`device`, if tensors can be put there.

    Raises:
        ValueError: no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError) as error:  # what PyTorch raises for a device it wasn't built for
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} is not available here: {reason}") from error


class Pretrained:
    """Gives a network `from_pretrained` and `save_pretrained`; its `config` holds its constructor's arguments."""

    config: dict[str, Any]

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
    ) -> Model:
        """Builds the network of a checkpoint and loads its weights, strictly.

        Args:
            name: a bundled name such as `"sirst"`, a local folder, or a Hub repository id, looked for in that order.
            revision: branch, tag or commit on the Hub.
            token: the Hub's access token; `True` takes the stored one.
            cache_dir: where the Hub's files are cached.
            local_files_only: take the Hub's files from the cache alone.
            device: where to put the network.

        Returns:
            The network in eval mode, in float32.

        Raises:
            serank.errors.CheckpointError: unknown name (lists the known ones), unreadable files, unknown config
                entries, or weights with missing, unexpected or misshapen entries (lists them).
            ValueError: a `device` that isn't there.
        """
        target = check_device(device)
        folder = _locate(name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        config = _read_config(folder / CONFIG, cls)
        try:
            model = cls(**config)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / CONFIG}: {error}") from error
        _load_strictly(cast(nn.Module, model), _read_weights(folder / WEIGHTS), folder / WEIGHTS)
        cast(nn.Module, model).to(target).eval()
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None, half: bool = False) -> None:
        """Writes `config.json`, `model.safetensors` and the model card `README.md`, each whole or not at all.

        Args:
            folder: made if it doesn't exist.
            card: the card's text; `None` writes a short one, and leaves one that is there.
            half: store floating weights in float16, half the size. Loading gives float32 again.

        Raises:
            OSError: a file can't be written, for example to a full disk.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        state = cast(nn.Module, self).state_dict()
        tensors = {
            k: (v.half() if half and v.is_floating_point() else v).detach().cpu().contiguous() for k, v in state.items()
        }
        with replacing(target / WEIGHTS) as path:
            try:
                save_file(tensors, path, metadata={"format": "pt"})
            except SafetensorError as error:  # what a full disk comes as
                raise OSError(f"{target / WEIGHTS}: can't be written: {error}") from error
        with replacing(target / CONFIG) as path:
            path.write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        if card is not None or not (target / CARD).exists():
            with replacing(target / CARD) as path:
                path.write_text(card or short_card(), encoding="utf-8")


def read_card(name: str | os.PathLike[str]) -> str | None:
    """The model card of a bundled name or a local folder; `None` for any other name, or where there is none."""
    folder = bundled().get(str(name), Path(name))
    return (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None


def short_card() -> str:
    """The card of a network about whose making nothing is known."""
    return (
        "---\nlibrary_name: serank\npipeline_tag: image-segmentation\n---\n\n"
        "# SeRankDet checkpoint\n\n"
        'Load it with `serank.SeRankDet.from_pretrained("this folder or repository id")`.\n'
    )


def _locate(name: str | os.PathLike[str], **hub: Any) -> Path:
    """The folder that holds the checkpoint's files."""
    known = bundled()
    if isinstance(name, str) and name in known:
        return known[name]
    text, folder = os.fspath(name), Path(name)
    if text and folder.is_dir():
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                hint = f"; did you mean {folder / 'best'}?" if (folder / "best" / file).is_file() else ""
                raise CheckpointError(f"{folder}: no {file}; a checkpoint folder holds {CONFIG} and {WEIGHTS}{hint}")
        return folder
    # where the first part is a folder here, the rest of a path is missing, and asking the Hub would only take time
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or "\\" in text or folder.parent.is_dir():
        names = ", ".join(known) or "none"
        raise CheckpointError(
            f"{text!r} is no bundled checkpoint (bundled: {names}), no local folder and no Hub id (owner/name)"
        )
    return _download(text, **hub)


def _download(repo: str, **hub: Any) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        paths = [Path(hf_hub_download(repo, file, **hub)) for file in (CONFIG, WEIGHTS)]
    except (OSError, ValueError) as error:  # what huggingface_hub raises for ids, network and missing files
        raise CheckpointError(
            f"{repo}: neither a local folder nor a repository that could be downloaded: {error}"
        ) from error
    return paths[0].parent


def _read_config(file: Path, cls: type[Any]) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: can't be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: expected an object of constructor arguments, got {type(config).__name__}")
    known = set(signature(cls).parameters)
    if unknown := sorted(set(config) - known):
        raise CheckpointError(
            f"{file}: unknown entries {', '.join(unknown)}; {cls.__name__} takes {', '.join(sorted(known))}"
        )
    return config


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{file}: can't be read as safetensors: {error}") from error


def _load_strictly(model: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    expected = model.state_dict()
    wrong = [f"{k}: missing in file -> {tuple(v.shape)}" for k, v in expected.items() if k not in weights]
    wrong += [f"{k}: {tuple(v.shape)} -> not in model" for k, v in weights.items() if k not in expected]
    wrong += [
        f"{k}: {tuple(v.shape)} -> {tuple(expected[k].shape)}"
        for k, v in weights.items()
        if k in expected and v.shape != expected[k].shape
    ]
    if wrong:
        shown = wrong[:20] + ([f"and {len(wrong) - 20} more"] if len(wrong) > 20 else [])
        raise CheckpointError(
            f"{file}: {len(wrong)} entries don't fit the config (file -> model):\n  " + "\n  ".join(shown)
        )
    model.load_state_dict(weights)
