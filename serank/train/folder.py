"""The folder of a training: its state, its log, its pictures and its best checkpoint. Process 0 alone writes."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from serank.errors import CheckpointError
from serank.serankdet import SeRankDet
from serank.train.card import training_card
from serank.train.recipe import Recipe
from serank.utils.distributed import from_main, is_main
from serank.utils.files import replacing

__all__ = ["RunFolder"]

STATE = "last.pt"
BEST = "best"
KEYS = {"setup", "epoch", "step", "sums", "model", "average", "best_state", "optimizer", "scaler", "rows", "best"}
"""What a state must have at least to be one of ours."""


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
        self._events: Any = None
        self._written = 0
        if is_main():
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / BEST):  # what a run that was killed while writing left there
                for leftover in folder.glob(".*-*.*"):
                    if leftover.suffix in (".pt", ".csv", ".png", ".safetensors", ".json", ".md"):
                        leftover.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The state written last, on the CPU, or `None`; every process gets the one that process 0 reads.

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
            else:
                if not isinstance(state, dict) or (missing := sorted(KEYS - set(state))):
                    what = f"it lacks {', '.join(missing)}" if isinstance(state, dict) else f"it is a {type(state)}"
                    failure = f"{self.last}: can't be read: no state of a training, {what}"
        if failure := from_main(failure):
            raise CheckpointError(failure)
        return from_main(state)

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
        """Writes the history as `log.csv`, and for TensorBoard if that was asked for."""
        if not is_main():
            return
        fields = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(self.path / "log.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)
        if self.tensorboard:
            self._log_events(rows)

    def _log_events(self, rows: Sequence[Mapping[str, float]]) -> None:
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            # all rows are written anew, and those of a run before this one hidden
            self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=1)
        for row in rows[self._written :]:
            for name, value in row.items():
                if name != "epoch":
                    group = "train" if name in ("loss", "gradient", "learning_rate", "seconds", "waiting") else "val"
                    self._events.add_scalar(f"{group}/{name}", value, int(row["epoch"]))
        self._written = len(rows)
        self._events.flush()

    def keep(self, model: SeRankDet, recipe: Recipe, row: Mapping[str, float], origin: Sequence[str] = ()) -> None:
        """Writes the checkpoint `best/`, with a card that says how it was made."""
        if is_main():
            model.save_pretrained(self.path / BEST, card=training_card(model.config, recipe, row, origin))

    def finish(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes the history once more and draws `curves.png`, if matplotlib is there."""
        if rows:
            self.log(rows)
        if self._events is not None:
            self._events.close()
        if is_main() and find_spec("matplotlib") is not None:
            from serank.evaluation.report.figures import save_figure, training_curves

            save_figure(training_curves(rows), self.path / "curves.png")
