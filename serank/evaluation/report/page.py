"""Renders `index.html` of a report from the template `page.html`."""

from __future__ import annotations

from importlib.resources import files

from serank.evaluation.report.pictures import Gallery, worst_false_alarms, worst_misses
from serank.evaluation.results import Evaluation

__all__ = ["render_page"]

AUC_UNIT = 5e-6  # half of the last digit shown of the AUC; smaller errors are not mentioned
PROTOCOLS = {
    "standard": "Targets and predicted components are matched one to one, the nearest pairs first",
    "released": "The arithmetic of the code released with SeRankDet, for comparing with published tables: targets are "
    "matched in scan order, and false components as large as a matched one of their frame are left out of Fa",
}


def render_page(evaluation: Evaluation, pictures: Gallery, origin: str) -> str:
    """Renders the page.

    Args:
        evaluation: what was measured.
        pictures: what was drawn, its paths relative to the page.
        origin: when and with what the report was written, for the foot of the page.

    Returns:
        HTML that refers to nothing outside of the report's folder; all text of others is escaped.
    """
    # imported here: only reports need it
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        title="Evaluation" + (f" of {evaluation.about['checkpoint']}" if "checkpoint" in evaluation.about else ""),
        evaluation=evaluation,
        pictures=pictures,
        protocol=PROTOCOLS[evaluation.protocol],
        misses=worst_misses(evaluation, len(evaluation.targets)),
        false_alarms=worst_false_alarms(evaluation, len(evaluation.frames)),
        auc_unit=AUC_UNIT,
        origin=origin,
    )
