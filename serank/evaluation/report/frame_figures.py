"""Figures of single frames: the response as a surface, and the points that SeRank attention ranked.

matplotlib is an extra, see `serank.evaluation.report.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serank.evaluation.report.canvas import printable
from serank.evaluation.report.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from serank.evaluation.report.top_k import TopKLevel

Float = NDArray[np.float32]

MAX_CELLS = 96  # of a surface or map along a side


def surface_figure(frame: Float | None, probability: Float, title: str = "") -> Figure:
    """Draws the frame, its grey surface and the surface of the response, as in figure 8 of the SeRankDet paper.

    Larger maps are reduced to 96 cells a side or fewer, each the largest value of its block, so that a target of one
    pixel keeps its height. Without a frame the probability alone is drawn.
    """
    figure = new_figure(11.5 if frame is not None else 8.0, 4.0)
    columns = 3 if frame is not None else 2
    picture = figure.add_subplot(1, columns, 1)
    if frame is None:
        picture.imshow(probability, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        picture.set_title("probability")
    else:
        picture.imshow(frame, cmap="gray", interpolation="nearest")
        picture.set_title("frame")
        _draw_surface(figure, (1, 3, 2), frame, "grey value", "gray", (float(frame.min()), float(frame.max())))
    picture.set(xlabel="column, px", ylabel="row, px")
    _draw_surface(figure, (1, columns, columns), probability, "probability", "viridis", (0.0, 1.0))
    figure.suptitle(printable(title), parse_math=False)
    return figure


def top_k_figure(frame: Float, levels: Sequence[TopKLevel], title: str = "") -> Figure:
    """Draws the frame, and for each encoder level the share of channels with each point in their top k, over it.

    Larger maps are reduced as in `surface_figure`. `levels` are those of `serank.evaluation.report.top_k.count_top_k`;
    raises ValueError where there is none.
    """
    if not levels:
        raise ValueError("levels is empty: this network has no layer that ranks points")
    height, width = frame.shape
    rows = -(-(len(levels) + 1) // 3)
    figure = new_figure(10.5, 0.6 + rows * min(max(2.75 * height / width + 0.45, 1.6), 5.0))
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    panels[0].imshow(frame, cmap="gray", interpolation="nearest")
    panels[0].set_title("frame", fontsize=9)
    low, high = float(frame.min()), float(frame.max())
    image = None
    for panel, level in zip(panels[1:], levels, strict=False):
        panel.imshow(frame, cmap="gray", vmin=low, vmax=low + 3 * max(high - low, 1e-6), interpolation="nearest")
        cells, step = block_maxima(level.counts / level.channels)
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
        panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
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
    figure.suptitle(printable(title), parse_math=False)
    return figure


def block_maxima(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """A map of at most `MAX_CELLS` a side, each cell the largest value of its block, and the block's side in px."""
    height, width = values.shape
    step = max(1, -(-max(height, width) // MAX_CELLS))
    rows, columns = np.arange(0, height, step), np.arange(0, width, step)
    cells: NDArray[Any] = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
    return cells, step


def _draw_surface(
    figure: Figure,
    position: tuple[int, int, int],
    values: Float,
    label: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    height, width = values.shape
    cells, step = block_maxima(values)
    for axis in (0, 1):
        if cells.shape[axis] == 1:  # a surface needs two points along each side
            cells = np.repeat(cells, 2, axis=axis)
    rows, columns = (np.arange(side) * step for side in cells.shape)
    low, high = limits if limits[1] > limits[0] else (limits[0], limits[0] + 1)
    # three-dimensional axes have no type hints
    axes: Any = figure.add_subplot(*position, projection="3d")
    axes.plot_surface(
        *np.meshgrid(columns, rows),
        cells,
        cmap=colours,
        vmin=low,
        vmax=high,
        rcount=MAX_CELLS + 1,
        ccount=MAX_CELLS + 1,
        linewidth=0,
        antialiased=False,
    )
    # the first row at the back, as in the picture beside it
    axes.set(xlim=(0, columns[-1]), ylim=(rows[-1], 0), zlim=(low, high))
    longest = max(height, width)
    axes.set_box_aspect((max(width / longest, 0.2), max(height / longest, 0.2), 0.55), zoom=1.12)
    axes.view_init(elev=35, azim=-65)
    axes.tick_params(labelsize=7, pad=0)
    axes.locator_params(nbins=5)
    axes.set_xlabel("column, px", fontsize=8)
    axes.set_ylabel("row, px", fontsize=8)
    axes.set_title(label)
