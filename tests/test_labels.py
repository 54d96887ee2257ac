"""Labels in other formats: what is read, what is written, and what is said of broken files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank.cli.entry import main
from serank.datasets import FolderDataset, describe_folder, import_labels, read_boxes
from serank.datasets.labels.rule import box_mask, point_mask

HEIGHT, WIDTH = 40, 64
TARGET = (slice(10, 14), slice(20, 26))
"""Rows and columns of the bright target in every frame."""
BOX = (20, 10, 26, 14)


def frame(path: Path, level: int = 200, mode: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels: NDArray[Any] = np.full((HEIGHT, WIDTH), 60, mode)
    pixels[TARGET] = level
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def truth() -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[TARGET] = True
    return mask


def coco(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [20, 10, 6, 4]} | changes
    return {
        "images": [
            {"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 6, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [{key: value for key, value in annotation.items() if value is not None}],
        "categories": [{"id": 3, "name": "drone"}, {"id": 4, "name": "bird"}],
    }


def coco_folder(root: Path, **changes: Any) -> Path:
    for name in "ab":
        frame(root / "images" / f"{name}.png")
    write(root / "annotations" / "instances_train.json", coco(**changes))
    return root


def voc_xml(**sides: Any) -> str:
    box = {"xmin": 21, "ymin": 11, "xmax": 26, "ymax": 14} | sides
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in box.items() if value is not None)
    return (
        f"<annotation><filename>a.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        f"<object><name>drone</name><bndbox>{inner}</bndbox></object></annotation>"
    )


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


def yolo_line(x0: float = 20, y0: float = 10, x1: float = 26, y1: float = 14, kind: int = 0) -> str:
    x, y, w, h = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
    return f"{kind} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"


def yolo_folder(root: Path, line: str | None = None) -> Path:
    for split, name in (("train", "a"), ("val", "b"), ("val", "c")):
        frame(root / "images" / split / f"{name}.png")
    write(root / "labels" / "train" / "a.txt", yolo_line() if line is None else line)
    write(root / "labels" / "val" / "b.txt", yolo_line())
    write(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: {0: drone, 1: bird}\n")
    return root


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


def voc_folder(root: Path, xml: str | None = None) -> Path:
    frame(root / "JPEGImages" / "a.png")
    write(root / "Annotations" / "a.xml", voc_xml() if xml is None else xml)
    write(root / "ImageSets" / "Main" / "val.txt", "a\n")
    write(root / "ImageSets" / "Main" / "trainval.txt", "a\n")
    return root


def test_voc_counts_pixels_from_one_and_the_last_is_in(tmp_path: Path) -> None:
    report = import_labels(voc_folder(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", ["a"])
    assert (report.format, report.splits) == ("voc", {"val": 1})


def labelme(kind: str, points: list[list[float]]) -> dict[str, Any]:
    shape = {"label": "drone", "shape_type": kind, "points": points}
    return {"shapes": [shape], "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}


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


# ---- broken files

BROKEN_COCO: list[tuple[dict[str, Any], str]] = [
    ({"bbox": [20, 10, 6]}, r"annotations\[0\]: 'bbox' has 3 numbers, expected 4"),
    ({"bbox": [20, 10, -6, 4]}, r"annotations\[0\], bbox: width of the box is -6, expected more than 0"),
    ({"bbox": ["x", 10, 6, 4]}, r"bbox: x is 'x', expected a finite number"),
    ({"bbox": [float("nan"), 10, 6, 4]}, r"x is nan, expected a finite number"),
    ({"bbox": [200, 10, 6, 4]}, r"annotations\[0\]: box from \(200, 10\) .* outside the frame of 64 x 40 px"),
    ({"bbox": None}, r"annotations\[0\]: has neither 'bbox' nor 'segmentation'"),
    ({"image_id": 99}, r"annotations\[0\]: image_id 99 is the id of no image"),
    ({"image_id": None}, r"annotations\[0\]: lacks 'image_id'"),
    ({"image_id": True}, r"'image_id' is True, expected a whole number"),
    ({"category_id": 9}, r"category_id 9 is not among the categories \[3, 4\]"),
    ({"segmentation": [[1, 2, 3, 4]]}, r"segmentation\[0\]: 4 numbers are no polygon"),
    ({"segmentation": {"size": [4, 4], "counts": [3, 4]}}, r"segmentation: 'counts' must .* 16 pixels .* up to 7"),
    (
        {"segmentation": {"size": [4, 4], "counts": [10, 6]}},
        r"annotations\[0\]: mask of 4 x 4 px, its frame has 64 x 40",
    ),
    ({"segmentation": {"size": [4, 4], "counts": "!!"}}, r"'counts' holds '!'"),
    ({"segmentation": {"size": [4, 4], "counts": "P"}}, r"'counts' is cut off"),
    ({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, r"mask of 1000000000 x 1000000000 px"),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}, r"mask without a pixel"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN_COCO)
def test_broken_coco(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        import_labels(coco_folder(tmp_path / "in", **changes), tmp_path / "out")
    assert "instances_train.json" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]  # nothing half-written


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1\n", r"a\.txt, line 1: 3 numbers after the class, expected 4"),
        ("\n0 0.5 0.5 0.1 zero\n", r"a\.txt, line 2: height is 'zero', expected a finite number"),
        (
            "0 20 10 6 4\n",
            r"line 1: reaches from 8 to 23, expected shares of the frame's sides in \[0, 1\], not pixels",
        ),
        ("0 0.5 0.5 0.1 0\n", r"line 1: width 0.1 and height 0 must be above 0"),
        ("7 0.5 0.5 0.1 0.1\n", r"line 1: class 7 has no name; expected one of \[0, 1\]"),
        ("0.5 0.5 0.5 0.1 0.1\n", r"line 1: class is '0.5', expected a whole number"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4\n", r"line 1: 7 numbers after the class"),
    ],
)
def test_broken_yolo(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        import_labels(yolo_folder(tmp_path / "in", line), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_broken_yolo_folders(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path / "in")
    write(root / "labels" / "val" / "lost.txt", yolo_line())
    with pytest.raises(FileNotFoundError, match=r"lost\.txt: no frame 'lost' in .*val; add it or remove the labels"):
        import_labels(root, tmp_path / "out")
    write(root / "data.yaml", "train: [\n")
    with pytest.raises(ValueError, match=r"data\.yaml, line 2: is not YAML"):
        import_labels(root, tmp_path / "out")
    write(root / "data.yaml", "train: images/nothing\nnames: [drone]\n")
    with pytest.raises(FileNotFoundError, match=r"data\.yaml, 'train': 'images/nothing' is no folder with frames"):
        import_labels(root, tmp_path / "out")
    write(root / "data.yaml", "train: images/train\nval: images/train\n")
    with pytest.raises(
        ValueError, match=r"data\.yaml: 'train' and 'val' both name .*images/train; leave one of them out"
    ):
        import_labels(root, tmp_path / "out")
    write(root / "data.yaml", "train: images/train\nwhen: 2024-99-99\n")
    with pytest.raises(ValueError, match=r"data\.yaml: is not YAML"):
        import_labels(root, tmp_path / "out")
    # each level holds the one before ten times
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    write(root / "data.yaml", bomb + "train: images/train\nnames: {0: *a11, 1: b}\n")
    (root / "labels" / "val" / "lost.txt").unlink()
    assert import_labels(root, tmp_path / "out").frames == 1


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (voc_xml(xmin="a"), r"a\.xml, object 1: xmin is 'a', expected a finite number"),
        (voc_xml(xmax=5), r"object 1: xmax 5 must be larger than xmin 20"),
        (voc_xml(ymax=None), r"object 1: <bndbox> lacks <ymax>"),
        (voc_xml(xmin=300, xmax=310), r"object 1: box .* outside the frame"),
        ("<annotation><object/></annotation>", r"object 1: lacks <bndbox>"),
        ("<annotation>", r"a\.xml, line 1: is not XML \(no element found\)"),
        ("<page><annotation/></page>", r"begins with <page>, expected <annotation>"),
        (voc_xml().replace(f"<width>{WIDTH}", "<width>640"), r"a\.xml: says 640 x 40 px .* has 64 x 40"),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>' + voc_xml().replace("drone", "&c;"),
            r"a\.xml: declares a document type",
        ),
    ],
)
def test_broken_voc(xml: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        import_labels(voc_folder(tmp_path / "in", xml), tmp_path / "out", format="voc")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            labelme("circle", [[1, 2], [3, 4]]),
            r"shapes\[0\]: shape_type is 'circle', expected rectangle, polygon or point",
        ),
        (labelme("rectangle", [[1, 2]]), r"a rectangle of 1 points, expected 2"),
        (labelme("rectangle", [[1, 2], [1, 9]]), r"x1 1 must be larger than x0 1"),
        (labelme("polygon", [[1, 2], [3]]), r"points\[1\] has 1 numbers, expected x and y"),
        (labelme("point", [[640, 2]]), r"shapes\[0\]: point \(639.5, 1.5\) lies outside the frame"),
        ("{", r"b\.json, line 1: is not JSON"),
        ('{"shapes": ' + "9" * 5000 + "}", r"b\.json: can't be read"),
        ("[" * 100_000, r"b\.json: is nested too deeply"),
        ("[]", r"b\.json: holds a list of 0, expected a JSON object"),
    ],
)
def test_broken_labelme(content: Any, message: str, tmp_path: Path) -> None:
    frame(tmp_path / "in" / "a.png")
    frame(tmp_path / "in" / "c.png")
    write(tmp_path / "in" / "a.json", labelme("point", [[22, 12]]) | {"imagePath": "c.png"})
    write(tmp_path / "in" / "b.json", content)
    with pytest.raises(ValueError, match=message):
        import_labels(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1,two", r"t\.csv, line 2: y is 'two', expected a finite number"),
        ("a.png,1,", r"line 2: y is '', expected a finite number"),
        ("a.png,1", r"line 2: 'a.png,1' is no row of file, x, y"),
        ("a.png,64,1", r"line 2: point \(64, 1\) lies outside the frame"),
    ],
)
def test_broken_centroids(row: str, message: str, tmp_path: Path) -> None:
    frame(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "t.csv", f"file,x,y\n{row}\n")
    with pytest.raises(ValueError, match=message):
        import_labels(tmp_path / "in", tmp_path / "out")


def test_frames_that_are_not_there_or_not_readable(tmp_path: Path) -> None:
    root = coco_folder(tmp_path / "in")
    (root / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.png: not an image"):
        import_labels(root, tmp_path / "out")
    (root / "images" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"images\[1\]: no frame 'b.png' in .*--images"):
        import_labels(root, tmp_path / "out")
    frame(tmp_path / "elsewhere" / "b.png")
    frame(tmp_path / "elsewhere" / "a.png")
    assert import_labels(root, tmp_path / "out", images=tmp_path / "elsewhere").frames == 2


def test_output_is_never_overwritten(tmp_path: Path) -> None:
    root = coco_folder(tmp_path / "in")
    import_labels(root, tmp_path / "out", link=True)
    assert (tmp_path / "out" / "images" / "a.png").resolve() == (root / "images" / "a.png").resolve()
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        import_labels(root, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="parent folder doesn't exist"):
        import_labels(root, tmp_path / "no" / "out")


def test_frames_of_one_name_are_refused_where_folders_do_not_tell_them_apart(tmp_path: Path) -> None:
    frame(tmp_path / "in" / "a.png")
    frame(tmp_path / "in" / "images" / "a.png")
    write(tmp_path / "in" / "t.csv", "file,x,y\na.png,22,12\nimages/a.png,22,12\n")
    with pytest.raises(ValueError, match="would both be called 'a'"):
        import_labels(tmp_path / "in", tmp_path / "out")


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
