"""The table of published checkpoints: what a name stands for, and what there is to know of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from serank.checkpoints.card import Result, read_metadata

__all__ = ["OTHERS", "Published", "no_weights", "published"]


@dataclass(frozen=True)
class Published:
    """A name that `from_pretrained` knows.

    Attributes:
        name: as given to `from_pretrained`.
        data_sets: what the weights were, or would be, trained on.
        repo_id: where they are on the Hub; `None` for bundled ones, and where no weights are published.
        revision: the commit there that the name stands for.
        width: of the network.
        licence: of the weights.
        results: figures, each on one split.
        bundled: whether they come with the package.
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


OTHERS: dict[str, Published] = {
    row.name: row
    for row in (
        Published("irstd1k", ("IRSTD-1k",)),
        Published("sirstaug", ("SIRST-AUG",)),
        Published("nudt-sirst", ("NUDT-SIRST",)),
    )
}
"""Names that aren't bundled: the paper's other data sets, for which no weights are published, and what is on the Hub
(a row with `repo_id` and the commit). A bundled checkpoint needs no row, its folder in `serank/weights` is one."""


def published() -> dict[str, Published]:
    """All names that `from_pretrained` knows; of the bundled ones, what their own files say.

    Raises:
        ValueError: a bundled card's metadata can't be read.
    """
    from serank.checkpoints.pretrained import CARD, CONFIG, bundled

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
    """What to say to whoever asks for a name without weights."""
    data = " and ".join(row.data_sets)
    return (
        f"{row.name!r}: no weights are published for {data}. Train them with the paper's recipe, "
        f"`serank train path/to/data --preset {row.name} --output runs/{row.name}`, and load 'runs/{row.name}/best'; "
        f"or convert the authors' checkpoint, `serank convert path/to/checkpoint.pth.tar checkpoints/{row.name}`"
    )
