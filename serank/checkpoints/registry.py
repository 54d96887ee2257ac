"""Table of the published checkpoints: where the weights of each name are, and what they were trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass

from serank.checkpoints.card import Result, read_metadata
from serank.checkpoints.folder import CARD, CONFIG, bundled


@dataclass(frozen=True)
class Published:
    """A name that `from_pretrained` knows.

    Attributes:
        name: as given to `from_pretrained`.
        data_sets: training data; of a name without weights, what they would be trained on.
        repo_id: Hub repository; `None` for bundled weights and for names without weights.
        revision: commit of that repository.
        width: width of the network.
        licence: licence of the weights.
        results: metrics, one entry a split.
        bundled: whether the weights come with the package.
    """

    name: str
    data_sets: tuple[str, ...]
    repo_id: str | None = None
    revision: str | None = None
    width: int | None = None
    licence: str | None = None
    results: tuple[Result, ...] = ()
    bundled: bool = False

    @property
    def source(self) -> str:
        """Where the weights are: `"bundled"`, `"Hub"` or `"none"`."""
        return "bundled" if self.bundled else "Hub" if self.repo_id else "none"


OTHERS: dict[str, Published] = {row.name: row for row in (Published("sirstaug", ("SIRST-AUG",)),)}
"""Names that aren't bundled: data sets of the paper without published weights, and checkpoints on the Hub (rows with
`repo_id` and `revision`). Bundled checkpoints need no row; they are the folders in `serank/weights`."""


def published() -> dict[str, Published]:
    """All names that `from_pretrained` knows; rows of bundled checkpoints are read from their card and config.

    Raises:
        ValueError: a bundled card's metadata can't be read.
    """
    rows = {}
    for name, folder in bundled().items():
        card = read_metadata((folder / CARD).read_text(encoding="utf-8"))
        rows[name] = Published(
            name,
            card.data_sets,
            width=json.loads((folder / CONFIG).read_text(encoding="utf-8"))["width"],
            licence=card.licence,
            results=card.results,
            bundled=True,
        )
    return rows | {name: row for name, row in OTHERS.items() if name not in rows}


def no_weights(row: Published) -> str:
    """Error message for a name without published weights: how to train or convert them."""
    data = " and ".join(row.data_sets)
    return (
        f"{row.name!r}: no weights are published for {data}. Train them with the paper's recipe, `serank train "
        f"path/to/data --preset paper-{row.name} --output runs/{row.name}`, and load 'runs/{row.name}/best'; "
        f"or convert the authors' checkpoint, `serank convert path/to/checkpoint.pth.tar checkpoints/{row.name}`"
    )
