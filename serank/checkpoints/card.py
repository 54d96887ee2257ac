"""The Hub's metadata at the head of a model card: licence, data sets and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["FIGURES", "LIBRARY", "TASK", "UNKNOWN", "Metadata", "Result", "front_matter", "read_metadata"]

LIBRARY = "serank"
TASK = "image-segmentation"
FIGURES = {"iou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa"}
"""Figures by their names in the metadata (all in [0, 1], as `DetectionMetrics.compute` gives them), with titles."""

UNKNOWN = "unknown"
"""Data set of figures whose card doesn't name it yet."""


@dataclass(frozen=True)
class Result:
    """Figures on one split of one data set.

    Attributes:
        data_set: its name.
        split: the part of it, empty if there is only one.
        figures: by the names of `FIGURES`; the standard protocol's.
    """

    data_set: str
    split: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Metadata:
    """What a card says in its metadata, nothing where it is silent.

    Attributes:
        library: the Hub's `library_name`.
        task: the Hub's `pipeline_tag`.
        licence: an identifier of the Hub's, such as `apache-2.0`.
        data_sets: what the weights were trained on.
        results: the Hub's `model-index`.
    """

    library: str = ""
    task: str = ""
    licence: str = ""
    data_sets: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()


def front_matter(
    name: str, results: Sequence[Result] = (), *, licence: str | None = None, data_sets: Sequence[str] = ()
) -> str:
    """The metadata of a network that serank trained.

    Args:
        name: of the model, for the Hub's lists of results.
        results: may be none.
        licence: of the weights, an identifier of the Hub's list; `None` leaves it to the user, as the next.
        data_sets: what the weights were trained on.

    Returns:
        A block of YAML between two lines of dashes.
    """
    from huggingface_hub import EvalResult, ModelCardData

    rows = [
        EvalResult(
            task_type=TASK,
            dataset_type=result.data_set,
            dataset_name=result.data_set,
            dataset_split=result.split or None,
            metric_type=key,
            metric_name=FIGURES[key],
            metric_value=value,
        )
        for result in results
        for key, value in result.figures.items()
    ]
    data = ModelCardData(
        license=licence,
        datasets=list(data_sets) or None,
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=["infrared", "small-target-detection", "serankdet"],
        model_name=name if rows else None,
        eval_results=rows or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def read_metadata(card: str) -> Metadata:
    """The metadata of a card.

    Args:
        card: text of a `README.md`.

    Raises:
        ValueError: it is no YAML, or not of the Hub's form.
    """
    from huggingface_hub import ModelCard, ModelCardData

    if not card.startswith("---"):
        return Metadata()
    try:
        data = cast(ModelCardData, ModelCard(card).data)
    except Exception as error:  # YAML's own, and many kinds for values of a wrong type
        raise ValueError(f"the metadata can't be read: {error}") from error
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for row in data.eval_results or []:
        figures = results.setdefault((str(row.dataset_name), str(row.dataset_split or "")), {})
        figures[str(row.metric_type)] = row.metric_value
    return Metadata(
        library=_text(data.library_name),
        task=_text(data.pipeline_tag),
        licence=_text(data.license),
        data_sets=tuple(
            filter(None, map(_text, data.datasets if isinstance(data.datasets, list) else [data.datasets]))
        ),
        results=tuple(Result(name, split, figures) for (name, split), figures in results.items()),
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
