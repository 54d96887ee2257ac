"""Choosing the threshold for a false-alarm budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from serank.datasets.sample import Sample
from serank.evaluation.results import Curves
from serank.evaluation.runner import EvaluateOptions, evaluate
from serank.inference.detector import Detector

if TYPE_CHECKING:
    from typing_extensions import Unpack

Per = Literal["pixel", "frame"]

CANDIDATES = tuple(
    float(value)
    for value in np.unique(np.array([1 / (1 + math.exp(-step / 10)) for step in range(-100, 161)], np.float32))
)
"""Thresholds among which `choose_threshold` chooses: logits of -10, -9.9 to 16, rounded to float32 as scores are:
a tenth in odds from one to the next; above a logit of 12, where float32 itself is coarser, one or two of its steps."""


@dataclass(frozen=True, eq=False)
class ThresholdChoice:
    """A threshold in (0, 1), and its figures, as in `Curves`, on the set on which it was chosen."""

    threshold: float
    pd: float
    fa: float
    false_components: float
    curve: Curves
    """The same at every candidate."""


def budget_unit(false_alarms: float, per: Per) -> str:
    """What a budget of false alarms counts, in words; raises ValueError unless it is >= 0 and `per` is known."""
    if per not in get_args(Per):
        raise ValueError(f'per must be "pixel" or "frame"; got {per!r}')
    if not 0 <= false_alarms < math.inf:
        raise ValueError(f"false_alarms must be >= 0 and finite; got {false_alarms}")
    return "false pixels per pixel" if per == "pixel" else "false components per frame"


def pick_threshold(curve: Curves, *, false_alarms: float, per: Per = "pixel") -> ThresholdChoice:
    """Picks the threshold of the highest Pd among those that keep false alarms within a budget.

    Of several with the same Pd it takes the one nearest to 0.5 on the logit scale: a lower one adds nothing on this set
    and risks false alarms on another. The lowest that meets the budget is not the rule, because at very low thresholds
    false alarms merge into one component, few in number but over the targets too. Without targets there is no Pd: then
    it is the lowest threshold from which on all higher ones meet the budget, leaving aside any at the top that exceed
    it, and 0.5 where that would be lower.

    Args:
        curve: of `Evaluation.curves`, thresholds in any order; those of 0 and 1, which predict all or nothing, are left
            out.
        false_alarms: the budget, >= 0.
        per: `"pixel"` counts false pixels per pixel (Fa), `"frame"` false components per frame.

    Raises:
        ValueError: no threshold meets the budget, or an argument is out of its range.
    """
    unit = budget_unit(false_alarms, per)
    order = np.argsort(curve.thresholds, kind="stable")
    order = order[(curve.thresholds[order] > 0) & (curve.thresholds[order] < 1)]
    if not len(order):
        raise ValueError("curve has no threshold between 0 and 1")
    found = (curve.fa if per == "pixel" else curve.false_components)[order]
    meets, pd = found <= false_alarms, curve.pd[order]
    if not meets.any():
        raise ValueError(
            f"no threshold keeps false alarms within {false_alarms:g} {unit}: the fewest are {found.min():.3g}, above "
            f"{curve.thresholds[order[found.argmin()]]:.7g}; allow more, or train on more frames like these"
        )
    if np.isnan(pd).all():
        exceeding = np.flatnonzero(~meets[: np.flatnonzero(meets)[-1]])
        equals = np.arange(exceeding[-1] + 1 if len(exceeding) else 0, np.flatnonzero(meets)[-1] + 1)
    else:
        equals = np.flatnonzero(meets & (pd == pd[meets].max()))
    cuts = curve.thresholds[order[equals]]
    if np.isnan(pd).all():
        nearest = int(np.argmax(cuts >= min(0.5, cuts.max())))
    else:
        nearest = int(np.argmin(np.abs(np.log(cuts / (1 - cuts)))))
    i = int(order[equals[nearest]])
    return ThresholdChoice(
        threshold=float(curve.thresholds[i]),
        pd=float(curve.pd[i]),
        fa=float(curve.fa[i]),
        false_components=float(curve.false_components[i]),
        curve=curve,
    )


def choose_threshold(
    model: Detector,
    dataset: Sequence[Sample],
    *,
    false_alarms: float,
    per: Per = "pixel",
    **options: Unpack[EvaluateOptions],
) -> ThresholdChoice:
    """Chooses the threshold of the highest Pd that keeps false alarms on a validation set within a budget.

    It is one of `CANDIDATES`, picked as by `pick_threshold`, whose budget and errors these are; `options` are
    `max_distance`, `protocol`, `resolution`, `tta` and `progress` of `evaluate`. The model is left as it is;
    `model.threshold = choice.threshold` gives it the threshold. A budget below one false component over the whole set
    can't be told from none. The model must not have been trained on `dataset`.
    """
    result = evaluate(model, dataset, curves=True, thresholds=CANDIDATES, **options)
    assert result.curves is not None
    return pick_threshold(result.curves, false_alarms=false_alarms, per=per)
