"""The page of a report: one HTML file that needs no network, light or dark as the reader's system is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from serank.evaluation.report.pictures import Gallery, worst_false_alarms, worst_misses
from serank.evaluation.results import Evaluation, Group

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1f; --soft: #63636b; --line: #dcdce2; --link: #0058a3; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16161a; --ink: #e8e8ec; --soft: #a0a0aa; --line: #37373f; --link: #7cc0f5; }
}
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0.5rem 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; }
p { margin: 0.4rem 0; max-width: 52rem; } a { color: var(--link); } .soft { color: var(--soft); }
table { border-collapse: collapse; font-size: 0.92rem; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th button { all: unset; cursor: pointer; text-decoration: underline dotted; }
th button:focus-visible { outline: 2px solid var(--link); }
img { display: block; max-width: 100%; height: auto; margin: 0.6rem 0; border-radius: 4px; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.pair > * { flex: 1 1 24rem; min-width: 0; max-width: 44rem; }
ol, ul { padding-left: 1.6rem; }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    let direction = -1;
    button.addEventListener("click", () => {
      direction = -direction;
      const value = (row) => row.cells[column].textContent;
      const compare = head.classList.contains("n")
        ? (a, b) => Number(value(a)) - Number(value(b))
        : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => direction * compare(a, b)));
    });
  });
}
"""

AUC_UNIT = 5e-6
"""Half of the last digit shown."""
PROTOCOLS = {
    "standard": "targets and predicted components are matched one to one, the nearest pairs first",
    "released": "the arithmetic of the code released with SeRankDet, for comparing with published tables: targets are "
    "matched in scan order, and false components as large as a matched one of their frame are left out of Fa",
}


