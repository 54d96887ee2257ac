"""What `serank import` says of broken label files: file, entry, value, what was expected; and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_files import (
    HEIGHT,
    WIDTH,
    coco_folder,
    frame,
    labelme,
    voc_folder,
    voc_xml,
    write,
    yolo_folder,
    yolo_line,
)

from serank.datasets import import_labels

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


def test_labels_of_a_video_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "clip.mkv").write_bytes(b"a video")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,x,y\nclip.mkv,4,5\n")
    with pytest.raises(FileNotFoundError, match=r"labels\.csv.*'clip\.mkv' is a video; write its frames to files"):
        import_labels(labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()
