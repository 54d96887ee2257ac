"""Figures of curves and groups, drawn with matplotlib's objects alone: no pyplot, no window, no global state.

matplotlib is an extra, `pip install 'serank[report]'`, imported by the functions that draw.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serank.evaluation.report.canvas import printable
from serank.evaluation.results import Curves, ScoreQuality
from serank.metrics.boxes import BoxCurve
from serank.metrics.groups import Group
from serank.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]

# Okabe and Ito's colours, which readers with colour-blindness can tell apart
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
MAX_MARKERS = 64  # curves of more points are drawn without markers
LABEL_SPACING = 0.13  # of the axes' size, between thresholds that are written beside a curve
DPI = 120
SHARES = (-0.03, 1.03)  # limits of an axis of shares


def require_matplotlib() -> None:
    """Raises ImportError, which says how to install it, where matplotlib can't be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"figures need matplotlib, which can't be imported ({error}); run: pip install 'serank[report]'"
        ) from error


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure, whole or not at all, in the format of the suffix, such as `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: the suffix is no format of matplotlib's.
        FileNotFoundError: the folder doesn't exist.
    """
    target = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix.lower().lstrip(".") not in known:
        raise ValueError(f"path {str(target)!r} has no known suffix; use .png, .svg or .pdf")
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=DPI)


def roc_figure(curves: Curves) -> Figure:
    """Pixel ROC twice, with a linear and a logarithmic false positive rate; raises ValueError if every rate is NaN."""
    figure = new_figure(9.0, 4.2)
    linear, logarithmic = figure.subplots(1, 2, sharey=True)
    fpr, tpr, _ = _finite(curves.fpr, curves.tpr, curves.thresholds)
    order = np.lexsort((tpr, fpr))
    marker = "o" if len(fpr) <= MAX_MARKERS else None
    linear.plot(fpr[order], tpr[order], color=BLUE, marker=marker, markersize=3.5)
    linear.set(xlim=(-0.02, 1.02), xlabel="false positive rate, false pixels / background pixels")
    linear.set(ylim=(-0.02, 1.02), ylabel="true positive rate, found / target pixels")
    linear.set_title("pixel ROC" if np.isnan(curves.auc) else f"pixel ROC, area {curves.auc:.4f}")
    _log_curve(logarithmic, fpr[order], tpr[order])
    label = "false positive rate, logarithmic" + ("; hollow: 0" if (fpr == 0).any() else "")
    logarithmic.set(xlabel=label, title="the same, small rates spread out")
    return figure


def pd_fa_figure(curves: Curves, *, operating: tuple[float, float, float] | None = None) -> Figure:
    """Pd over Fa, Fa logarithmic, thresholds written beside some of the points.

    A threshold of 0, above which nearly every pixel of a network's output lies, is left out unless it is the only one.
    `operating` is threshold, Pd and Fa of a point to mark. Raises ValueError where every value is NaN.
    """
    point = operating and (operating[0], operating[1], operating[2] * 1e6)
    figure = _pd_figure(curves.pd, curves.fa * 1e6, curves.thresholds, point, "Fa, false pixels per million pixels")
    figure.axes[0].set(ylabel="Pd, detected / all targets", title="Pd over Fa; small figures are thresholds")
    return figure


def box_figure(curve: BoxCurve, *, operating: tuple[float, float, float] | None = None) -> Figure:
    """Pd of boxes over false components a frame, drawn, and raising, as `pd_fa_figure` does."""
    figure = _pd_figure(curve.pd, curve.false_components, curve.thresholds, operating, "false components per frame")
    figure.axes[0].set(ylabel="Pd, found / all boxes", title="Pd over false components; small figures are thresholds")
    return figure


def _pd_figure(
    pd: Float, false: Float, levels: Float, operating: tuple[float, float, float] | None, label: str
) -> Figure:
    """Pd over some measure of false alarms, `label`, see `pd_fa_figure`."""
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    false, pd, thresholds = _finite(false, pd, levels)
    order = np.argsort(thresholds, kind="stable")
    if thresholds.max() > 0:
        order = order[thresholds[order] > 0]
    false, pd, thresholds = false[order], pd[order], thresholds[order]
    shown = _log_curve(axes, false, pd)
    last: tuple[float, float] | None = None
    spread = np.log10(np.maximum(shown, 1e-300))
    places = spread / (np.ptp(spread) or 1.0)
    for x, y, place, threshold in zip(shown, pd, places, thresholds, strict=True):
        position = (float(place), float(y))
        # a threshold is written only where it is clear of the previous one
        if last is None or np.hypot(position[0] - last[0], position[1] - last[1]) > LABEL_SPACING:
            offset = (5, -11) if y > LABEL_SPACING / 2 else (5, 3)  # not across the lower edge
            _note(axes, _format_threshold(threshold), (x, y), offset, fontsize=7, color=GREY)
            last = position
    if operating is not None and np.isfinite(operating[1:]).all():
        threshold, y, x = operating
        used = f"threshold in use, {_format_threshold(threshold)}"
        ring: dict[str, Any] = {"color": ORANGE, "fillstyle": "none", "markersize": 9, "markeredgewidth": 2}
        axes.plot(max(x, shown.min()), y, "o", label=used, **ring)
        axes.legend(loc="lower right", frameon=False)
    axes.set(ylim=SHARES, xlabel=label + ("; hollow: 0" if (false == 0).any() else ""))
    return figure


def group_figure(rows: Sequence[Group], label: str) -> Figure:
    """Pd of each group as a bar, with detected / all targets above it; `label` says what the groups are of."""
    if not rows:
        raise ValueError("rows is empty; expected at least one group of targets")
    figure = new_figure(max(4.8, 0.95 * len(rows) + 1.2), 3.8)
    axes = figure.add_subplot()
    positions = np.arange(len(rows))
    axes.bar(positions, [row.pd if row.targets else 0.0 for row in rows], width=0.62, color=BLUE)
    for x, row in zip(positions, rows, strict=True):
        height, text = (row.pd, f"{row.detected}/{row.targets}") if row.targets else (0.0, "no\ntarget")
        colour = "black" if row.targets else GREY
        _note(axes, text, (float(x), height), (0, 3), ha="center", fontsize=9, color=colour)
    axes.set_xticks(positions, [printable(row.label) for row in rows], parse_math=False)
    axes.set(ylim=(0, 1.12), yticks=np.linspace(0, 1, 6), ylabel="Pd, detected / all targets")
    axes.set_xlabel(printable(label), parse_math=False)
    return figure


def reliability_figure(quality: ScoreQuality) -> Figure:
    """Share of true detections over their score, by bins, with the number of detections in each.

    Args:
        quality: with at least one detection.
    """
    figure = new_figure(5.2, 4.4)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    filled = quality.counts > 0
    scores, shares = quality.mean_scores[filled], quality.true_shares[filled]
    axes.plot(scores, shares, color=BLUE, marker="o", markersize=5)
    for x, y, count in zip(scores, shares, quality.counts[filled], strict=True):
        _note(axes, f"{count}", (x, y), (4, -12), fontsize=8, color=GREY)
    axes.set(xlim=SHARES, xlabel="score; small figures are detections")
    axes.set(ylim=SHARES, ylabel="share of them that is true")
    axes.set_title(f"reliability, calibration error {quality.ece:.3f}")
    return figure


def score_roc_figure(quality: ScoreQuality) -> Figure:
    """Share of the true detections kept over false ones kept per frame, as the least score falls.

    Args:
        quality: with true detections.
    """
    figure = new_figure(5.2, 4.4)
    axes = figure.add_subplot()
    axes.step(np.append(0, quality.false_per_frame), np.append(0, quality.true_kept), color=BLUE, where="post")
    most = quality.false_per_frame.max() or 1.0
    axes.set(xlim=(SHARES[0] * most, SHARES[1] * most), xlabel="false detections kept, per frame")
    axes.set(ylim=SHARES, ylabel="true detections kept / all")
    axes.set_title("by score" if np.isnan(quality.auc) else f"by score, area {quality.auc:.3f}")
    return figure


def training_figure(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Loss, validation metrics and learning rate by epoch.

    `rows` are as in `serank.train.History.rows`: `epoch`, `loss`, `lr` and, on some epochs only, `iou`, `niou` and `pd`
    in [0, 1]. Without any of these three their axis is left out.
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one epoch")
    series = {key: _series(rows, key) for key in ("loss", "iou", "niou", "pd", "lr")}
    validated = any(len(series[key][0]) for key in ("iou", "niou", "pd"))
    figure = new_figure(7.5, 7.0 if validated else 4.8)
    heights = [3, 3, 1.4] if validated else [3, 1.4]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False).ravel()
    _draw_series(panels[0], series["loss"], GREY)
    panels[0].set_ylabel("training loss")
    if validated:
        for key, name, colour in (("iou", "IoU", BLUE), ("niou", "nIoU", ORANGE), ("pd", "Pd", GREEN)):
            _draw_series(panels[1], series[key], colour, name)
        panels[1].set(ylim=(-0.02, 1.02), ylabel="validation, in [0, 1]")
        panels[1].legend(loc="lower right", frameon=False, ncols=3)
    _draw_series(panels[-1], series["lr"], GREY)
    panels[-1].set(xlabel="epoch", ylabel="learning rate")
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _finite(*arrays: Float) -> list[Float]:
    """The arrays without the places where any is NaN."""
    finite = np.isfinite(np.stack(arrays)).all(axis=0)
    if not finite.any():
        raise ValueError("curves hold no finite point: the set has no target or no background pixels")
    return [array[finite] for array in arrays]


def _note(axes: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], **style: Any) -> None:
    """Writes beside a point, `offset` in points of print."""
    axes.annotate(text, place, xytext=offset, textcoords="offset points", **style)


def _format_threshold(value: float) -> str:
    """Two digits, but `1-x` for thresholds that would round to 1."""
    return f"1-{1 - value:.1g}" if 0.995 < value < 1 else f"{value:.2g}"


def _log_curve(axes: Axes, x: Float, y: Float) -> Float:
    """Draws y over logarithmic x; x of 0 goes to the left as a hollow point. Returns x as drawn."""
    positive = x[x > 0]
    zero = x == 0
    floor = float(positive.min()) / 3 if len(positive) else 0.0
    shown: Float = np.where(zero, floor, x)
    if len(positive):
        axes.set_xscale("log")
        # labels at powers of ten alone, and room for two of them: those between run into each other on a short axis
        axes.xaxis.set_minor_formatter("")
        low, high = np.floor(np.log10(shown.min())), np.ceil(np.log10(shown.max()))
        axes.set_xlim(0.7 * 10**low, 1.4 * 10**high)
    else:  # a logarithmic axis has no place for 0 alone
        axes.set(xlim=(-0.1, 1), xticks=[0])
    axes.plot(shown, y, color=BLUE, marker="o" if len(x) <= MAX_MARKERS else None, markersize=3.5)
    if zero.any():
        axes.plot(shown[zero], y[zero], "o", color=BLUE, markerfacecolor="white", markersize=5.5)
    return shown


def _series(rows: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values where the row has a finite one."""
    found = [(row["epoch"], row[key]) for row in rows if key in row and np.isfinite(row[key])]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _draw_series(axes: Axes, series: tuple[list[float], list[float]], colour: str, name: str | None = None) -> None:
    if series[0]:
        top = max(series[1])
        axes.set_ylim(0, 1.05 * top if top > 0 else 1)
        axes.plot(
            *series, color=colour, label=name, marker="o" if len(series[0]) <= MAX_MARKERS else None, markersize=3
        )
