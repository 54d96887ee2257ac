"""Labels in other formats: what is read, what is written, and what is said of broken files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_files import (
    BOX,
    HEIGHT,
    WIDTH,
    coco,
    coco_folder,
    frame,
    labelme,
    truth,
    voc_folder,
    write,
    yolo_folder,
    yolo_line,
)
from PIL import Image

from serank.cli.entry import main
from serank.datasets import FolderDataset, describe_folder, import_labels, read_boxes, split_folder, write_folder
from serank.datasets.labels.rule import box_mask, point_mask
from serank.frames.reading import decode
from serank.synthetic import SyntheticScenes


def check(folder: Path, names: list[str], *, empty: tuple[str, ...] = ()) -> None:
    """The imported folder is one that the library trains on, with these masks and boxes."""
    dataset = FolderDataset(folder)
    assert dataset.names == names
    boxes = read_boxes(folder / "boxes.json")
    assert set(boxes) == set(names)
    for sample in dataset:
        if sample.name in empty:
            assert not sample.mask.any()
            assert boxes[sample.name] == []
        else:
            np.testing.assert_array_equal(sample.mask, truth())
            assert boxes[sample.name] == [BOX]
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 100


# ---- formats


def test_coco(tmp_path: Path) -> None:
    report = import_labels(coco_folder(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", ["a", "b"], empty=("b",))
    assert (report.format, report.frames, report.empty, dict(report.objects)) == ("coco", 2, 1, {"boxes": 1})
    assert report.splits == {"train": 2}
    assert (tmp_path / "out" / "train.txt").read_text() == "a\nb\n"
    original = (tmp_path / "in" / "images" / "a.png").read_bytes()
    assert (tmp_path / "out" / "images" / "a.png").read_bytes() == original


def test_coco_file_by_name_beside_other_files(tmp_path: Path) -> None:
    root = coco_folder(tmp_path / "in")
    write(root / "config.yaml", "lr: 1\n")  # of a training, no YOLO
    write(root / "annotations" / "other.json", {"version": 1})
    file = root / "annotations" / "instances_train.json"
    assert import_labels(file, tmp_path / "out").splits == {"train": 2}
    assert import_labels(root, tmp_path / "out2").format == "coco"
    with pytest.raises(ValueError, match="format must be one of coco, yolo, voc, labelme, centroids; got 'createml'"):
        import_labels(root, tmp_path / "out3", format="createml")  # type: ignore[arg-type]


def test_other_json_files_beside_the_labels_are_passed_over(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path / "in")
    label_file = folder / "annotations" / "instances_train.json"
    write(folder / "results.json", [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}])
    write(folder / "settings.json", {"name": "a"})
    import_labels(folder, tmp_path / "out")
    check(tmp_path / "out", ["a", "b"], empty=("b",))
    with pytest.raises(ValueError, match=r"results\.json: holds a list of 1, expected a JSON object"):
        import_labels(folder / "results.json", tmp_path / "none", format="coco")
    label_file.write_text("{")
    with pytest.raises(ValueError, match=r"line 1: is not JSON"):
        import_labels(label_file, tmp_path / "none")


def test_coco_of_a_hosting_service_has_frames_beside_the_json(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for name in "ab":
            frame(tmp_path / "in" / split / f"{name}.png")
        write(tmp_path / "in" / split / "_annotations.coco.json", coco())
    report = import_labels(tmp_path / "in", tmp_path / "out")
    assert report.splits == {"train": 2, "val": 2}
    # one name in two folders: the folder becomes part of it
    assert (tmp_path / "out" / "val.txt").read_text() == "valid_a\nvalid_b\n"
    check(tmp_path / "out", ["train_a", "train_b", "valid_a", "valid_b"], empty=("train_b", "valid_b"))


def test_coco_outlines_and_run_lengths_are_masks_themselves(tmp_path: Path) -> None:
    # a triangle in the box, drawn in continuous coordinates: centres (20.5, 10.5) to ... lie in it
    triangle = [20, 10, 26, 10, 20, 14]
    import_labels(coco_folder(tmp_path / "in", segmentation=[triangle]), tmp_path / "out")
    mask = FolderDataset(tmp_path / "out")[0].mask
    inside = [(20 + c, 10 + r) for r in range(4) for c in range(6) if (c + 0.5) / 6 + (r + 0.5) / 4 < 1]
    assert sorted((x, y) for y, x in np.argwhere(mask).tolist()) == sorted(inside)

    # column-major runs: zeros first
    flat = truth().T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    runs = {"size": [HEIGHT, WIDTH], "counts": counts}
    import_labels(coco_folder(tmp_path / "in2", segmentation=runs, bbox=None), tmp_path / "out2")
    check(tmp_path / "out2", ["a", "b"], empty=("b",))


def compressed(counts: list[int]) -> str:
    """COCO's compressed run lengths, after the description in its API."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 if more else bits) + 48)
    return text


