"""Figures: what they show, odd input, and files written whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank.evaluation import Curves, ScoreQuality
from serank.evaluation.report import figures
from serank.evaluation.report.frame_figures import MAX_CELLS, block_maxima, surface_figure, top_k_figure
from serank.evaluation.report.top_k import TopKLevel
from serank.metrics import BoxCurve, Group

Float = NDArray[np.float32]
Rows = list[dict[str, float]]


def curves(**changes: Any) -> Curves:
    values: dict[str, Any] = {
        "thresholds": np.array([0, 0.2, 0.5, 0.9, 1.0]),
        "tpr": np.array([1, 0.9, 0.8, 0.5, 0.0]),
        "fpr": np.array([1, 1e-3, 1e-4, 0.0, 0.0]),
        "auc": 0.95,
        "pd": np.array([0.0, 1.0, 0.9, 0.6, 0.0]),
        "fa": np.array([1, 2e-3, 1e-5, 0.0, 0.0]),
        "auc_error": 0.0,
        "false_components": np.zeros(5),
    }
    return Curves(**(values | changes))


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(artist.get_text() for artist in figure.findobj(Text))


def panels(figure: Any) -> list[Any]:
    """Its axes, free of matplotlib's types, which are wider than what we put in."""
    return list(figure.axes)


def drawn(figure: Any, path: Path) -> NDArray[np.uint8]:
    figures.save_figure(figure, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_roc_has_both_scales_and_the_area(tmp_path: Path) -> None:
    figure = figures.roc_figure(curves())
    linear, logarithmic = panels(figure)
    np.testing.assert_allclose(linear.lines[0].get_xdata(), [0, 0, 1e-4, 1e-3, 1])
    np.testing.assert_allclose(linear.lines[0].get_ydata(), [0, 0.5, 0.8, 0.9, 1])
    assert logarithmic.get_xscale() == "log"
    # rates of 0 stand left of the least positive one, hollow
    assert max(logarithmic.lines[1].get_xdata()) < 1e-4
    assert "area 0.9500" in texts(figure)
    assert "hollow: 0" in texts(figure)
    assert drawn(figure, tmp_path / "roc.png").std() > 1


def test_roc_without_an_area() -> None:
    assert "nan" not in texts(figures.roc_figure(curves(auc=float("nan")))).lower()


def test_pd_fa_is_in_false_pixels_per_million_without_the_threshold_of_0(tmp_path: Path) -> None:
    figure = figures.pd_fa_figure(curves(), operating=(0.5, 0.9, 1e-5))
    (axes,) = panels(figure)
    np.testing.assert_allclose(axes.lines[0].get_xdata()[:2], [2000, 10])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1, 0.9, 0.6, 0])
    mark = axes.lines[-1]
    np.testing.assert_allclose([mark.get_xdata()[0], mark.get_ydata()[0]], [10, 0.9])
    assert "threshold in use, 0.5" in texts(figure)
    drawn(figure, tmp_path / "pd_fa.png")


def test_pd_fa_of_a_single_threshold_of_0(tmp_path: Path) -> None:
    one = curves(**{key: np.array([value]) for key, value in {"thresholds": 0.0, "pd": 0.5, "fa": 0.0}.items()})
    (axes,) = panels(figures.pd_fa_figure(one))
    assert axes.lines[0].get_ydata().tolist() == [0.5]
    drawn(figures.pd_fa_figure(one, operating=(0.0, 0.5, 0.0)), tmp_path / "one.png")


def test_curves_without_a_false_alarm_have_an_axis_of_0() -> None:
    (axes,) = panels(figures.pd_fa_figure(curves(fa=np.zeros(5)), operating=(0.5, 0.9, 0.0)))
    assert axes.get_xscale() == "linear"
    assert axes.get_xticks().tolist() == [0]
    assert axes.lines[-1].get_xdata()[0] == 0
    empty = np.zeros(10)
    nothing = ScoreQuality(
        0.0, np.zeros(10, np.int64), empty, empty, np.array([0.9, 0.8]), np.array([0.5, 1]), np.zeros(2), 1.0
    )
    (axes,) = panels(figures.score_roc_figure(nothing))
    assert axes.get_xlim()[0] < 0 < axes.get_xlim()[1]  # its line does not lie on the frame's edge


def test_box_curve_is_in_false_components_per_frame(tmp_path: Path) -> None:
    curve = BoxCurve(np.array([0.3, 0.5, 0.9, 1.0]), np.array([1, 0.9, 0.6, 0]), np.array([2, 0.5, 0, 0]))
    figure = figures.box_figure(curve, operating=(0.3, 1.0, 2.0))
    (axes,) = panels(figure)
    np.testing.assert_allclose(axes.lines[0].get_xdata()[:2], [2, 0.5])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1, 0.9, 0.6, 0])
    np.testing.assert_allclose([axes.lines[-1].get_xdata()[0], axes.lines[-1].get_ydata()[0]], [2, 1])
    assert "false components per frame; hollow: 0" in texts(figure)
    assert drawn(figure, tmp_path / "boxes.png").std() > 1


def test_thresholds_next_to_1_are_told_from_it() -> None:
    steps = np.array([0.5, 0.9999])
    figure = figures.pd_fa_figure(curves(thresholds=steps, pd=np.array([1.0, 0.5]), fa=np.array([1e-3, 1e-5])))
    assert "1-0.0001" in texts(figure)


