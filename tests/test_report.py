"""The report's folder: complete, self-contained, true to the evaluation, and written whole or not at all."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import serank
from serank import SeRankDet
from serank.evaluation import Evaluation, Evaluator, FrameView, write_report
from serank.evaluation.report import canvas
from serank.evaluation.report.contact_sheet import CROP_SIDE, GAP, Cell, contact_sheet, crop_window
from serank.evaluation.report.folder import file_names
from serank.evaluation.report.gallery import worst_false_alarms
from serank.evaluation.report.overlays import MatchMasks, match_masks, match_overlay
from serank.evaluation.report.pictures import worst_misses
from serank.inference import predict
from serank.metrics import Protocol, component_table, label_components

Float = NDArray[np.float32]
Views = dict[str, FrameView]

ODD_NAMES = ["a b", "dir/a", "=1+1", "x<b>&\"'", "帧 1", "帧 2", "A B", "..", "$x_$", "caf\u00e9\udce9", "n" * 300]


class Page(HTMLParser):
    """What a page refers to and says; fails on tags that don't match."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.rows = 0
        self.feed(file.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.rows += tag == "tr"
        self.links += [value for key, value in attrs if key in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def scene(index: int, shape: tuple[int, int] = (40, 56)) -> FrameView:
    """A hit, a miss and a false alarm, at places that depend on the index."""
    rng = np.random.default_rng(index)
    frame = rng.normal(0.4, 0.02, shape).astype(np.float32)
    probability, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    mask[5:8, 5 + index : 8 + index] = True
    probability[5:8, 6 + index : 9 + index] = 0.9
    mask[20:22, 30:33] = True
    probability[20, 30] = 0.3 - 0.01 * index
    probability[30 : 31 + index, 10:12] = 0.8
    frame[mask] += 0.3
    return FrameView(frame.clip(0, 1), probability, mask)


def measured(views: Views, protocol: Protocol = "standard", **options: Any) -> Evaluation:
    evaluator = Evaluator(protocol=protocol, **options)
    for name, view in views.items():
        evaluator.update(name, view.probability, view.mask, view.frame)
    return evaluator.result(about={"checkpoint": "<tiny>", "data": "scenes"}, problems=["<b>.png: no mask"])


@pytest.fixture
def views() -> Views:
    return {f"frame_{i}": scene(i) for i in range(3)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves blank figures, where they are not what is tested: matplotlib takes most of a report's time."""

    def save(_: Any, path: Path, **__: Any) -> None:
        Image.new("L", (64, 64)).save(path)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)


def check_folder(folder: Path) -> Page:
    """Every link leads to a file of the folder, every picture is one, nothing comes from the network."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "http" not in text
    assert "//" not in text.split("<body>")[1].split("<script>")[0]
    page = Page(folder / "index.html")
    for link in page.links:
        assert (folder / link).is_file(), link
    pictures = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert pictures == {link for link in page.links if link.endswith(".png")}
    for picture in pictures:
        with Image.open(folder / picture) as image:
            image.load()
            assert min(image.size) > 50
    return page


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def same(cell: str, value: Any) -> bool:
    if isinstance(value, float):
        return cell == "" if math.isnan(value) else float(cell) == value
    return cell == str(int(value)) if isinstance(value, (bool, int)) else cell == value


def test_a_network_end_to_end(tmp_path: Path) -> None:
    from serank.synthetic import make_scene

    model = SeRankDet(width=2).eval()
    views: Views = {}
    for i in range(3):
        made = make_scene(48, 64, targets=1, seed=i)
        probability = predict(model, [made.frame], model.frame_spec)[0]
        views[f"scene_{i}"] = FrameView(made.frame, probability, made.mask)
    evaluation = measured(views)
    assert write_report(evaluation, tmp_path / "new" / "report", look=views.__getitem__, model=model) == (
        tmp_path / "new" / "report" / "index.html"
    )
    page = check_folder(tmp_path / "new" / "report")
    assert len([link for link in page.links if "/overlays/" in link]) >= 3
    assert any("/top_k_" in link for link in page.links)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report"]


def test_everything_is_there(views: Views, tmp_path: Path) -> None:
    evaluation = measured(views)
    write_report(evaluation, tmp_path / "r", look=views.__getitem__)
    page = check_folder(tmp_path / "r")
    expected = {"roc", "pd_fa", "size", "scr", "misses", "false_alarms"}
    assert {f"pictures/{name}.png" for name in expected} < set(page.links)
    for words in ("standard", "native", "3 px", "<tiny>", "<b>.png: no mask", "3 of 3 undetected", "3 of 3 frames"):
        assert words in page.text, words
    for figure in ("iou", "niou", "precision", "recall", "f1", "pd"):
        assert f"{evaluation.metrics[figure]:.4f}" in page.text
    assert f"{evaluation.metrics['fa'] * 1e6:.2f}" in page.text
    assert "None: they need the network" in page.text  # no model, no top-k points
    assert f"serank {serank.__version__}, torch" in page.text


@pytest.mark.usefixtures("quick")
def test_tables_agree_with_the_objects(views: Views, tmp_path: Path) -> None:
    evaluation = measured(views)
    write_report(evaluation, tmp_path / "r", look=views.__getitem__)
    frames, targets = ([asdict(thing) for thing in things] for things in (evaluation.frames, evaluation.targets))
    for file, objects in (("frames.csv", frames), ("targets.csv", targets)):
        rows = rows_of(tmp_path / "r" / file)
        assert len(rows) == len(objects) > 0
        for row, values in zip(rows, objects, strict=True):
            assert list(row) == list(values)
            assert all(same(row[key], value) for key, value in values.items()), row
    contents = json.loads((tmp_path / "r" / "report.json").read_text())
    assert set(contents["versions"]) == {"serank", "torch", "numpy"}
    assert contents["date"][:2] == "20"
    plain = evaluation.to_dict()
    assert {key: contents[key] for key in plain} == json.loads(json.dumps(plain))


@pytest.mark.usefixtures("quick")
def test_odd_names(tmp_path: Path) -> None:
    views = {name: scene(i % 5) for i, name in enumerate(ODD_NAMES)}
    evaluation = measured(views)
    write_report(evaluation, tmp_path / "r", look=views.__getitem__, worst=len(ODD_NAMES))
    page = check_folder(tmp_path / "r")
    assert len(list((tmp_path / "r" / "pictures" / "overlays").iterdir())) == len(ODD_NAMES)
    for name in ODD_NAMES[:-2]:
        assert name in page.words
    names = [row["name"] for row in rows_of(tmp_path / "r" / "frames.csv")]
    assert names[:9] == [name.replace("=1+1", "'=1+1") for name in ODD_NAMES[:9]]  # no formula to a spreadsheet
    assert names[9] == "caf\u00e9\\udce9"
    assert "<b>&" not in (tmp_path / "r" / "index.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    hostile = "</script><script>alert('{{ 7 * 7 }}')</script>"
    evaluator = Evaluator()
    evaluator.update(hostile, scene(0).probability, scene(0).mask)
    evaluation = evaluator.result(about={"checkpoint": hostile, hostile: "x"}, problems=[hostile])
    write_report(evaluation, tmp_path / "r", look={hostile: scene(0)}.__getitem__)
    text = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert text.count("<script>") == text.count("</script>") == 1
    assert check_folder(tmp_path / "r").words.count(hostile) >= 4


@pytest.mark.usefixtures("quick")
def test_the_page_sorts_its_frames_and_follows_the_reader_s_colour_scheme(views: Views, tmp_path: Path) -> None:
    write_report(measured(views), tmp_path / "r", look=views.__getitem__)
    text = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert text.count('<table class="sortable">') == 1
    assert 'querySelectorAll("table.sortable")' in text
    assert "prefers-color-scheme: dark" in text


def test_overlays_of_forty_thousand_components_take_seconds() -> None:
    mask = np.zeros((400, 400), np.bool_)
    mask[::2, ::2] = True
    start = time.process_time()
    masks = match_masks(mask, mask, 3.0, "standard")
    match_overlay(mask.astype(np.float32), masks, "caption")
    assert time.process_time() - start < 5
    np.testing.assert_array_equal(masks.detected, mask)
    assert not masks.false.any()


def test_file_names_are_safe_and_differ() -> None:
    names = file_names([*ODD_NAMES, "a_b", "-x", ""])
    assert len({name.lower() for name in names.values()}) == len(names)
    assert all(1 <= len(name) <= 84 and name.isascii() for name in names.values())
    assert not any(set(name) & set('/\\:*?"<>| ') or name[0] in ".-" for name in names.values())
    assert (names["a b"], names["A B"], names["a_b"], names["-x"], names[""]) == (
        "a_b",
        "A_B-2",
        "a_b-3",
        "x",
        "frame-2",
    )
    assert file_names(["a-2", "a", "A"]) == {"a-2": "a-2", "a": "a", "A": "A-3"}
    with pytest.raises(ValueError, match="two frames have the name 'x'"):
        file_names(["x", "y", "x"])


@pytest.mark.usefixtures("quick")
def test_a_crash_half_way_leaves_the_old_report(views: Views, tmp_path: Path) -> None:
    evaluation = measured(views)
    write_report(evaluation, tmp_path / "r", look=views.__getitem__)
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}

    def look(name: str) -> FrameView:
        if name == "frame_2":
            raise OSError("the disk went away")
        return views[name]

    for folder in ("r", "new"):
        with pytest.raises(OSError, match="the disk went away"):
            write_report(evaluation, tmp_path / folder, look=look)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.usefixtures("quick")
def test_an_interrupt_between_the_two_renames_leaves_the_old_report(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "r"
    write_report(measured(views), target, look=views.__getitem__)
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if Path(to) == target and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(measured(views), target, look=views.__getitem__)
    check_folder(target)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.usefixtures("quick")
def test_an_older_report_is_replaced(views: Views, tmp_path: Path) -> None:
    write_report(measured(views), tmp_path, look=views.__getitem__)  # into an empty folder
    del views["frame_0"]
    write_report(measured(views), tmp_path, look=views.__getitem__)
    assert not (tmp_path / "pictures" / "overlays" / "frame_0.png").exists()
    assert len(rows_of(tmp_path / "frames.csv")) == 2
    check_folder(tmp_path)
    umask = os.umask(0)
    os.umask(umask)
    assert tmp_path.stat().st_mode & 0o777 == 0o777 & ~umask


def never(name: str) -> FrameView:
    raise AssertionError(f"looked at {name}")


def _notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def _other_json(folder: Path) -> None:
    (folder / "report.json").write_text('{"versions": []}')


def _report_and_notes(folder: Path) -> None:
    (folder / "report.json").write_text('{"versions": {"serank": "0"}}')
    (folder / "thesis.tex").write_text("mine")


@pytest.mark.parametrize(
    ("fill", "message"),
    [(_notes, "holds 'notes.txt'"), (_other_json, "holds no report"), (_report_and_notes, "holds 'thesis.tex'")],
)
def test_other_folders_are_refused_untouched(
    fill: Callable[[Path], None], message: str, views: Views, tmp_path: Path
) -> None:
    fill(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        write_report(measured(views), tmp_path, look=never)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bad_arguments_are_refused_before_any_work(views: Views, tmp_path: Path) -> None:
    evaluation = measured(views)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        write_report(evaluation, tmp_path / "file", look=never)
    with pytest.raises(ValueError, match="worst must be >= 1; got 0"):
        write_report(evaluation, tmp_path / "r", look=never, worst=0)
    with pytest.raises(ValueError, match="evaluation holds no frame"):
        write_report(replace(evaluation, frames=[], targets=[]), tmp_path / "r", look=never)
    with pytest.raises(ValueError, match="two frames have the name"):
        write_report(replace(evaluation, frames=evaluation.frames * 2), tmp_path / "r", look=never)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_matplotlib_stops_before_any_work(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = measured(views)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'serank\[report\]'"):
        write_report(evaluation, tmp_path / "r", look=never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_look_must_give_what_was_measured(views: Views, tmp_path: Path) -> None:
    wrong = views["frame_1"]._replace(probability=np.zeros((8, 8), np.float32))
    with pytest.raises(ValueError, match=r"look\('frame_1'\) gave a probability of shape \(8, 8\).*\(40, 56\)"):
        write_report(measured(views), tmp_path / "r", look=(views | {"frame_1": wrong}).__getitem__)


@pytest.mark.usefixtures("quick")
def test_without_targets(tmp_path: Path) -> None:
    views = {name: view._replace(mask=np.zeros_like(view.mask)) for name, view in (("a", scene(0)), ("b", scene(1)))}
    write_report(measured(views), tmp_path / "r", look=views.__getitem__)
    page = check_folder(tmp_path / "r")
    assert rows_of(tmp_path / "r" / "targets.csv") == []
    for words in ("No frame of the set holds a target", "not defined", "None: the set holds no target."):
        assert words in page.text
    assert "pixel ROC: none" in page.text
    assert "By area: none" in page.text
    assert "nan" not in page.text.lower()
    assert "pictures/false_alarms.png" in page.links


@pytest.mark.usefixtures("quick")
def test_without_misses_and_false_alarms(tmp_path: Path) -> None:
    perfect = scene(0)._replace(probability=scene(0).mask.astype(np.float32))
    write_report(measured({"a": perfect}), tmp_path / "r", look={"a": perfect}.__getitem__)
    page = check_folder(tmp_path / "r")
    assert "None: every target was detected." in page.text
    assert "None: every predicted component belongs to a target." in page.text
    assert not {"pictures/misses.png", "pictures/false_alarms.png"} & set(page.links)


def test_without_frames_and_curves(views: Views, tmp_path: Path) -> None:
    blind = {name: view._replace(frame=None) for name, view in views.items()}
    evaluation = measured(blind, curves=False)
    assert all(math.isnan(target.scr) for target in evaluation.targets)
    write_report(evaluation, tmp_path / "r", look=blind.__getitem__, model=SeRankDet(width=2))
    page = check_folder(tmp_path / "r")
    assert "None: they were not asked for." in page.text
    assert "By ratio: none, it is known for no target." in page.text
    assert "None: they need the network" in page.text
    assert all(row["scr"] == "" for row in rows_of(tmp_path / "r" / "targets.csv"))


@pytest.mark.usefixtures("quick")
def test_without_overlays_only_what_is_shown_is_looked_at(tmp_path: Path) -> None:
    views = {f"frame_{i}": scene(i) for i in range(6)}
    looked: list[str] = []

    def look(name: str) -> FrameView:
        looked.append(name)
        return views[name]

    write_report(measured(views), tmp_path / "r", look=look, overlays=False, worst=1)
    page = check_folder(tmp_path / "r")
    assert not (tmp_path / "r" / "pictures" / "overlays").exists()
    assert len(looked) == len(set(looked)) < 6
    assert {"frame_5"} < set(looked)  # least probability on its missed target and most false pixels
    assert "1 of 6 undetected targets" in page.text


def test_rankings(views: Views) -> None:
    evaluation = measured(views)
    assert [target.frame for target in worst_misses(evaluation)[:2]] == ["frame_2", "frame_1"]
    assert [score.false_pixels for score in worst_false_alarms(evaluation.frames)] == [6, 4, 2]
    few, many = replace(evaluation.targets[1], area=1), replace(evaluation.targets[1], area=9)
    assert worst_misses(replace(evaluation, targets=[few, many])) == [many, few]


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_outlines_tell_what_was_counted(protocol: Protocol) -> None:
    rng = np.random.default_rng(0)
    views = {
        str(i): FrameView(None, rng.random((40, 50), dtype=np.float32) ** 3, rng.random((40, 50)) > 0.96)
        for i in range(8)
    }
    evaluation = measured(views, protocol, threshold=0.8, max_distance=4.0)
    assert evaluation.metrics["pd"] > 0.1
    for score in evaluation.frames:
        view = views[score.name]
        masks = match_masks(view.probability > 0.8, view.mask, 4.0, protocol)
        counts = [label_components(mask)[1] for mask in masks]
        assert counts == [
            score.detected,
            score.targets - score.detected,
            score.detected,
            score.false_components,
        ]
        centroids = component_table(*label_components(masks.matched)).centroids
        for target in evaluation.targets:
            if target.frame == score.name and target.detected:
                distances = np.hypot(*(centroids - (target.x, target.y)).T)
                assert np.isclose(distances, target.distance).any()
        np.testing.assert_array_equal(masks.detected | masks.missed, view.mask)
        np.testing.assert_array_equal(masks.matched | masks.false, view.probability > 0.8)


def colour_at(image: Image.Image, colour: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.asarray(image) == colour
    return found


def square(row: int, column: int, side: int) -> NDArray[np.bool_]:
    mask = np.zeros((80, 160), np.bool_)
    mask[row : row + side, column : column + side] = True
    return mask


def test_overlay_colours_and_marks() -> None:
    nothing = square(0, 0, 0)
    frame = np.random.default_rng(0).random((80, 160), dtype=np.float32)
    masks = MatchMasks(square(10, 20, 3), square(40, 80, 2), square(10, 20, 3), square(60, 130, 4))
    image = match_overlay(frame, masks, "caption")
    assert image.mode == "P"
    assert image.width == 640
    top = canvas.LINE_HEIGHT + 6
    picture = image.crop((0, top, 640, top + 320))
    clean = match_overlay(frame, MatchMasks(*[nothing] * 4), "caption").crop((0, top, 640, top + 320))
    marked = np.asarray(picture) != np.asarray(clean)
    inside = np.logical_or.reduce(masks).repeat(4, axis=0).repeat(4, axis=1)
    assert not (marked & inside).any()  # outlines leave the target's own pixels visible
    found, matched = colour_at(picture, canvas.DETECTED), colour_at(picture, canvas.MATCHED)
    # equal outlines alternate
    assert found.sum() + matched.sum() == 4 * 12 + 4
    assert min(found.sum(), matched.sum()) >= 20
    for colour, mask in ((canvas.MISSED, masks.missed), (canvas.FALSE, masks.false)):
        rows, columns = np.nonzero(colour_at(picture, colour))
        target = np.argwhere(mask) * 4 + 2
        assert abs(np.array([rows.mean(), columns.mean()]) - target.mean(axis=0)).max() < 2
        assert np.ptp(rows) > 20  # the mark around it
    alone = match_overlay(frame, masks._replace(matched=nothing), "caption").crop((0, top, 640, top + 320))
    assert colour_at(alone, canvas.DETECTED).sum() == 4 * 12 + 4
    assert not colour_at(alone, canvas.MATCHED).any()


def test_overlays_of_odd_frames() -> None:
    for shape in ((1, 1), (3, 900), (900, 3)):
        nothing = np.zeros(shape, np.bool_)
        everything = MatchMasks(~nothing, nothing, nothing, ~nothing)
        image = match_overlay(np.zeros(shape, np.float32), everything, "name 帧 " * 40)
        assert image.width >= shape[1]
        assert image.height > shape[0]


def test_contact_sheet() -> None:
    masks = MatchMasks(*[square(8, 8, 3)[:24, :24]] * 4)
    grey = np.linspace(0.4, 0.5, 24 * 24, dtype=np.float32).reshape(24, 24)
    cell = Cell(grey, np.full((24, 24), 0.5, np.float32), masks, ("1  name", "2 px"))
    sizes = [contact_sheet([cell] * count).size for count in (1, 3, 4)]
    assert sizes[0][0] < sizes[1][0] == sizes[2][0]
    assert sizes[1][1] < sizes[2][1]
    image = np.asarray(contact_sheet([cell]))
    crop, response = image[:, : CROP_SIDE + GAP], image[:, CROP_SIDE + GAP + 4 :]
    assert (crop == canvas.GREYS - 1).any()  # stretched to its own range
    middle = round(0.5 * (canvas.GREYS - 1))
    assert (response == middle).sum() > 0.9 * CROP_SIDE**2 * 0.9
    with pytest.raises(ValueError, match="cells is empty"):
        contact_sheet([])


def test_crops_stay_inside() -> None:
    assert crop_window((100, 200), 5.0, 50.0, 48) == (slice(26, 74), slice(0, 48))
    assert crop_window((100, 200), 199.0, 99.0, 48) == (slice(52, 100), slice(152, 200))
    assert crop_window((30, 200), 100.0, 3.0, 48) == (slice(0, 30), slice(76, 124))


def test_text_that_fonts_lack() -> None:
    assert canvas.printable("a\u00e9帧\n\udce9$") == "a\u00e9???$"
