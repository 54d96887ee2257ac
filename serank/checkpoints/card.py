"""Model cards: their text, and the metadata in front of it that the Hub reads (licence, data sets, metrics)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

LIBRARY = "serank"
TASK = "image-segmentation"
METRICS = {"iou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa"}
"""Metrics by their names in the metadata, with titles; all in [0, 1], as `DetectionMetrics.compute` gives them."""

UNKNOWN = "unknown"
"""Data set of metrics whose card doesn't name it yet."""

INTRODUCTION = """# SeRankDet checkpoint

Load it with `serank.SeRankDet.from_pretrained("this folder or repository id")`.
"""


@dataclass(frozen=True)
class Result:
    """Metrics on one split of one data set.

    Attributes:
        data_set: name of the data set.
        split: name of the split, empty if there is only one.
        metrics: values by the names of `METRICS`, of the standard protocol.
    """

    data_set: str
    split: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Metadata:
    """Metadata of a card; an entry that the card lacks is empty.

    Attributes:
        library: the Hub's `library_name`.
        task: the Hub's `pipeline_tag`.
        licence: identifier in the Hub's list, such as `apache-2.0`.
        data_sets: names of the training data.
        results: entries of the Hub's `model-index`.
    """

    library: str = ""
    task: str = ""
    licence: str = ""
    data_sets: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()


def short_card() -> str:
    """Card of a network of unknown origin."""
    return f"---\nlibrary_name: {LIBRARY}\npipeline_tag: {TASK}\n---\n\n{INTRODUCTION}"


def front_matter(
    name: str, results: Sequence[Result] = (), *, licence: str | None = None, data_sets: Sequence[str] = ()
) -> str:
    """Metadata for the card of the network `name`, between two lines of dashes.

    Without `licence` (an identifier of the Hub's list) and `data_sets` (what the weights were trained on), users add
    these.
    """
    from huggingface_hub import EvalResult, ModelCardData

    rows = [
        EvalResult(
            task_type=TASK,
            dataset_type=result.data_set,
            dataset_name=result.data_set,
            dataset_split=result.split or None,
            metric_type=key,
            metric_name=METRICS[key],
            metric_value=value,
        )
        for result in results
        for key, value in result.metrics.items()
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
    """Parses the metadata of a card's text; raises ValueError where they are no YAML or not of the Hub's form."""
    from huggingface_hub import ModelCard, ModelCardData

    if not card.startswith("---"):
        return Metadata()
    try:
        data = cast(ModelCardData, ModelCard(card).data)
    except Exception as error:  # YAML's own, and many kinds for values of a wrong type
        raise ValueError(f"the metadata can't be read: {error}") from error
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for row in data.eval_results or []:
        metrics = results.setdefault((str(row.dataset_name), str(row.dataset_split or "")), {})
        metrics[str(row.metric_type)] = row.metric_value
    return Metadata(
        library=_text(data.library_name),
        task=_text(data.pipeline_tag),
        licence=_text(data.license),
        data_sets=tuple(
            filter(None, map(_text, data.datasets if isinstance(data.datasets, list) else [data.datasets]))
        ),
        results=tuple(Result(name, split, metrics) for (name, split), metrics in results.items()),
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