def page(evaluation: Evaluation, pictures: Gallery, made: str) -> str:
    """The HTML of `index.html`.

    Args:
        evaluation: what was measured.
        pictures: what was drawn, its paths relative to the page.
        made: when and with what, for the foot of the page.
    """
    title = "Evaluation" + (f" of {evaluation.about['checkpoint']}" if "checkpoint" in evaluation.about else "")
    body = [
        f"<h1>{escape(title)}</h1>",
        _about(evaluation),
        _problems(evaluation.problems),
        "<h2>Figures of the set</h2>",
        _figures_table(evaluation),
        "<h2>How it was measured</h2>",
        _settings(evaluation),
        "<h2>By size and by signal-to-clutter ratio</h2>",
        _groups(evaluation, pictures),
        "<h2>Curves</h2>",
        _curves(evaluation, pictures),
        "<h2>Worst misses</h2>",
        _misses(evaluation, pictures),
        "<h2>Worst false alarms</h2>",
        _alarms(evaluation, pictures),
        "<h2>Response surfaces</h2>",
        _surfaces(pictures),
        "<h2>Ranked points</h2>",
        _ranked(pictures),
        "<h2>Frames</h2>",
        _frames(evaluation, pictures),
        f'<p class="soft">{escape(made)}</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[bool], kind: str = "") -> str:
    """A table; `rows` hold the cells' HTML, names escaped, and `numbers` tells which columns align right."""

    def cells(row: Sequence[str]) -> str:
        return "".join(
            f'<td class="n">{cell}</td>' if is_number else f"<td>{cell}</td>"
            for cell, is_number in zip(row, numbers, strict=True)
        )

    heads = "".join(
        f'<th class="n">{escape(name)}</th>' if is_number else f"<th>{escape(name)}</th>"
        for name, is_number in zip(head, numbers, strict=True)
    )
    lines = "\n".join(f"<tr>{cells(row)}</tr>" for row in rows)
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="wide">{opening}<thead><tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'


def _number(value: float, digits: int) -> str:
    return "not defined" if math.isnan(value) else f"{value:.{digits}f}"


def _image(path: str, text: str) -> str:
    return f'<a href="{escape(path)}"><img src="{escape(path)}" alt="{escape(text)}" loading="lazy"></a>'


def _about(evaluation: Evaluation) -> str:
    rows = [(escape(key), escape(value)) for key, value in evaluation.about.items()]
    files = (
        '<p class="soft">The same as data: <a href="report.json">report.json</a>, <a href="frames.csv">frames.csv</a>, '
        '<a href="targets.csv">targets.csv</a>.</p>'
    )
    return (_table(("about", ""), rows, numbers=(False, False)) if rows else "") + files


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return "<h2>Problems</h2>\n<p>None.</p>"
    listed = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f"<h2>Problems ({len(problems)})</h2>\n<ul>{listed}</ul>"


def _figures_table(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    standard = evaluation.protocol == "standard"
    empty_frames = [score for score in evaluation.frames if not score.targets]
    empty_false = sum(score.false_components for score in empty_frames)
    fa_note = "" if standard else " Components as large as a matched one of their frame are left out."
    rows = [
        (
            "IoU",
            _number(metrics["iou"], 4),
            "Pixels both predicted and target over pixels of either, of the whole set.",
        ),
        (
            "nIoU",
            _number(metrics["niou"], 4),
            f"Mean of each frame's IoU; a frame without predicted and target pixels counts {1 if standard else 0}.",
        ),
        ("Precision", _number(metrics["precision"], 4), "Share of predicted pixels that are target."),
        ("Recall", _number(metrics["recall"], 4), "Share of target pixels that are predicted."),
        ("F1", _number(metrics["f1"], 4), "Harmonic mean of precision and recall."),
        (
            "Pd",
            _number(metrics["pd"], 4),
            f"Share of targets with a predicted component whose centroid lies less than {evaluation.max_distance:g} px "
            "from their own.",
        ),
        (
            "Fa",
            f"{metrics['fa'] * 1e6:.2f} &times; 10<sup>&minus;6</sup>",
            f"Pixels of predicted components that match no target, over all pixels.{fa_note}",
        ),
        ("False components", f"{metrics['false_components']:.3f}", "Unmatched predicted components per frame."),
        (
            "False components, target-free",
            _number(empty_false / len(empty_frames) if empty_frames else math.nan, 3),
            f"The same, over the {len(empty_frames)} frames without a target.",
        ),
        ("Frames", f"{len(evaluation.frames)}", "How many were measured."),
        ("Targets", f"{len(evaluation.targets)}", "8-connected components of the masks."),
    ]
    if evaluation.curves is not None:
        error = evaluation.curves.auc_error
        note = f" It is off by {error:.1g} at most." if error > AUC_UNIT else ""
        rows.insert(7, ("AUC", _number(evaluation.curves.auc, 5), f"Area under the ROC of pixels.{note}"))
    note = "" if evaluation.targets else "<p>No frame of the set holds a target: Pd and recall are not defined.</p>"
    return note + _table(("figure", "value", "definition"), rows, numbers=(False, True, False))


def _settings(evaluation: Evaluation) -> str:
    native = evaluation.resolution == "native"
    rows = [
        ("Protocol", escape(evaluation.protocol), escape(PROTOCOLS[evaluation.protocol].capitalize()) + "."),
        (
            "Resolution",
            escape(evaluation.resolution),
            "Each frame at its own size."
            if native
            else f"Frames and masks resized to {escape(evaluation.resolution)} px first.",
        ),
        ("Threshold", f"{evaluation.threshold:g}", "A pixel is predicted where its probability is above this."),
        ("Distance", f"{evaluation.max_distance:g} px", "Centroids of a match are less than this apart."),
    ]
    return _table(("setting", "value", "meaning"), rows, numbers=(False, True, False))


def _groups(evaluation: Evaluation, pictures: Gallery) -> str:
    def one(kind: str, name: str, groups: Sequence[Group], missing: str) -> str:
        if kind not in pictures.of_set:
            return f"<div><p>By {name}: none, {missing}.</p></div>"
        rows = [
            (escape(g.label), f"{g.detected}", f"{g.targets}", f"{g.pd:.3f}" if g.targets else "no target")
            for g in groups
        ]
        table = _table((name, "detected", "targets", "Pd"), rows, numbers=(False, True, True, True))
        return f"<div>{table}{_image(pictures.of_set[kind], f'Pd by {name}')}</div>"

    no_scr = "the set holds no target" if not evaluation.targets else "it is known for no target"
    return (
        '<p class="soft">Area: pixels of the target in the mask. Signal-to-clutter ratio: peak on the target less '
        "the mean of its local background, over that background's standard deviation.</p>"
        f'<div class="pair">{one("size", "area", evaluation.by_area, "the set holds no target")}'
        f"{one('scr', 'ratio', evaluation.by_scr, no_scr)}</div>"
    )


def _curves(evaluation: Evaluation, pictures: Gallery) -> str:
    if evaluation.curves is None:
        return "<p>None: they were not asked for.</p>"
    parts = []
    for kind, name in (("roc", "pixel ROC"), ("pd_fa", "Pd over Fa")):
        if kind in pictures.of_set:
            parts.append(_image(pictures.of_set[kind], f"curve: {name}"))
        else:
            parts.append(f"<p>{name}: none, the set lacks targets or background.</p>")
    return f'<div class="pair">{"".join(parts)}</div>'


def _link(name: str, pictures: Gallery) -> str:
    if name not in pictures.overlays:
        return escape(name)
    return f'<a href="{escape(pictures.overlays[name])}">{escape(name)}</a>'


def _gallery(paths: Mapping[str, str], kind: str, pictures: Gallery) -> str:
    """Pictures of frames, each below the frame's name and why it was chosen."""
    return "".join(
        f"<p>{_link(name, pictures)}: {escape(pictures.chosen[name])}</p>{_image(path, f'{kind} of {name}')}"
        for name, path in paths.items()
    )


def _misses(evaluation: Evaluation, pictures: Gallery) -> str:
    missed = worst_misses(evaluation, len(evaluation.targets))
    if not missed:
        every = "every target was detected" if evaluation.targets else "the set holds no target"
        return f"<p>None: {every}.</p>"
    shown = missed[: pictures.worst]
    listed = "".join(
        f"<li>{_link(t.frame, pictures)}: x {t.x:.1f}, y {t.y:.1f}, {t.area} px, probability {t.probability:.3f}</li>"
        for t in shown
    )
    return (
        f"<p>{len(shown)} of {len(missed)} undetected targets, lowest probability on the target first, then the larger "
        "first. Left the frame, its contrast stretched within the crop; right the probability, black 0 to white 1.</p>"
        f"{_image(pictures.of_set['misses'], 'crops around missed targets')}<ol>{listed}</ol>"
    )


def _alarms(evaluation: Evaluation, pictures: Gallery) -> str:
    wrong = worst_false_alarms(evaluation, len(evaluation.frames))
    if not wrong:
        return "<p>None: every predicted component belongs to a target.</p>"
    shown = wrong[: pictures.worst]
    listed = "".join(
        f"<li>{_link(s.name, pictures)}: {s.false_pixels} px in {s.false_components} components</li>" for s in shown
    )
    sheet = (
        _image(pictures.of_set["false_alarms"], "crops around false alarms")
        if "false_alarms" in pictures.of_set
        else ""
    )
    return (
        f"<p>{len(shown)} of {len(wrong)} frames with false components, most false pixels first; each crop shows the "
        f"largest of its frame.</p>{sheet}<ol>{listed}</ol>"
    )


def _surfaces(pictures: Gallery) -> str:
    return (
        "<p>Each cell of a surface is the largest value of its block of pixels, so that small targets keep their "
        "height.</p>" + _gallery(pictures.surfaces, "surface", pictures)
    )


def _ranked(pictures: Gallery) -> str:
    if not pictures.ranked:
        return "<p>None: they need the network, with layers that rank points, and the frames.</p>"
    return (
        "<p>At each level of the encoder every channel ranks its K strongest points, from which SeRank computes the "
        "attention between channels. The colour tells how many channels ranked a point.</p>"
        + _gallery(pictures.ranked, "ranked points", pictures)
    )


def _frames(evaluation: Evaluation, pictures: Gallery) -> str:
    rows = [
        (
            _link(s.name, pictures),
            f"{s.width} &times; {s.height}",
            f"{s.iou:.4f}",
            f"{s.targets}",
            f"{s.detected}",
            f"{s.false_components}",
            f"{s.false_pixels}",
            f"{s.peak:.3f}",
        )
        for s in evaluation.frames
    ]
    head = ("frame", "size, px", "IoU", "targets", "detected", "false components", "false px", "peak probability")
    note = ""
    if pictures.overlays:
        note = (
            "Names lead to the frame with its outlines: detected targets yellow, missed ones orange in a ring, matched "
            "predictions blue, false ones pink in a diamond; equal outlines alternate. "
        )
    return f'<p class="soft">{note}A click on a head sorts.</p>' + _table(
        head, rows, numbers=(False, False, True, True, True, True, True, True), kind="sortable"
    )
