"""Figures of evaluations and trainings, drawn with matplotlib's objects alone: no pyplot, no window, no global state.

matplotlib is an extra, `pip install 'serank[report]'`, imported by the functions that draw.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serank.evaluation.results import Curves, Group
from serank.inference.drawing import plain_text
from serank.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from serank.evaluation.report.top_k import RankedLevel

__all__ = ["groups", "pd_fa", "ranked", "require_matplotlib", "roc", "save_figure", "surface", "training_curves"]

Float = NDArray[np.float32]

# Okabe and Ito's colours, which readers with colour-blindness can tell apart
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
FEW = 64
"""Curves of up to this many points show each of them."""
CELLS = 96
"""Most cells of a surface along a side."""
DPI = 120


def require_matplotlib() -> None:
    """Does nothing where matplotlib can be imported.

    Raises:
        ImportError: it can't; says how to install it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"figures need matplotlib, which can't be imported ({error}); run: pip install 'serank[report]'"
        ) from error


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure, whole or not at all.

    Args:
        figure: any matplotlib figure.
        path: its suffix sets the format, such as `.png`, `.svg` or `.pdf`.

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


def roc(curves: Curves) -> Figure:
    """Pixel ROC twice, with a linear and a logarithmic false positive rate.

    Args:
        curves: with `tpr` and `fpr`; thresholds at which either is NaN are left out.

    Raises:
        ValueError: every rate is NaN.
    """
    figure = _figure(9.0, 4.2)
    linear, logarithmic = figure.subplots(1, 2, sharey=True)
    fpr, tpr, _ = _finite(curves.fpr, curves.tpr, curves.thresholds)
    order = np.lexsort((tpr, fpr))
    marker = "o" if len(fpr) <= FEW else None
    linear.plot(fpr[order], tpr[order], color=BLUE, marker=marker, markersize=3.5)
    linear.set_xlim(-0.02, 1.02)
    linear.set_ylim(-0.02, 1.02)
    linear.set_xlabel("false positive rate, false pixels / background pixels")
    linear.set_ylabel("true positive rate, found / target pixels")
    linear.set_title("pixel ROC" if np.isnan(curves.auc) else f"pixel ROC, area {curves.auc:.4f}")
    _log_curve(logarithmic, fpr[order], tpr[order])
    logarithmic.set_xlabel("false positive rate, logarithmic" + ("; hollow: 0" if (fpr == 0).any() else ""))
    logarithmic.set_title("the same, small rates spread out")
    return figure


def pd_fa(curves: Curves, *, operating: tuple[float, float, float] | None = None) -> Figure:
    """Pd over Fa, Fa logarithmic, thresholds written beside some of the points.

    Args:
        curves: with `pd` and `fa`; thresholds at which either is NaN are left out, and so is a threshold of 0, above
            which nearly every pixel of a network's output lies, unless it is the only one.
        operating: threshold, Pd and Fa of the point to mark, if any.

    Raises:
        ValueError: every value is NaN.
    """
    figure = _figure(6.4, 4.4)
    axes = figure.add_subplot()
    fa, pd, thresholds = _finite(curves.fa, curves.pd, curves.thresholds)
    order = np.argsort(thresholds, kind="stable")
    if thresholds.max() > 0:
        order = order[thresholds[order] > 0]
    fa, pd, thresholds = fa[order] * 1e6, pd[order], thresholds[order]
    shown = _log_curve(axes, fa, pd)
    last: tuple[float, float] | None = None
    width = np.log10(shown.max() / shown.min()) or 1.0
    for x, y, threshold in zip(shown, pd, thresholds, strict=True):
        place = (float(np.log10(x) / width), float(y))
        # a threshold is written only where it has room beside the one before
        if last is None or np.hypot(place[0] - last[0], place[1] - last[1]) > 0.13:
            axes.annotate(
                _threshold(threshold), (x, y), xytext=(3, -11), textcoords="offset points", fontsize=7, color=GREY
            )
            last = place
    if operating is not None and np.isfinite(operating[1:]).all():
        threshold, y, x = operating
        axes.plot(
            max(x * 1e6, shown.min()),
            y,
            "o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            markeredgewidth=2,
            label=f"threshold in use, {_threshold(threshold)}",
        )
        axes.legend(loc="lower right", frameon=False)
    axes.set_xlabel("Fa, false pixels per million pixels" + ("; hollow: 0" if (fa == 0).any() else ""))
    axes.set_ylabel("Pd, detected / all targets")
    axes.set_title("Pd over Fa; small figures are thresholds")
    axes.set_ylim(-0.03, 1.03)
    return figure