@pytest.mark.parametrize("draw", [figures.roc_figure, figures.pd_fa_figure])
def test_curves_without_a_finite_point_are_refused(draw: Any) -> None:
    nothing = np.full(5, np.nan)
    with pytest.raises(ValueError, match="no finite point"):
        draw(curves(tpr=nothing, pd=nothing))


def test_groups_say_how_many_there_were(tmp_path: Path) -> None:
    rows = [Group("<5 px", 0, 5, 8, 2), Group("$x_$", 5, 9, 0, 0), Group("rest", 9, 99, 3, 3)]
    figure = figures.group_figure(rows, "area, px")
    (axes,) = panels(figure)
    assert [bar.get_height() for bar in axes.patches] == [0.25, 0, 1]
    assert "2/8" in texts(figure)
    assert "3/3" in texts(figure)
    assert "no\ntarget" in texts(figure)
    assert "nan" not in texts(figure)
    drawn(figure, tmp_path / "groups.png")
    with pytest.raises(ValueError, match="rows is empty"):
        figures.group_figure([], "area")


@pytest.mark.parametrize("shape", [(30, 40), (300, 77), (1, 5), (1, 1)])
def test_surfaces_keep_the_height_of_single_pixels(shape: tuple[int, int], tmp_path: Path) -> None:
    probability = np.zeros(shape, np.float32)
    probability[-1, -1] = 0.875
    figure = surface_figure(np.full(shape, 0.5, np.float32), probability, "a$b_1$ 帧")
    picture, grey, response = panels(figure)
    cells, step = block_maxima(probability)
    assert cells.max() == cells[-1, -1] == 0.875
    assert cells.shape == tuple(-(-side // step) for side in shape)
    assert max(cells.shape) <= MAX_CELLS
    assert response.get_zlim() == (0, 1)
    assert picture.images[0].get_array().shape == shape
    assert grey.get_title() == "grey value"
    assert drawn(figure, tmp_path / "surface.png").std() > 1


def test_surface_without_a_frame(tmp_path: Path) -> None:
    figure = surface_figure(None, np.eye(9, dtype=np.float32))
    assert [axes.get_title() for axes in panels(figure)] == ["probability", "probability"]
    drawn(figure, tmp_path / "surface.png")


def test_top_k_points_lie_over_the_frame(tmp_path: Path) -> None:
    counts = np.zeros((3, 4), np.int64)
    counts[2, 1] = 4
    level = TopKLevel(level=2, counts=counts, channels=4, k=1, scale=(10.0, 12.0))
    figure = top_k_figure(np.zeros((25, 40), np.float32), [level], "name")
    _, panel, bar = panels(figure)
    shares = panel.images[1]
    array = shares.get_array()
    assert array[2, 1] == 1
    assert np.ma.count(array) == 1
    assert list(shares.get_extent()) == [-0.5, 47.5, 29.5, -0.5]
    assert panel.get_xlim() == (-0.5, 39.5)
    assert "level 2: 4 channels, 1 of 12 points each" in panel.get_title()
    assert "share of channels" in bar.get_ylabel()
    drawn(figure, tmp_path / "top_k.png")
    with pytest.raises(ValueError, match="no layer that ranks"):
        top_k_figure(np.zeros((5, 5), np.float32), [])


def rows(epochs: int, **every_second: float) -> Rows:
    found: Rows = []
    for epoch in range(1, epochs + 1):
        row: dict[str, float] = {"epoch": epoch, "loss": 6 / epoch, "lr": 1e-3 / epoch, "seconds": 1.0}
        found.append(row | (every_second if epoch % 2 == 0 else {}))
    return found


def test_training_curves_draw_what_there_is(tmp_path: Path) -> None:
    figure = figures.training_figure(rows(6, iou=0.5, niou=0.4, pd=float("nan"), fa=1e-5))
    loss, validation, rate = panels(figure)
    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert loss.get_ylim()[0] == 0
    assert loss.get_ylim()[1] > 6
    assert [line.get_label() for line in validation.lines] == ["IoU", "nIoU"]
    assert validation.lines[0].get_xdata().tolist() == [2, 4, 6]
    np.testing.assert_allclose(rate.lines[0].get_ydata(), [1e-3 / e for e in range(1, 7)])
    assert drawn(figure, tmp_path / "curves.png").std() > 1


def test_training_curves_without_validation(tmp_path: Path) -> None:
    figure = figures.training_figure(rows(1))
    assert [axes.get_ylabel() for axes in panels(figure)] == ["training loss", "learning rate"]
    drawn(figure, tmp_path / "curves.png")
    with pytest.raises(ValueError, match="rows is empty"):
        figures.training_figure([])


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figures.group_figure([Group("a", 0, 1, 1, 1)], "x")
    figures.save_figure(figure, tmp_path / "figure.svg")
    before = (tmp_path / "figure.svg").read_bytes()
    with pytest.raises(ValueError, match="no known suffix"):
        figures.save_figure(figure, tmp_path / "figure.txt")
    with pytest.raises(FileNotFoundError, match="make it first"):
        figures.save_figure(figure, tmp_path / "absent" / "figure.png")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save_figure(figure, tmp_path / "figure.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.svg"]
    assert (tmp_path / "figure.svg").read_bytes() == before


def test_pyplot_is_not_used() -> None:
    import subprocess

    script = (
        "import sys; from serank.evaluation.report import figures; from serank.metrics import Group\n"
        "assert 'matplotlib' not in sys.modules\n"
        "figures.group_figure([Group('a', 0, 1, 1, 1)], 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_missing_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'serank\[report\]'"):
        figures.training_figure(rows(2))
