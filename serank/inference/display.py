"""Detections in a notebook: picture, table and plot."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from serank.inference.drawing import png_options

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from serank.inference.detections import Detections

SHOWN_ROWS = 20
"""Rows of a notebook's table; the rest is counted."""


def png_bytes(found: Detections) -> bytes:
    """The picture of `Detections.image` as a PNG file."""
    buffer = io.BytesIO()
    found.image().save(buffer, "PNG", **png_options())
    return buffer.getvalue()


def html(found: Detections) -> str:
    """Caption, picture and table of the first detections."""
    tracked = found.tracks is not None
    heads = ["", "x", "y", "score", "area", "box", *(["track"] if tracked else [])]
    rows = []
    for number, one in enumerate(found[:SHOWN_ROWS]):
        box = ", ".join(f"{v:.0f}" for v in one.box)
        cells = [f"{number}", *(f"{v:.1f}" for v in one.centroid), f"{one.score:.3f}", f"{one.area}", box]
        rows.append([*cells, *([f"{one.track}"] if tracked else [])])
    table = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    more = f"<p>and {len(found) - SHOWN_ROWS} more</p>" if len(found) > SHOWN_ROWS else ""
    picture = base64.b64encode(png_bytes(found)).decode()
    return (
        f"<div><p>{escape(_caption(found))}</p>"
        f'<img alt="{escape(repr(found))}" src="data:image/png;base64,{picture}">'
        f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{table}</tbody></table>{more}</div>"
    )


def plot(found: Detections, ax: Axes | None) -> Axes:
    """As `Detections.plot`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"plot needs Matplotlib ({error}); run: pip install 'serank[report]'") from error

    if ax is None:
        _, ax = plt.subplots()
    height, width = found.mask.shape
    # half a pixel: (0, 0) is the centre of the first one, as for centroids
    ax.imshow(found.image(), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.set_title(_caption(found), fontsize="small")
    ax.set_xlabel("x (px)")
    ax.set_ylabel("y (px)")
    return ax


def _caption(found: Detections) -> str:
    where = "" if found.source is None else f" in {found.source}"
    count = f"{len(found)} detection{'' if len(found) == 1 else 's'}"
    if found.calibrated:
        meaning = f"how often such detections are true (calibrated), probability above {found.threshold:g}"
    else:
        meaning = f"peak probability, above {found.threshold:g}"
    return f"{count}{where}; score p: {meaning}"