def test_coco_compressed_run_lengths(tmp_path: Path) -> None:
    mask = truth()
    mask[30:33, 2:40] = True  # more runs, of falling and rising lengths
    flat = mask.T.ravel()
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    runs = {"size": [HEIGHT, WIDTH], "counts": compressed(counts)}
    import_labels(coco_folder(tmp_path / "in", segmentation=runs, bbox=None), tmp_path / "out")
    np.testing.assert_array_equal(FolderDataset(tmp_path / "out")[0].mask, mask)


def test_an_outline_that_is_only_the_box_is_taken_as_a_box(tmp_path: Path) -> None:
    grown = {"bbox": [18, 8, 10, 8], "segmentation": [[18, 8, 28, 8, 28, 16, 18, 16]]}
    import_labels(coco_folder(tmp_path / "in", **grown), tmp_path / "out")
    np.testing.assert_array_equal(FolderDataset(tmp_path / "out")[0].mask, truth())
    assert read_boxes(tmp_path / "out" / "boxes.json")["a"] == [(18, 8, 28, 16)]


def test_yolo(tmp_path: Path) -> None:
    report = import_labels(yolo_folder(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", ["a", "b", "c"], empty=("c",))
    assert (report.format, report.splits) == ("yolo", {"train": 1, "val": 2})


def test_yolo_without_yaml_and_with_folders_of_splits(tmp_path: Path) -> None:
    root = tmp_path / "in"
    frame(root / "train" / "images" / "a.png")
    write(root / "train" / "labels" / "a.txt", yolo_line())
    frame(root / "valid" / "images" / "b.png")
    write(root / "valid" / "labels" / "b.txt", yolo_line())
    report = import_labels(root, tmp_path / "out")
    check(tmp_path / "out", ["a", "b"])
    assert report.splits == {"train": 1, "val": 1}
    # the yaml of a hosting service points beside itself
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [drone]\n")
    assert import_labels(root, tmp_path / "out2").splits == {"train": 1, "val": 1}


def test_yolo_polygons_and_classes(tmp_path: Path) -> None:
    corners = [20 / WIDTH, 10 / HEIGHT, 26 / WIDTH, 10 / HEIGHT, 26 / WIDTH, 14 / HEIGHT, 20 / WIDTH, 14 / HEIGHT]
    line = "0 " + " ".join(map(str, corners)) + "\n" + yolo_line(40, 20, 50, 30, kind=1)
    report = import_labels(yolo_folder(tmp_path / "in", line), tmp_path / "out", classes=["drone"])
    assert dict(report.objects) == {"outlines": 1, "boxes": 1}
    check(tmp_path / "out", ["a", "b", "c"], empty=("c",))
    with pytest.raises(ValueError, match="no target of class 'plane'; the labels have bird, drone"):
        import_labels(tmp_path / "in", tmp_path / "out2", classes=["plane"])


def test_voc_counts_pixels_from_one_and_the_last_is_in(tmp_path: Path) -> None:
    report = import_labels(voc_folder(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", ["a"])
    assert (report.format, report.splits) == ("voc", {"val": 1})


@pytest.mark.parametrize(
    ("kind", "points", "counted"),
    [
        ("rectangle", [[26.0, 14.0], [20.0, 10.0]], "boxes"),
        ("polygon", [[20.0, 10.0], [26.0, 10.0], [26.0, 14.0], [20.0, 14.0]], "outlines"),
        ("point", [[22.7, 12.2]], "points"),
    ],
)
def test_labelme(kind: str, points: list[list[float]], counted: str, tmp_path: Path) -> None:
    frame(tmp_path / "in" / "a.png")
    frame(tmp_path / "in" / "b.png")  # not labelled, so nothing is known of it
    write(tmp_path / "in" / "a.json", labelme(kind, points))
    report = import_labels(tmp_path / "in", tmp_path / "out")
    check(tmp_path / "out", ["a"])
    assert (report.format, dict(report.objects)) == ("labelme", {counted: 1})


@pytest.mark.parametrize("text", ["file,x,y\na.png,22.5,11.5\nb.png,,\n", "a.png;22.5;11.5\nb.png;;\n"])
def test_centroids(text: str, tmp_path: Path) -> None:
    for name in "ab":
        frame(tmp_path / "in" / "images" / f"{name}.png")
    write(tmp_path / "in" / "targets.csv", text)
    report = import_labels(tmp_path / "in", tmp_path / "out")
    check(tmp_path / "out", ["a", "b"], empty=("b",))
    assert (report.format, report.splits) == ("centroids", {})


# ---- the rule


def test_box_rule_takes_what_stands_out_by_the_share_of_the_contrast() -> None:
    grey = np.full((30, 30), 100.0)
    grey[10:15, 10:15] = 129  # below 100 + 0.3 * 100
    grey[11:14, 11:14] = 131
    grey[12, 12] = 200
    grey[16, 17] = 190  # in the box, not connected
    found = box_mask(grey, (8, 8, 19, 18), fraction=0.3)
    expected = np.zeros((10, 11), np.bool_)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(found.mask, expected)
    assert found.stands_out
    lower = box_mask(grey, (8, 8, 19, 18), fraction=0.28)
    assert lower.mask.sum() == 25


def test_rule_fills_holes_and_never_leaves_the_box() -> None:
    grey = np.zeros((20, 20))
    grey[5:12, 5:12] = 10
    grey[8, 8] = 0
    assert box_mask(grey, (5, 5, 12, 12)).mask.all()
    cut = box_mask(grey, (6, 6, 9, 12))
    assert cut.mask.shape == (6, 3)


def test_rule_follows_polarity(tmp_path: Path) -> None:
    frame(tmp_path / "in" / "images" / "a.png", level=10)
    frame(tmp_path / "in" / "images" / "b.png", level=10)
    write(tmp_path / "in" / "annotations" / "labels.json", coco(bbox=[18, 8, 10, 8]))
    report = import_labels(tmp_path / "in", tmp_path / "black", polarity="black-hot")
    assert report.flat == []
    np.testing.assert_array_equal(FolderDataset(tmp_path / "black")[0].mask, truth())
    # the wrong one is said, and the box is taken as it is
    report = import_labels(tmp_path / "in", tmp_path / "white")
    assert [entry.rpartition("/")[2] for entry in report.flat] == ["labels.json, annotations[0]"]
    assert "is the polarity right?" in str(report)
    assert FolderDataset(tmp_path / "white")[0].mask.sum() == 80


def test_a_wrong_polarity_is_seen_in_noise_too() -> None:
    grey = np.random.default_rng(0).normal(100, 2, (40, 40))
    grey[18:22, 18:22] -= 60
    assert not box_mask(grey, (15, 15, 25, 25)).stands_out
    assert box_mask(grey, (15, 15, 25, 25), polarity="black-hot").stands_out


def test_point_rule_seeks_the_peak_close_by_and_stays_in_its_window() -> None:
    grey = np.zeros((60, 60))
    grey[30:33, 30:33] = 50
    grey[30, 37] = 200  # brighter, but farther than the peak may lie
    found = point_mask(grey, 31.4, 31.8)
    x0, y0, _, _ = found.box
    assert {(x + x0, y + y0) for y, x in np.argwhere(found.mask).tolist()} == {
        (x, y) for x in range(30, 33) for y in range(30, 33)
    }
    with pytest.raises(ValueError, match=r"point \(60, 5\) lies outside the frame of 60 x 60 px"):
        point_mask(grey, 60, 5)


@pytest.mark.parametrize(
    ("box", "options", "message"),
    [
        ((0, 0, 31, 4), {}, "must lie in the frame of 30 x 20 px"),
        ((4, 4, 4, 8), {}, "hold a pixel"),
        ((4, 4, 8, 8), {"fraction": 1.0}, "must lie between 0 and 1; got 1.0"),
        ((4, 4, 8, 8), {"polarity": "hot"}, "got 'hot'"),
    ],
)
def test_rule_refuses(box: tuple[int, int, int, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_mask(np.zeros((20, 30)), box, **options)


def test_frames_of_16_bits_are_measured_by_their_own_levels(tmp_path: Path) -> None:
    for name in "ab":
        frame(tmp_path / "in" / "images" / f"{name}.png", level=60000, mode=np.uint16)
    write(tmp_path / "in" / "labels.json", coco(bbox=[18, 8, 10, 8]))
    import_labels(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(FolderDataset(tmp_path / "out")[0].mask, truth())


# ---- the command, and what other parts of the library say of such folders


def test_import_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = yolo_folder(tmp_path / "in")
    out = str(tmp_path / "out")
    assert main(["import", str(root), "--output", out, "--classes", "drone", "--fraction", "0.5", "--link"]) == 0
    said = capsys.readouterr().out
    assert "3 frames of yolo labels, 1 without a target; 2 boxes" in said
    assert "train.txt 1, val.txt 2" in said
    assert main(["import", str(root), "--output", out]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "nothing"), "--output", str(tmp_path / "o")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert main(["import", str(tmp_path / "bare"), "--output", str(tmp_path / "o")]) == 1
    assert "no labels that are known" in capsys.readouterr().err


def test_a_list_to_train_on_alone_is_said_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = yolo_folder(tmp_path / "in")
    yaml = root / "data.yaml"
    yaml.write_text("".join(line for line in yaml.read_text().splitlines(True) if not line.startswith("val")))
    out = tmp_path / "out"
    assert main(["import", str(root), "--output", str(out)]) == 0
    command = f"serank split {out} --overwrite"
    assert f"train.txt 1; `{command}` writes train.txt and val.txt" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=re.escape(f"by `{command}`")):
        FolderDataset(out, "val")
    (out / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"by `serank split {out}`")):
        FolderDataset(out, "val")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"pip install 'serank\[labels\]'"):
        import_labels(yolo_folder(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize("split", [None, "train", "val"])
def test_folders_of_labels_are_told_what_to_do(split: str | None, tmp_path: Path) -> None:
    for make, title in ((yolo_folder, "YOLO"), (coco_folder, "COCO"), (voc_folder, "Pascal VOC")):
        root = make(tmp_path / title)
        with pytest.raises(FileNotFoundError, match=f"it holds {title} labels: `serank import {root} --output FOLDER`"):
            FolderDataset(root, split)
        assert "serank import" in str(describe_folder(root))


def test_train_says_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = yolo_folder(tmp_path / "in")
    assert main(["train", str(root), "--output", str(tmp_path / "run"), "--epochs", "1"]) == 1
    assert f"`serank import {root} --output FOLDER`" in capsys.readouterr().err


def test_read_boxes_refuses(tmp_path: Path) -> None:
    for content, message in (
        ({"a": [[1, 2, 3]]}, r"boxes\.json, 'a', box 1: is a list of 3, expected x0, y0, x1, y1"),
        ({"a": [[1, 2, 1, 5]]}, r"box 1: \[1, 2, 1, 5\] is empty"),
        ({"a": 3}, r"'a': its list is 3, expected a list"),
    ):
        with pytest.raises(ValueError, match=message):
            read_boxes(write(tmp_path / "boxes.json", content))


def grey_file(file: Path, level: int, size: tuple[int, int] = (64, 48)) -> Path:
    """A frame of noise around a level, with a bright target of 3 x 3 px at (31, 21)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(level).normal(level, 2, size[::-1]).clip(0, 200)
    pixels[20:23, 30:33] = 240
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return file


def coco_file(file: Path, names: Sequence[str], **annotation: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name, "width": None, "height": None} for i, name in enumerate(names)]
    targets = [{"id": i, "image_id": i, "bbox": [29, 19, 5, 5], **annotation} for i in range(len(names))]
    file.write_text(json.dumps({"images": images, "annotations": targets, "categories": []}))


@pytest.mark.parametrize(("split", "others"), [("train", ["masks_train", "labels_train"]), ("val", ["trainval"])])
def test_coco_frames_come_from_the_split_s_own_folder(split: str, others: list[str], tmp_path: Path) -> None:
    root = tmp_path / "set"
    coco_file(root / "annotations" / f"instances_{split}.json", ["0001.png"])
    for other in others:
        grey_file(root / other / "0001.png", 10)
    grey_file(root / split / "0001.png", 90)
    import_labels(root, tmp_path / "out")
    assert abs(float(np.median(decode(tmp_path / "out" / "images" / "0001.png"))) - 90) < 3


def test_coco_crowds_are_left_out_and_said(tmp_path: Path) -> None:
    grey_file(tmp_path / "set" / "a.png", 60)
    crowd = {"iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [0, 48 * 64]}}
    coco_file(tmp_path / "set" / "labels.json", ["a.png"], **crowd)
    with pytest.warns(UserWarning, match=r"labels.json: 1 regions of many objects \(iscrowd\) are left out"):
        import_labels(tmp_path / "set", tmp_path / "out")
    assert not decode(tmp_path / "out" / "masks" / "a.png").any()


@pytest.mark.parametrize(
    "annotation",
    [
        {"segmentation": [[]]},
        {"segmentation": None},
        {"bbox": [30, 20, 0, 0], "segmentation": [[29, 19, 34, 19, 31, 25]]},
    ],
)
def test_what_coco_tools_write_for_none(annotation: dict[str, Any], tmp_path: Path) -> None:
    grey_file(tmp_path / "set" / "a.png", 60)
    coco_file(tmp_path / "set" / "labels.json", ["a.png"], **annotation)
    import_labels(tmp_path / "set", tmp_path / "out")
    assert decode(tmp_path / "out" / "masks" / "a.png")[21, 31] == 255


def test_frames_of_a_sequence_stay_one(tmp_path: Path) -> None:
    """Names that occur in two folders get their folder, and so do the others of these folders."""
    rows = ["file,x,y"]
    for folder, count in (("seq1", 2), ("seq2", 4), ("other", 1)):
        for i in range(count):
            name = f"{folder}/{'x' if folder == 'other' else ''}{i:04}.png"
            grey_file(tmp_path / "set" / name, 60 + i)
            rows.append(f"{name},31,21")
    (tmp_path / "set" / "labels.csv").write_text("\n".join(rows))
    import_labels(tmp_path / "set", tmp_path / "out")
    names = sorted(p.stem for p in (tmp_path / "out" / "images").iterdir())
    assert names == ["seq1_0000", "seq1_0001", *(f"seq2_{i:04}" for i in range(4)), "x0000"]


@pytest.mark.parametrize("name", ["test", "test2", "Test", "testing", "tests", "test-night"])
def test_lists_of_test_frames_of_any_name_are_left_out(name: str, tmp_path: Path) -> None:
    write_folder(SyntheticScenes(8, 32, 32, targets=(1, 1), size=(3, 5), scr=(10, 30), seed=1), tmp_path)
    stems = sorted(p.stem for p in (tmp_path / "images").iterdir())
    for old in tmp_path.glob("*.txt"):
        old.unlink()
    (tmp_path / f"{name}.txt").write_text("\n".join(stems[:3]))
    made = split_folder(tmp_path, val=0.3)
    assert sorted([*made.train, *made.val]) == stems[3:]


@pytest.mark.parametrize("given", ["", "Annotations"])
def test_voc_lists_of_names_with_spaces(given: str, tmp_path: Path) -> None:
    root = tmp_path / "VOC"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    box = "<bndbox><xmin>30</xmin><ymin>20</ymin><xmax>34</xmax><ymax>24</ymax></bndbox>"
    for i in range(4):
        grey_file(root / "JPEGImages" / f"clip {i}.png", 60 + i)
        stale = "<filename>clip 0.png</filename>"  # of the frame that the file was copied from
        text = f"<annotation>{stale}<object><name>t</name>{box}</object></annotation>"
        (root / "Annotations" / f"clip {i}.xml").write_text(text)
    (root / "ImageSets" / "Main" / "train.txt").write_text("clip 0\nclip 1  1\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("clip 2 -1\nclip 3\n")
    import_labels(root / given, tmp_path / "out", images=root / "JPEGImages" if given else None)
    lists = {s: (tmp_path / "out" / f"{s}.txt").read_text().splitlines() for s in ("train", "test")}
    assert lists == {"train": ["clip 0", "clip 1"], "test": ["clip 2", "clip 3"]}


def test_yolo_splits_share_a_folder_of_labels_and_may_hold_no_target(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    for split in ("train", "val"):
        grey_file(root / "images" / split / f"{split}1.png", 60)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{split}1.txt").write_text("0 0.49 0.45 0.08 0.1\n")
    assert import_labels(root, tmp_path / "out1").frames == 2
    root = tmp_path / "empty"
    for split in ("train", "val"):
        grey_file(root / "images" / split / f"{split}1.png", 60)
        (root / "labels" / split).mkdir(parents=True)
    (root / "labels" / "train" / "train1.txt").write_text("0 0.49 0.45 0.08 0.1\n")
    assert import_labels(root, tmp_path / "out2").frames == 2
    assert not decode(tmp_path / "out2" / "masks" / "val1.png").any()


def test_rows_that_lack_a_column_are_named(tmp_path: Path) -> None:
    grey_file(tmp_path / "a.png", 60)
    (tmp_path / "labels.csv").write_text("label,file,x,y\nt,a.png,31,21\nt,a.png,31\n")
    with pytest.raises(ValueError, match=r"labels\.csv, line 3: 't,a\.png,31' is no row of file, x, y"):
        import_labels(tmp_path, tmp_path / "out")


def test_a_dead_pixel_is_not_taken_for_the_target_beside_it(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).normal(1000, 5, (48, 64))
    counts[20:23, 30:33] = 1200
    counts[25, 35] = 65535
    np.save(tmp_path / "a.npy", counts.astype(np.uint16))
    (tmp_path / "labels.csv").write_text("file,x,y\na.npy,31,21\n")
    import_labels(tmp_path, tmp_path / "out")
    mask = FolderDataset(tmp_path / "out")[0].mask
    assert mask[20:23, 30:33].all()
    assert not mask[25, 35]


def test_what_an_import_wrote_is_not_imported_again(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path / "in")
    frames = import_labels(root, root / "out1").frames
    assert import_labels(root, root / "out2").frames == frames
    (root / "boxes.json").write_text("{}")  # beside images/ of its own
    assert import_labels(root, root / "out3").frames == frames


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_linked_folders_are_read(tmp_path: Path) -> None:
    """Once, also where a link leads round."""
    for split in ("train", "val"):
        grey_file(tmp_path / "elsewhere" / split / f"{split}1.png", 60)
        (tmp_path / "elsewhere" / split / "labels.csv").write_text(f"file,x,y\n{split}1.png,31,21\n")
    root = tmp_path / "set"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "elsewhere" / "train")
    (root / "val").symlink_to(tmp_path / "elsewhere" / "val")
    (root / "val" / "round").symlink_to(root)
    assert import_labels(root, tmp_path / "out").splits == {"train": 1, "val": 1}
