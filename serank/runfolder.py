"""The folder of a training: its state, its log, its pictures and its best checkpoint. Process 0 alone writes."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from serank.card import training_card
from serank.distributed import from_main, is_main
from serank.errors import CheckpointError
from serank.files import replacing
from serank.network import SeRankDet
from serank.recipe import Recipe

__all__ = ["RunFolder"]

STATE = "last.pt"


class RunFolder:
    """Reads and writes what a training leaves behind, each file whole or not at all.

    Args:
        path: the folder, made if it doesn't exist.
        resume: whether a run that is there may be gone on with.
        tensorboard: write event files too.

    Raises:
        ValueError: the folder holds a run and `resume` is not set; `tensorboard` without the package.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool, tensorboard: bool) -> None:
        self.path = Path(path)
        self.last = self.path / STATE
        if self.last.exists() and not resume:
            raise ValueError(
                f"output {str(self.path)!r} holds a run already; pass resume=True (--resume) or choose another folder"
            )
        if tensorboard and find_spec("tensorboard") is None:
            raise ValueError("tensorboard is not installed; run: pip install 'serank[tensorboard]'")
        self.tensorboard = tensorboard
        if is_main():
            self.path.mkdir(parents=True, exist_ok=True)
            for leftover in self.path.glob(f".{self.last.stem}-*{self.last.suffix}"):  # of a run killed while saving
                leftover.unlink(missing_ok=True)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state written last, or `None` if there is none; every process gets the one that process 0 reads.

        Raises:
            CheckpointError: the file can't be read.
        """
        state: dict[str, Any] | None = None
        failure = ""
        if is_main() and self.last.exists():
            try:
                state = torch.load(self.last, map_location="cpu", weights_only=True)
            except Exception as error:  # damaged files raise many kinds, struct.error and pickle's own among them
                failure = f"{self.last}: can't be read: {error}"
        if failure := from_main(failure):
            raise CheckpointError(failure)
        state = from_main(state)
        return None if state is None else {k: _to(v, device) for k, v in state.items()}

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the state.

        Raises:
            OSError: it can't be written; the one before is left as it was.
        """
        if not is_main():
            return
        try:
            with replacing(self.last) as path:
                torch.save(dict(state), path)
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises RuntimeError where the disk is full
            if self.last.exists():
                left = f"the one written before is whole; free some space and go on with resume ({self.last})"
            else:
                left = "none was written yet"
            reason = str(error).splitlines()[0]
            raise OSError(f"{self.last}: can't write the checkpoint: {reason}; {left}") from error

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes the history as `log.csv`, and its last row for TensorBoard if that was asked for."""
        if not is_main():
            return
        fields = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(self.path / "log.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(self.path / "tensorboard")) as events:
                for name, value in rows[-1].items():
                    if name != "epoch":
                        group = "train" if name in ("loss", "gradient", "learning_rate", "seconds") else "val"
                        events.add_scalar(f"{group}/{name}", value, int(rows[-1]["epoch"]))

    def keep(self, model: SeRankDet, recipe: Recipe, row: Mapping[str, float]) -> None:
        """Writes the checkpoint `best/`, with a card that says how it was made."""
        if is_main():
            model.save_pretrained(self.path / "best", card=training_card(model.config, recipe, row))

    def finish(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Draws `curves.png`, if matplotlib is there."""
        if is_main() and find_spec("matplotlib") is not None:
            from serank.figures import save_figure, training_curves

            save_figure(training_curves(rows), self.path / "curves.png")


def _to(value: Any, device: torch.device) -> Any:
    """`value` with its tensors on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {k: _to(v, device) for k, v in value.items()}
    return value
