"""Checks of a checkpoint folder before it is pushed to the Hub."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serank.checkpoints.card import LIBRARY, METRICS, TASK, UNKNOWN, Result, read_metadata
from serank.checkpoints.config_file import VERSION, known_arguments
from serank.checkpoints.folder import CARD, CONFIG, FILES, WEIGHTS
from serank.checkpoints.hub import check_repo_id, check_revision
from serank.errors import CheckpointError
from serank.inference.detector import predict
from serank.serankdet import SeRankDet

MAX_CARD = 2**20


def problems(root: Path, repo_id: str, revision: str) -> list[str]:
    """Lists what keeps a checkpoint from being published, each with the fix.

    It must load with finite weights, run on a frame, have a config that names every argument and the version, and a
    card with the Hub's metadata and metrics.
    `repo_id` and `revision` are checked for their form only; the Hub isn't asked.
    """
    found = [*_refusal(check_repo_id, repo_id), *_refusal(check_revision, revision)]
    return found + (_folder_problems(root) if root.is_dir() else [f"{root}: no such folder"])


def _refusal(check: Callable[[str], None], value: str) -> list[str]:
    try:
        check(value)
    except CheckpointError as error:
        return [str(error)]
    return []


def _folder_problems(root: Path) -> list[str]:
    found = []
    for file in FILES:
        if (root / file).is_symlink():  # what it points to may not be meant for others
            found.append(f"{file}: is a link; put the file itself there")
        elif not (root / file).is_file():
            found.append(f"{file}: missing; save_pretrained writes it")
    if found:
        run = (root / "best" / CONFIG).is_file()
        return [*found, f"did you mean {root / 'best'}, the checkpoint of this run?"] if run else found
    return _model_problems(root) + _card_problems(root / CARD)


def _model_problems(root: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # missing entries are reported below
            found = _run(SeRankDet.from_pretrained(root))
    except CheckpointError as error:
        found = [str(error)]
    try:
        entries = json.loads((root / CONFIG).read_text(encoding="utf-8"))
    except ValueError:  # loading has said so
        return found
    if missing := {VERSION, *known_arguments(SeRankDet)} - set(entries if isinstance(entries, dict) else ()):
        found.append(
            f"{CONFIG}: lacks {', '.join(sorted(missing))}; add them as they were in training, or save the network "
            "again with save_pretrained"
        )
    return found


def _run(model: SeRankDet) -> list[str]:
    """Runs the network on a frame with one target."""
    frame = np.zeros((96, 128), np.float32)
    frame[40:43, 60:63] = 1.0
    try:
        predict(model, [frame], model.frame_spec, channels=model.in_channels)
    except FloatingPointError as error:
        return [f"{WEIGHTS}: {error}; train it anew"]
    return []


def _card_problems(file: Path) -> list[str]:
    if file.stat().st_size > MAX_CARD:
        return [f"{CARD}: more than {MAX_CARD} bytes; shorten it"]
    try:
        card = read_metadata(file.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        return [f"{CARD}: {error}"]
    wanted = (
        ("library_name", card.library == LIBRARY, LIBRARY),
        ("pipeline_tag", card.task == TASK, TASK),
        ("license", card.licence, "apache-2.0"),  # an identifier of the Hub's list
        ("datasets", card.data_sets, "[NAME]"),  # what it was trained on
    )
    found = [
        f"{CARD}: no {key} in the metadata; between its two lines of dashes add a line such as `{key}: {example}`"
        for key, there, example in wanted
        if not there
    ]
    if not card.results:
        found.append(
            f"{CARD}: no metrics in the metadata; measure them with `serank evaluate` and add them as `model-index`"
        )
    return found + [problem for result in card.results for problem in _metric_problems(result)]


def _metric_problems(result: Result) -> list[str]:
    found = []
    if result.data_set in ("", UNKNOWN):
        found.append(
            f"{CARD}: metrics of an unknown data set; in `model-index` write `name` and `type` of its `dataset`"
        )
    for key in METRICS:
        value = result.metrics.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            given = "missing" if value is None else f"is {value!r:.40}"
            found.append(f"{CARD}: in the metrics on {result.data_set} {key} {given}; expected a number in [0, 1]")
    return found