def groups(rows: Sequence[Group], label: str) -> Figure:
    """Pd of each group as a bar, with detected / all targets above it.

    Args:
        rows: the groups, in their order from left to right.
        label: what the groups are of, such as "area in px".

    Raises:
        ValueError: no group.
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one group of targets")
    figure = _figure(max(4.8, 0.95 * len(rows) + 1.2), 3.8)
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    axes.bar(places, [row.pd if row.targets else 0.0 for row in rows], width=0.62, color=BLUE)
    for place, row in zip(places, rows, strict=True):
        height, text = (row.pd, f"{row.detected}/{row.targets}") if row.targets else (0.0, "no\ntarget")
        axes.annotate(
            text,
            (float(place), height),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color="black" if row.targets else GREY,
        )
    axes.set_xticks(places, [plain_text(row.label) for row in rows], parse_math=False)
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel(plain_text(label), parse_math=False)
    axes.set_ylabel("Pd, detected / all targets")
    return figure


def surface(frame: Float | None, probability: Float, title: str = "") -> Figure:
    """The frame, its grey surface and the surface of the response, as in figure 8 of the SeRankDet paper.

    Larger maps are reduced to 96 cells a side or fewer, each the largest value of its block, so that a target of one
    pixel keeps its height.

    Args:
        frame: `(H, W)` float32 in [0, 1]; where it is `None`, the probability alone is drawn.
        probability: `(H, W)` float32 in [0, 1].
        title: above all of it, such as the frame's name.
    """
    figure = _figure(11.5 if frame is not None else 8.0, 4.0)
    columns = 3 if frame is not None else 2
    picture = figure.add_subplot(1, columns, 1)
    if frame is None:
        picture.imshow(probability, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        picture.set_title("probability")
    else:
        picture.imshow(frame, cmap="gray", interpolation="nearest")
        picture.set_title("frame")
        _surface(figure, (1, 3, 2), frame, "grey value", "gray", (float(frame.min()), float(frame.max())))
    picture.set_xlabel("column, px")
    picture.set_ylabel("row, px")
    _surface(figure, (1, columns, columns), probability, "probability", "viridis", (0.0, 1.0))
    figure.suptitle(plain_text(title), parse_math=False)
    return figure


def ranked(frame: Float, levels: Sequence[RankedLevel], title: str = "") -> Figure:
    """The frame, and for each encoder level the share of channels that ranked each point, over the darkened frame.

    Larger maps are reduced to 96 cells a side or fewer, each the largest share of its block, so that single points
    stay visible.

    Args:
        frame: `(H, W)` float32 in [0, 1].
        levels: as from `serank.evaluation.report.top_k.ranked_points`.
        title: above all of it, such as the frame's name.

    Raises:
        ValueError: no level.
    """
    if not levels:
        raise ValueError("levels is empty: this network has no layer that ranks points")
    height, width = frame.shape
    rows = -(-(len(levels) + 1) // 3)
    figure = _figure(10.5, 0.6 + rows * min(max(2.75 * height / width + 0.45, 1.6), 5.0))
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    panels[0].imshow(frame, cmap="gray", interpolation="nearest")
    panels[0].set_title("frame", fontsize=9)
    low, high = float(frame.min()), float(frame.max())
    image = None
    for panel, level in zip(panels[1:], levels, strict=False):
        panel.imshow(frame, cmap="gray", vmin=low, vmax=low + 3 * max(high - low, 1e-6), interpolation="nearest")
        cells, step = _reduced(level.counts / level.channels)
        # pixel centres are whole numbers, so the map's outer edge lies at -0.5
        right, bottom = (cells.shape[axis] * step * level.scale[axis] - 0.5 for axis in (1, 0))
        # the root keeps points apart that few of the channels ranked
        image = panel.imshow(
            np.ma.masked_equal(np.sqrt(cells), 0),
            cmap="plasma",
            vmin=0,
            vmax=1,
            extent=(-0.5, right, bottom, -0.5),
            interpolation="nearest",
        )
        panel.set_xlim(-0.5, width - 0.5)
        panel.set_ylim(height - 0.5, -0.5)
        panel.set_title(
            f"level {level.level}: {level.channels} channels, {level.k} of {level.counts.size} points each", fontsize=9
        )
    for panel in panels:
        panel.tick_params(labelsize=7)
    for panel in panels[len(levels) + 1 :]:
        panel.remove()
    if image is not None:
        shares = (0.01, 0.05, 0.2, 0.5, 1.0)
        bar = figure.colorbar(image, ax=list(panels[: len(levels) + 1]), shrink=0.8, ticks=np.sqrt(shares))
        bar.ax.set_yticklabels([f"{share:.0%}" for share in shares])
        bar.set_label("share of channels that ranked the point")
    figure.suptitle(plain_text(title), parse_math=False)
    return figure


def training_curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Loss, validation figures and learning rate by epoch.

    Args:
        rows: as in `serank.train.History.rows`: `epoch`, `loss`, `lr` and, on some epochs only, `iou`,
            `niou` and `pd` in [0, 1]. Without any of these three their axis is left out.

    Raises:
        ValueError: no row.
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one epoch")
    series = {key: _series(rows, key) for key in ("loss", "iou", "niou", "pd", "lr")}
    validated = any(len(series[key][0]) for key in ("iou", "niou", "pd"))
    figure = _figure(7.5, 7.0 if validated else 4.8)
    heights = [3, 3, 1.4] if validated else [3, 1.4]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False).ravel()
    _draw_series(panels[0], series["loss"], GREY)
    panels[0].set_ylabel("training loss")
    if validated:
        for key, name, colour in (("iou", "IoU", BLUE), ("niou", "nIoU", ORANGE), ("pd", "Pd", GREEN)):
            _draw_series(panels[1], series[key], colour, name)
        panels[1].set_ylabel("validation, in [0, 1]")
        panels[1].set_ylim(-0.02, 1.02)
        panels[1].legend(loc="lower right", frameon=False, ncols=3)
    _draw_series(panels[-1], series["lr"], GREY)
    panels[-1].set_ylabel("learning rate")
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _figure(width: float, height: float) -> Figure:
    """An empty figure, sides in inches."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _finite(*arrays: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The arrays without the places where any is NaN."""
    kept = np.isfinite(np.stack(arrays)).all(axis=0)
    if not kept.any():
        raise ValueError("curves hold no finite point: the set has no target or no background pixels")
    return [array[kept] for array in arrays]


