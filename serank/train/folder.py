"""The output folder of a training: state, log, figure and best checkpoint. Process 0 alone writes."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from serank.checkpoints.folder import CARD, CONFIG, WEIGHTS
from serank.errors import CheckpointError
from serank.serankdet import SeRankDet
from serank.train.card import training_card
from serank.train.recipe import Recipe
from serank.utils.digest import content_digest
from serank.utils.distributed import from_main, is_main
from serank.utils.files import remove_leftovers, replacing, writable_folder
from serank.utils.one_run import only_run

STATE = "last.pt"
LOG = "log.csv"
CURVES = "curves.png"
BEST = "best"
CHECKSUM = "checksum"
ENTRIES: dict[str, type] = {
    "setup": dict,
    "epoch": int,
    "step": int,
    "sums": dict,
    "skipped": int,
    "model": dict,
    "ema": dict,
    "best_state": dict,
    "optimizer": dict,
    "scaler": dict,
    "rows": list,
    "best": dict,
    CHECKSUM: str,
}
"""Entries of a state and their types."""
TRAINING_COLUMNS = ("loss", "grad_norm", "lr", "seconds", "waiting")
"""Columns of the log that are no validation metrics."""


def make_run_folder(path: str | os.PathLike[str]) -> None:
    """Makes the folder of a run and writes to it, in process 0; all processes know the result.

    Raises:
        OSError: it can't be made or written to.
    """
    failure = ""
    if is_main():
        try:
            writable_folder(path)
        except OSError as error:
            failure = str(error)
    if failure := from_main(failure):
        raise OSError(failure)


class RunFolder:
    """Reads and writes the files of a training, each one atomically; within `with`, which keeps other runs out.

    Temporary files of a killed run are removed at its start.

    Args:
        path: the folder, created if it doesn't exist.
        resume: whether a run in it may be continued.
        tensorboard: write event files too.
        licence: of the weights, for the card of `best/`.
        data_sets: what is trained on, likewise.

    Raises:
        ValueError: the folder holds a run and `resume` is not set; `tensorboard` without the package.
        OSError: the folder can't be made or written to; on entry, `BlockingIOError`: another run holds it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume: bool,
        tensorboard: bool,
        licence: str | None = None,
        data_sets: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.licence = licence
        self.data_sets = tuple(data_sets)
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
        make_run_folder(self.path)
        self._held = ExitStack()

    def __enter__(self) -> RunFolder:
        self._held.enter_context(only_run(self.path, ".train.lock", self._remove_leftovers))
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def _remove_leftovers(self) -> None:
        for name in (STATE, LOG, CURVES, *(f"{BEST}/{file}" for file in (WEIGHTS, CONFIG, CARD))):
            remove_leftovers(self.path / name)

    def load(self) -> dict[str, Any] | None:
        """The last state, on the CPU, or `None` without one; process 0 reads it and sends it to the others.

        Raises:
            CheckpointError: the file can't be read, is no state of a training, or doesn't match its checksum.
        """
        state: dict[str, Any] | None = None
        failure = ""
        if is_main() and self.last.exists():
            try:
                state = torch.load(self.last, map_location="cpu", weights_only=True)
                if wrong := _defect(state):
                    failure = f"{self.last}: can't be read: {wrong}"
            except Exception as error:  # damaged files raise many kinds, struct.error and pickle's own among them
                failure = f"{self.last}: can't be read: {error}"
        if failure := from_main(failure):
            raise CheckpointError(failure)
        return from_main(state)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the state, with a checksum of its content.

        Raises:
            OSError: it can't be written; the one before is left as it was.
        """
        if not is_main():
            return
        try:
            with replacing(self.last) as path:
                torch.save({**state, CHECKSUM: content_digest(state)}, path)
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises RuntimeError where the disk is full
            if self.last.exists():
                left = f"the one written before is whole; free some space and resume from it ({self.last})"
            else:
                left = "none was written yet"
            reason = str(error).splitlines()[0]
            raise OSError(f"{self.last}: can't write the checkpoint: {reason}; {left}") from error

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes the history as `log.csv`, and for TensorBoard if that was asked for."""
        if not is_main():
            return
        fields = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(self.path / LOG) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)
        if self.tensorboard:
            self._log_events(rows)

    def _log_events(self, rows: Sequence[Mapping[str, float]]) -> None:
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            # all rows are written again, and those of an earlier process hidden
            self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=1)
        for row in rows[self._written :]:
            for name, value in row.items():
                if name != "epoch":
                    group = "train" if name in TRAINING_COLUMNS else "val"
                    self._events.add_scalar(f"{group}/{name}", value, int(row["epoch"]))
        self._written = len(rows)
        self._events.flush()

    def keep(self, model: SeRankDet, recipe: Recipe, row: Mapping[str, float], origin: Sequence[str] = ()) -> None:
        """Writes the checkpoint `best/` with its model card."""
        if is_main():
            card = training_card(model.config, recipe, row, origin, licence=self.licence, data_sets=self.data_sets)
            model.save_pretrained(self.path / BEST, card=card)

    def finish(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes the history once more and draws `curves.png`, if matplotlib is installed."""
        self.log(rows)
        if self._events is not None:
            self._events.close()
        if is_main() and find_spec("matplotlib") is not None:
            from serank.evaluation.report.figures import save_figure, training_figure

            save_figure(training_figure(rows), self.path / CURVES)


def _defect(state: object) -> str:
    """Why `state` is none that `RunFolder.save` wrote; empty for one that is."""
    if not isinstance(state, dict):
        return f"no state of a training, it is a {type(state)}"
    if missing := sorted(ENTRIES.keys() - state.keys()):
        return f"no state of a training, it lacks {', '.join(missing)}"
    for name, kind in ENTRIES.items():
        if not isinstance(state[name], kind) or isinstance(state[name], bool):
            return f"{name} must be of type {kind.__name__}; got {type(state[name]).__name__}"
    if state[CHECKSUM] != content_digest({name: value for name, value in state.items() if name != CHECKSUM}):
        return "its content doesn't match its checksum, so the file is damaged; start again from best/"
    return ""