def _threshold(value: float) -> str:
    """Short, and not 1 for what lies just below it."""
    return f"1-{1 - value:.1g}" if 0.995 < value < 1 else f"{value:.2g}"


def _log_curve(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draws y over logarithmic x; x of 0 goes to the left edge as a hollow point. Returns x as drawn."""
    positive = x[x > 0]
    floor = float(positive.min()) / 3 if len(positive) else 1e-3
    shown: NDArray[np.float64] = np.where(x > 0, x, floor)
    axes.set_xscale("log")
    axes.plot(shown, y, color=BLUE, marker="o" if len(x) <= FEW else None, markersize=3.5)
    if (zero := x == 0).any():
        axes.plot(shown[zero], y[zero], "o", color=BLUE, markerfacecolor="white", markersize=5.5)
    return shown


def _reduced(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The largest value of each square block, `CELLS` of them a side or fewer; and the blocks' side."""
    height, width = values.shape
    step = max(1, -(-max(height, width) // CELLS))
    rows, columns = np.arange(0, height, step), np.arange(0, width, step)
    cells: NDArray[Any] = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
    return cells, step


def _surface(
    figure: Figure,
    place: tuple[int, int, int],
    values: Float,
    label: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    height, width = values.shape
    cells, step = _reduced(values)
    for axis in (0, 1):
        if cells.shape[axis] == 1:  # a surface needs two points along each side
            cells = np.repeat(cells, 2, axis=axis)
    rows, columns = (np.arange(side) * step for side in cells.shape)
    low, high = limits
    # three-dimensional axes have no type hints
    axes: Any = figure.add_subplot(*place, projection="3d")
    axes.plot_surface(
        *np.meshgrid(columns, rows),
        cells,
        cmap=colours,
        vmin=low,
        vmax=high if high > low else low + 1,
        rcount=CELLS + 1,
        ccount=CELLS + 1,
        linewidth=0,
        antialiased=False,
    )
    axes.set_xlim(0, columns[-1])
    axes.set_ylim(rows[-1], 0)  # the first row at the back, as in the picture beside it
    axes.set_zlim(low, high if high > low else low + 1)
    longest = max(height, width)
    axes.set_box_aspect((max(width / longest, 0.2), max(height / longest, 0.2), 0.55), zoom=1.12)
    axes.view_init(elev=35, azim=-65)
    axes.tick_params(labelsize=7, pad=0)
    axes.locator_params(nbins=5)
    axes.set_xlabel("column, px", fontsize=8)
    axes.set_ylabel("row, px", fontsize=8)
    axes.set_title(label)


def _series(rows: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values where the row has a finite one."""
    found = [(row["epoch"], row[key]) for row in rows if key in row and np.isfinite(row[key])]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _draw_series(axes: Axes, series: tuple[list[float], list[float]], colour: str, name: str | None = None) -> None:
    if series[0]:
        top = max(series[1])
        axes.set_ylim(0, 1.05 * top if top > 0 else 1)
        axes.plot(*series, color=colour, label=name, marker="o" if len(series[0]) <= FEW else None, markersize=3)
