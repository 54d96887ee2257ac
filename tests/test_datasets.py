"""Folder data sets: every layout in use, lists as people write them, masks as they are found, reports on folders."""

from __future__ import annotations

import pickle
import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank.datasets import (
    FolderDataset,
    Overlap,
    Sample,
    SizeMismatch,
    check_overlap,
    describe_folder,
    grey_statistics,
    split_names,
    warn_overlap,
)
from serank.errors import FrameError
from serank.frames.sources import frame_files
from serank.metrics import DetectionMetrics

SHAPE = (12, 16)
Mask = NDArray[np.bool_]


def frame_of(name: str) -> NDArray[np.uint8]:
    """Another frame for each name."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, SHAPE, dtype=np.uint8)


def mask_of(name: str) -> Mask:
    mask = np.zeros(SHAPE, np.bool_)
    row = sum(name.encode()) % 9
    mask[row : row + 3, 4:6] = True
    return mask


def save(file: Path, pixels: NDArray[Any], mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file)


def build(
    base: Path,
    *names: str,
    images: str = "images",
    masks: str = "masks",
    ending: str = "",
    suffix: str = ".png",
) -> Path:
    for name in names:
        save(base / images / f"{name}{suffix}", frame_of(name))
        save(base / masks / f"{name}{ending}.png", mask_of(name).astype(np.uint8) * 255)
    return base


def write_list(file: Path, *names: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(names) + "\n", encoding="utf-8")


def check(dataset: FolderDataset, *names: str) -> None:
    """The data set holds exactly these names, in order, each with its own frame and mask."""
    assert dataset.names == list(names)
    assert len(dataset) == len(names)
    samples = list(dataset)
    assert [s.name for s in samples] == list(names)
    for sample in samples:
        assert isinstance(sample, Sample)
        assert sample.frame.dtype == np.float32
        assert sample.mask.dtype == np.bool_
        np.testing.assert_array_equal(sample.frame, frame_of(sample.name) / np.float32(255))
        np.testing.assert_array_equal(sample.mask, mask_of(sample.name))


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_plain_folder(tmp_path: Path) -> None:
    build(tmp_path, "c", "a", "b")
    check(FolderDataset(tmp_path), "a", "b", "c")
    check(FolderDataset(str(tmp_path)), "a", "b", "c")
    assert str(FolderDataset(tmp_path).layout) == "images/ and masks/"


def test_layout_with_lists_in_img_idx(tmp_path: Path) -> None:
    build(tmp_path, "a", "b", "c", "d")
    write_list(tmp_path / "img_idx/train_NUDT-SIRST.txt", "c", "a")
    write_list(tmp_path / "img_idx/test_NUDT-SIRST.txt", "b", "d")
    check(FolderDataset(tmp_path, "train"), "c", "a")
    check(FolderDataset(tmp_path, "test"), "b", "d")
    check(FolderDataset(tmp_path, "train_NUDT-SIRST"), "c", "a")
    assert str(FolderDataset(tmp_path, "train").layout) == "images/ and masks/, lists in img_idx/"
    check(FolderDataset(tmp_path), "a", "b", "c", "d")


def test_split_that_several_lists_match(tmp_path: Path) -> None:
    build(tmp_path, "a", "b")
    write_list(tmp_path / "img_idx/train_X.txt", "a")
    write_list(tmp_path / "img_idx/train_Y.txt", "b")
    with pytest.raises(FileNotFoundError, match=r"no split 'train'.*train_X\.txt, .*train_Y\.txt"):
        FolderDataset(tmp_path, "train")
    check(FolderDataset(tmp_path, "train_Y"), "b")
    write_list(tmp_path / "img_idx/train.txt", "b", "a")
    check(FolderDataset(tmp_path, "train"), "b", "a")


def test_layout_with_split_folders(tmp_path: Path) -> None:
    build(tmp_path / "trainval", "a", "b")
    build(tmp_path / "test", "c")
    check(FolderDataset(tmp_path, "trainval"), "a", "b")
    check(FolderDataset(tmp_path, "test"), "c")
    layout = FolderDataset(tmp_path, "test").layout
    assert layout.split_folders == ("test", "trainval")
    assert str(layout) == "images/ and masks/ in each of test/, trainval/"
    assert str(FolderDataset(tmp_path / "test").layout) == "images/ and masks/"
    with pytest.raises(FileNotFoundError, match=r"expected a folder of frames.*name one of them: test, trainval"):
        FolderDataset(tmp_path)


def test_split_folder_below_a_sub_folder(tmp_path: Path) -> None:
    build(tmp_path / "deep" / "test", "c")
    dataset = FolderDataset(tmp_path, "deep/test")
    check(dataset, "c")
    assert str(dataset.layout) == "images/ and masks/"


def test_layout_with_lists_at_the_root(tmp_path: Path) -> None:
    build(tmp_path, "a", "b", "c", suffix=".bmp")
    write_list(tmp_path / "trainval.txt", "b", "a")
    write_list(tmp_path / "test.txt", "c")
    check(FolderDataset(tmp_path, "trainval"), "b", "a")
    check(FolderDataset(tmp_path, "test"), "c")
    assert str(FolderDataset(tmp_path).layout) == "images/ and masks/, lists in the folder itself"


def test_layout_of_the_original_sirst(tmp_path: Path) -> None:
    build(tmp_path, "Misc_1", "Misc_10", "Misc_2", ending="_pixels0")
    write_list(tmp_path / "idx_427/trainval.txt", "Misc_10", "Misc_2")
    write_list(tmp_path / "idx_427/test.txt", "Misc_1")
    check(FolderDataset(tmp_path, "trainval"), "Misc_10", "Misc_2")
    check(FolderDataset(tmp_path, "test"), "Misc_1")
    check(FolderDataset(tmp_path), "Misc_1", "Misc_10", "Misc_2")
    assert str(FolderDataset(tmp_path).layout) == "images/ and masks/NAME_pixels0, lists in idx_427/"


def test_layout_with_mask_endings(tmp_path: Path) -> None:
    build(tmp_path, "000", "001", ending="_mask")
    check(FolderDataset(tmp_path), "000", "001")
    assert FolderDataset(tmp_path).layout.mask_ending == "_mask"


def test_mask_named_as_its_frame_comes_first(tmp_path: Path) -> None:
    build(tmp_path, "a")
    save(tmp_path / "masks/a_mask.png", np.full(SHAPE, 255, np.uint8))
    check(FolderDataset(tmp_path), "a")


def test_layout_of_irstd1k(tmp_path: Path) -> None:
    build(tmp_path, "XDU0", "XDU1", images="IRSTD1k_Img", masks="IRSTD1k_Label")
    write_list(tmp_path / "test.txt", "XDU1")
    check(FolderDataset(tmp_path), "XDU0", "XDU1")
    check(FolderDataset(tmp_path, "test"), "XDU1")
    layout = FolderDataset(tmp_path).layout
    assert (layout.images, layout.masks, layout.list_folders) == ("IRSTD1k_Img", "IRSTD1k_Label", ("",))


def test_frames_and_masks_of_other_suffixes(tmp_path: Path) -> None:
    for name, suffix in (("a", ".PNG"), ("b", ".tif"), ("c.7", ".bmp")):
        build(tmp_path, name, suffix=suffix)
    (tmp_path / "images/notes.txt").write_text("not a frame")
    (tmp_path / "images/._a.png").write_bytes(b"macOS keeps attributes so")
    (tmp_path / "images/folder.png").mkdir()
    check(FolderDataset(tmp_path), "a", "b", "c.7")


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"b\na\n",
        b"b\na",
        b"b.png\na.bmp\n",
        b"b\r\na\r\n",
        b"\n\nb\n   \n\ta  \n\n",
        b"\xef\xbb\xbfb\r\na.png\r\n",
        b"images/b.png\nimages/a.PNG\n",
    ],
)
def test_lists_as_people_write_them(tmp_path: Path, content: bytes) -> None:
    build(tmp_path, "a", "b", "c")
    (tmp_path / "train.txt").write_bytes(content)
    check(FolderDataset(tmp_path, "train"), "b", "a")


def test_names_beyond_ascii_and_with_dots(tmp_path: Path) -> None:
    build(tmp_path, "t\u00e9st 1", "scene.001")
    write_list(tmp_path / "train.txt", "t\u00e9st 1.png", "scene.001")
    check(FolderDataset(tmp_path, "train"), "t\u00e9st 1", "scene.001")


def test_empty_list(tmp_path: Path) -> None:
    build(tmp_path, "a")
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.raises(FileNotFoundError, match=r"train\.txt: the list is empty"):
        FolderDataset(tmp_path, "train")


def test_list_in_another_encoding(tmp_path: Path) -> None:
    build(tmp_path, "a")
    (tmp_path / "train.txt").write_bytes("a\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"train\.txt: is not UTF-8 text"):
        FolderDataset(tmp_path, "train")


def test_missing_split(tmp_path: Path) -> None:
    build(tmp_path, "a")
    with pytest.raises(FileNotFoundError, match=r"no split 'train'.*lists found: none"):
        FolderDataset(tmp_path, "train")
    write_list(tmp_path / "val.txt", "a")
    write_list(tmp_path / "img_idx/test_X.txt", "a")
    with pytest.raises(FileNotFoundError) as caught:
        FolderDataset(tmp_path, "train")
    message = str(caught.value)
    assert "neither a folder train/images nor a list train.txt" in message
    found = f"lists found: {Path('img_idx/test_X.txt')}, val.txt. Write train.txt with a frame's name on each line, or "
    assert f"{found}train.txt and val.txt by `serank split {tmp_path} --overwrite`" in message
    with pytest.raises(FileNotFoundError, match=r"Write holdout\.txt with a frame's name on each line$"):
        FolderDataset(tmp_path, "holdout")  # no word of a command that replaces the other lists


@pytest.mark.parametrize("split", ["[", "*", "**", "tr?in", "/nowhere", "train.txt"])
def test_odd_split_names_are_no_patterns(tmp_path: Path, split: str) -> None:
    build(tmp_path, "a")
    write_list(tmp_path / "img_idx/train_X.txt", "a")
    with pytest.raises(FileNotFoundError, match="no split"):
        FolderDataset(tmp_path, split)


def test_missing_frames_and_masks(tmp_path: Path) -> None:
    build(tmp_path, "a", "b", "c")
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "masks/b.png").unlink()
    write_list(tmp_path / "train.txt", "a", "b", "c")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 entries lack a file: a \(frame\), b \(mask\)$"):
        FolderDataset(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 entries lack a file: b \(mask\)$"):
        FolderDataset(tmp_path)
    write_list(tmp_path / "train.txt", *(f"n{i}" for i in range(8)))
    with pytest.raises(FileNotFoundError, match=r"8 of 8 .* n4 \(frame\) and 3 more$"):
        FolderDataset(tmp_path, "train")


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; expected one with images/ and masks/"):
        FolderDataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="expected a folder of frames"):
        FolderDataset(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="one of masks"):
        FolderDataset(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no frames in .*images"):
        FolderDataset(tmp_path)
    (tmp_path / "file.txt").write_text("a")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        FolderDataset(tmp_path / "file.txt")


@pytest.mark.parametrize("entry", ["../secret", "../secret.png", "../../out/images/secret", "{out}/images/secret.png"])
def test_names_that_leave_the_folder(tmp_path: Path, entry: str) -> None:
    out = build(tmp_path / "out", "secret")
    save(tmp_path / "in/secret.png", frame_of("secret"))
    root = build(tmp_path / "in", "a")
    write_list(root / "train.txt", "a", entry.format(out=out))
    with pytest.raises(FileNotFoundError, match=r"secret \(frame\)"):
        FolderDataset(root, "train")


# --- bundled lists ---------------------------------------------------------------------------------------------------


def test_bundled_list_for_a_folder_without_lists(tmp_path: Path) -> None:
    build(tmp_path, *split_names("sirst", "val"), "Misc_189", ending="_pixels0")
    check(FolderDataset(tmp_path, "sirst:val"), *split_names("sirst", "val"))
    with pytest.raises(FileNotFoundError, match=r"255 of 256 entries lack a file: Misc_181 \(frame\)"):
        FolderDataset(tmp_path, "sirst:train")
    with pytest.raises(FileNotFoundError, match=r"no split 'sirst:dev'.*bundled lists: .*sirst:val"):
        FolderDataset(tmp_path, "sirst:dev")


# --- overlaps --------------------------------------------------------------------------------------------------------


def lists(root: Path, **names: str) -> Path:
    """A folder with the frames a to f and lists of them."""
    build(root, *"abcdef")
    for split, letters in names.items():
        write_list(root / f"{split}.txt", *letters)
    return root


@pytest.mark.parametrize(
    ("first", "second"), [("train", "test"), ("trainval", "test"), ("train", "val"), ("val", "test"), ("test", "train")]
)
def test_overlapping_lists_are_warned_of_once(tmp_path: Path, first: str, second: str) -> None:
    root = lists(tmp_path, **{first: "abcde", second: "fedcb"})
    with pytest.warns(UserWarning, match=r"share 4 frames \([bcdef], [bcdef], [bcdef] and 1 more\)") as caught:
        dataset = FolderDataset(root, first)
    assert len(caught) == 1
    assert first in str(caught[0].message)
    assert Path(caught[0].filename) == Path(__file__)
    check(dataset, *"abcde")
    check(FolderDataset(root, second), *"fedcb")  # said already


def test_lists_that_may_overlap(tmp_path: Path) -> None:
    root = lists(tmp_path, train="abc", val="de", trainval="abcde", test="f", all="abcdef", trainvaltest="abcdef")
    write_list(root / "img_idx/train_X.txt", *"abc")
    write_list(root / "img_idx/test_Y.txt", *"abc")
    write_list(root / "idx_427/train.txt", *"def")
    check(FolderDataset(root, "train"), *"abc")
    assert describe_folder(root).name_overlaps == []
    assert describe_folder(root).content_overlaps == []


def test_overlapping_lists_in_img_idx(tmp_path: Path) -> None:
    build(tmp_path, "a", "b")
    write_list(tmp_path / "img_idx/train_X.txt", "a", "b")
    write_list(tmp_path / "img_idx/test_X.txt", "b")
    with pytest.warns(UserWarning, match=r"img_idx/train_X and img_idx/test_X share 1 frame \(b\)"):
        FolderDataset(tmp_path, "test")


def test_overlapping_split_folders(tmp_path: Path) -> None:
    """Numbers are given anew in each folder: only equal files count there."""
    for split in ("trainval", "test"):
        build(tmp_path / split, "000", "001")
        save(tmp_path / split / "images/000.png", frame_of(split))
    with pytest.warns(UserWarning, match=r"trainval and test share 1 frame \(001\)"):
        FolderDataset(tmp_path, "test")
    build(tmp_path / "trainval", "scene")
    build(tmp_path / "test", "scene")
    save(tmp_path / "test/images/scene.png", frame_of("other"))
    with pytest.warns(UserWarning, match=r"share 2 frames \(001, scene\)"):
        FolderDataset(tmp_path, "trainval")


def test_check_overlap(tmp_path: Path) -> None:
    root = lists(tmp_path / "one", first="abcd", second="dbf")
    a, b = FolderDataset(root, "first"), FolderDataset(root, "second")
    assert check_overlap(a, b) == ["b", "d"]
    assert check_overlap(b, a) == ["d", "b"]
    other = FolderDataset(build(tmp_path / "two", "c", "e"))
    assert check_overlap(a, other) == ["c"]
    assert check_overlap(b, other) == []
    with pytest.warns(UserWarning, match=r"training set .*one and the test set .*two share 1 frame \(c\)") as caught:
        assert warn_overlap(a, other) == ["c"]
    assert Path(caught[0].filename) == Path(__file__)
    assert warn_overlap(b, other) == []


def test_sirst_test_frames_in_a_training_list(tmp_path: Path) -> None:
    names = split_names("sirst", "train")[:3] + split_names("sirst", "test")[:2]
    build(tmp_path, *names)
    write_list(tmp_path / "train.txt", *names)
    with pytest.warns(UserWarning, match=r"train holds 2 of the 86 test frames .*\(Misc_6, Misc_8\)") as caught:
        FolderDataset(tmp_path, "train")
    assert Path(caught[0].filename) == Path(__file__)
    FolderDataset(tmp_path, "train")  # said already
    FolderDataset(tmp_path)
    assert describe_folder(tmp_path).sirst_test == {"train": 2}


# --- reports ---------------------------------------------------------------------------------------------------------


def test_report_on_a_sound_folder(tmp_path: Path) -> None:
    root = lists(tmp_path, train="abc", test="def")
    save(root / "masks/e.png", np.zeros(SHAPE, np.uint8))
    (root / "LICENSE.txt").write_text("Do as you like.\n")
    report = describe_folder(root)
    assert report.problems == []
    assert (report.frames, report.pairs, report.deep) == (6, 6, 0)
    assert report.splits == {"test": 3, "train": 3}
    assert report.empty_masks == ["e"]
    assert (dict(report.sizes), dict(report.modes)) == ({SHAPE: 6}, {"grey uint8": 6})
    assert str(report).splitlines() == [
        f"{root}: images/ and masks/, lists in the folder itself",
        "  frames  6, 6 with a mask, 1 without a target",
        "  sizes   12 x 16 px (height x width)",
        "  modes   grey uint8 6",
        "  splits  test 3, train 3",
        "  no problems found",
    ]


def test_report_names_every_defect(tmp_path: Path) -> None:
    root = build(tmp_path, "a", "b", "c", "Misc_111", "deep", "colour")
    (root / "masks/a.png").unlink()
    save(root / "masks/stray.png", np.zeros(SHAPE, np.uint8))
    save(root / "images/b.bmp", frame_of("b"))
    (root / "masks/c.png").write_bytes(b"nothing")
    save(root / "masks/Misc_111.png", np.zeros((6, 8), np.uint8))
    save(root / "images/deep.png", frame_of("deep").astype(np.uint16) * 100)
    save(root / "images/colour.png", np.zeros((20, 30, 3), np.uint8))
    grey = np.zeros((20, 30), np.uint8)
    grey[4, 5:15] = [*range(30, 255, 25), 255]
    save(root / "masks/colour.png", grey)
    write_list(root / "train.txt", "a", "b", "b", "nowhere", "deep")
    write_list(root / "val.txt", "deep")
    (root / "test.txt").write_text("")
    report = describe_folder(root)
    assert report.frames_without_mask == ["a"]
    assert report.masks_without_frame == ["stray"]
    assert report.same_stem == ["images/b.png"]
    assert [text.split(": ")[0] for text in report.unreadable] == [str(root / "masks/c.png"), str(root / "test.txt")]
    assert report.missing == {"train": ["a", "nowhere"]}
    assert report.repeated == {"train": ["b"]}
    assert report.mismatches == [SizeMismatch("Misc_111", SHAPE, (6, 8))]
    assert report.empty_masks == ["Misc_111"]
    assert report.grey_masks == ["colour"]
    assert report.deep == 1
    assert report.modes["grey uint16"] == report.modes["colour uint8"] == 1
    assert report.name_overlaps == report.content_overlaps == [Overlap("train", "val", ("deep",))]
    text = str(report)
    assert "Misc_111: mask is 6 x 8, its frame 12 x 16 (the known defect of SIRST, resized by nearest)" in text
    assert "12 to 20 px high, 16 to 30 px wide, 2 sizes" in text
    assert "1 of more than 8 bits" in text
    for what in (
        "frames without a mask: 1 (a)",
        "masks without a frame: 1 (stray)",
        "list train: repeated names: 1 (b)",
    ):
        assert what in text
    assert len(report.problems) == 11


def test_report_names_false_colour_and_what_is_passed_over(tmp_path: Path) -> None:
    root = build(tmp_path, "a", "b")
    colours = np.zeros((*SHAPE, 3), np.uint8)
    colours[..., 0], colours[..., 2] = frame_of("a"), 255 - frame_of("a")
    save(root / "images/a.png", colours)
    (root / "images/notes.txt").write_text("of the flight")
    (root / "masks/Thumbs.db").write_bytes(b"0")
    (root / "images/.DS_Store").write_bytes(b"0")
    (root / "images/c.png").symlink_to(tmp_path / "gone.png")
    report = describe_folder(root)
    assert report.coloured == ["a"]
    assert report.passed_over == ["images/notes.txt", "masks/Thumbs.db"]
    assert report.broken_links == ["images/c.png"]
    assert (
        "frames in false colour, where targets may be dark (raw counts, or palette=, --palette): 1 (a)"
        in report.problems
    )
    assert "broken links: 1 (images/c.png)" in report.problems
    assert len(report.problems) == 2
    assert "  others  passed over, no images: 2 (images/notes.txt, masks/Thumbs.db)" in str(report).splitlines()


def test_report_finds_equal_files_of_other_names(tmp_path: Path) -> None:
    root = lists(tmp_path / "lists", train="abc", test="def")
    shutil.copy(root / "images/b.png", root / "images/e.png")
    report = describe_folder(root)
    assert report.name_overlaps == []
    assert report.content_overlaps == [Overlap("train", "test", ("b",))]
    assert "by content, train and test share 1 frame (b)" in str(report)
    for split, name in (("trainval", "000"), ("test", "001")):
        build(tmp_path / "folders" / split, name)
        save(tmp_path / "folders" / split / f"images/{name}.png", frame_of("same"))
    report = describe_folder(tmp_path / "folders")
    assert report.splits == {"test": 1, "trainval": 1}
    assert report.content_overlaps == [Overlap("trainval", "test", ("trainval/000",))]


def test_report_on_split_folders_with_defects(tmp_path: Path) -> None:
    build(tmp_path / "trainval", "a")
    build(tmp_path / "test", "b", "c")
    (tmp_path / "trainval/masks/a.png").rename(tmp_path / "trainval/masks/z.png")
    shutil.rmtree(tmp_path / "test/masks")
    write_list(tmp_path / "test.txt", "b")
    report = describe_folder(tmp_path)
    assert report.frames_without_mask == ["test/b", "test/c", "trainval/a"]
    assert report.masks_without_frame == ["trainval/z"]
    assert report.splits == {"test": 2, "trainval": 1, "test.txt": 1}
    assert report.missing == {"test.txt": ["b"]}


def test_report_knows_known_splits(tmp_path: Path) -> None:
    build(tmp_path, *split_names("sirst", "val"))
    write_list(tmp_path / "val.txt", *sorted(split_names("sirst", "val")))
    assert describe_folder(tmp_path).known == {"val": "sirst val (85 of 341/86)"}
    assert "val 85 = sirst val (85 of 341/86)" in str(describe_folder(tmp_path))


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder", "no masks", "masks alone", "no frames"])
def test_report_on_what_is_no_data_set(tmp_path: Path, what: str) -> None:
    root = tmp_path / "root"
    if what == "a file":
        root.write_text("a")
    elif what != "nothing":
        root.mkdir()
    for name in {"no masks": ("images",), "masks alone": ("masks",), "no frames": ("images", "masks")}.get(what, ()):
        (root / name).mkdir()
    report = describe_folder(root)
    assert report.frames == 0
    if what == "no frames":
        assert report.problems == ["images/ holds no frames"]
        return
    assert report.layout is None
    assert report.problems[0].startswith("no folder of frames")
    assert "no known layout" in str(report)
    assert ("no such folder" in str(report)) == (what in ("nothing", "a file"))


# --- masks -----------------------------------------------------------------------------------------------------------

MASK_FILES: dict[str, Callable[[Mask], Image.Image]] = {
    "0/255": lambda m: Image.fromarray(m.astype(np.uint8) * 255),
    "0/1": lambda m: Image.fromarray(m.astype(np.uint8)),
    "bits": lambda m: Image.fromarray(m.astype(np.uint8) * 255).convert("1"),
    "RGB": lambda m: Image.fromarray(m.astype(np.uint8) * 255).convert("RGB"),
    "RGB 0/1": lambda m: Image.fromarray(m.astype(np.uint8)).convert("RGB"),
    "RGBA": lambda m: Image.fromarray(m.astype(np.uint8) * 255).convert("RGBA"),
    "LA": lambda m: Image.fromarray(m.astype(np.uint8) * 255).convert("LA"),
    "palette": lambda m: Image.fromarray(m.astype(np.uint8) * 255).convert("P"),
    "16 bits, 0/255": lambda m: Image.fromarray(m.astype(np.uint16) * 255),
    "16 bits, 0/1": lambda m: Image.fromarray(m.astype(np.uint16)),
    "16 bits": lambda m: Image.fromarray(m.astype(np.uint16) * 65535),
}


@pytest.mark.parametrize("kind", MASK_FILES)
@pytest.mark.parametrize("target", ["some", "none", "all"])
def test_masks_of_two_values(tmp_path: Path, kind: str, target: str) -> None:
    """Read as they are meant; a mask that is all target is flagged."""
    build(tmp_path, "a")
    expected = {"some": mask_of("a"), "none": np.zeros(SHAPE, np.bool_), "all": np.ones(SHAPE, np.bool_)}[target]
    MASK_FILES[kind](expected).save(tmp_path / "masks/a.png")
    with pytest.warns(UserWarning, match="inverted") if target == "all" else nullcontext():
        np.testing.assert_array_equal(FolderDataset(tmp_path)[0].mask, expected)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("high", [1, 255])
def test_masks_in_tiff(tmp_path: Path, dtype: type, high: int) -> None:
    build(tmp_path, "a")
    (tmp_path / "masks/a.png").unlink()
    save(tmp_path / "masks/a.tif", mask_of("a").astype(dtype) * dtype(high))
    np.testing.assert_array_equal(FolderDataset(tmp_path)[0].mask, mask_of("a"))


def test_grey_masks_are_cut_at_half_and_warned_of_once(tmp_path: Path) -> None:
    build(tmp_path, "a", "b")
    values = np.zeros(SHAPE, np.uint8)
    values[2, :6] = [1, 100, 127, 128, 200, 255]
    for name in "ab":
        save(tmp_path / f"masks/{name}.png", values)
    dataset = FolderDataset(tmp_path)
    with pytest.warns(UserWarning, match=r"a\.png: mask has grey values, cut at half .*\(said once") as caught:
        mask = dataset[0].mask
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    np.testing.assert_array_equal(mask, values >= 128)
    np.testing.assert_array_equal(dataset[1].mask, values >= 128)
    with pytest.warns(UserWarning, match=r"b\.png"):
        FolderDataset(tmp_path)[1]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 65535, 20000, 35000]], np.uint16),
        np.array([[0, 1, 0.25, 0.6]], np.float32),
        np.array([[0, 0.4, 0.11, 0.004]], np.float32),
    ],
)
def test_grey_masks_of_other_types(tmp_path: Path, values: NDArray[Any]) -> None:
    frame = np.zeros((1, 4), np.uint8)
    save(tmp_path / "images/a.png", frame)
    save(tmp_path / "masks/a.tif", values)
    with pytest.warns(UserWarning, match="grey values"):
        mask = FolderDataset(tmp_path)[0].mask
    np.testing.assert_array_equal(mask, values / values.max() > 0.5)


@pytest.mark.parametrize("value", [38, 100, 200])
def test_one_value_besides_0_is_target(tmp_path: Path, value: int) -> None:
    """A cut at 128 would lose the first two in silence."""
    build(tmp_path, "a")
    save(tmp_path / "masks/a.png", mask_of("a").astype(np.uint8) * np.uint8(value))
    np.testing.assert_array_equal(FolderDataset(tmp_path)[0].mask, mask_of("a"))


def test_masks_of_one_folder_are_judged_each_by_itself(tmp_path: Path) -> None:
    root = build(tmp_path, "a", "b", "c", "d")
    for name, high in (("a", 1), ("b", 255), ("c", 127)):
        save(root / f"masks/{name}.png", (mask_of(name) * high).astype(np.uint8))
    Image.fromarray((mask_of("d") * 3).astype(np.uint16)).save(root / "masks/d.png")
    for sample in FolderDataset(root):
        np.testing.assert_array_equal(sample.mask, mask_of(sample.name))
    assert describe_folder(root).problems == []


@pytest.mark.parametrize("kind", ["16 bits", "palette"])
def test_instances_are_targets_of_their_own_unless_they_touch(tmp_path: Path, kind: str) -> None:
    root = build(tmp_path, "a", "b")
    apart, touching = np.zeros((2, *SHAPE), np.uint16)
    apart[2:4, 2:4], apart[7:9, 9:11] = 1, 3
    touching[2:4, 2:4], touching[4:6, 4:6] = 1, 3  # by a corner
    for name, ids in (("a", apart), ("b", touching)):
        image = Image.fromarray(ids)
        if kind == "palette":
            image = Image.fromarray(ids.astype(np.uint8))
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        image.save(root / f"masks/{name}.png")
    metrics = DetectionMetrics()
    for sample, ids in zip(FolderDataset(root), (apart, touching), strict=True):
        np.testing.assert_array_equal(sample.mask, ids > 0)
        metrics.update(sample.mask, sample.mask)
    assert metrics.compute()["targets"] == 3
    report = describe_folder(root)
    assert report.touching_masks == (["b"] if kind == "16 bits" else [])  # colours of palettes are no numbers
    assert report.empty_masks == []


def test_mask_of_another_size_is_resized_by_nearest(tmp_path: Path) -> None:
    """As SIRST's `Misc_111`."""
    build(tmp_path, "a", "b")
    for name in "ab":
        save(tmp_path / f"masks/{name}.png", mask_of("a")[::2, ::2].astype(np.uint8) * 255)
    dataset = FolderDataset(tmp_path)
    with pytest.warns(UserWarning, match=r"a\.png: mask is 6 x 8, its frame 12 x 16; resized") as caught:
        mask = dataset[0].mask
    assert len(caught) == 1
    np.testing.assert_array_equal(mask, np.kron(mask_of("a")[::2, ::2], np.ones((2, 2), np.bool_)))
    assert dataset[1].mask.shape == SHAPE


def test_both_defects_are_warned_of(tmp_path: Path) -> None:
    build(tmp_path, "a")
    save(tmp_path / "masks/a.png", np.full((3, 4), 130, np.uint8))
    dataset = FolderDataset(tmp_path, cache=True)
    with pytest.warns(UserWarning, match="said once for this data set") as caught:
        assert dataset[0].mask.all()
    assert sorted(str(w.message).split("mask ")[1][:4] for w in caught) == ["is 3", "is t"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataset[0].mask.all()


def test_bad_masks_and_frames_are_named(tmp_path: Path) -> None:
    build(tmp_path, "a", "b", "c")
    (tmp_path / "masks/a.png").write_bytes(b"nothing")
    (tmp_path / "images/b.png").write_bytes((tmp_path / "images/b.png").read_bytes()[:90])
    (tmp_path / "masks/c.png").unlink()
    save(tmp_path / "masks/c.tif", np.full(SHAPE, np.nan, np.float32))
    dataset = FolderDataset(tmp_path)
    for i, file in enumerate(
        (r"masks.a\.png: not an image", r"images.b\.png: truncated", r"masks.c\.tif: mask .* NaN")
    ):
        with pytest.raises(FrameError, match=file):
            dataset[i]


def test_file_that_vanishes(tmp_path: Path) -> None:
    dataset = FolderDataset(build(tmp_path, "a"))
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        dataset[0]


# --- imports ---------------------------------------------------------------------------------------------------------


def test_samples_travel_between_processes(tmp_path: Path) -> None:
    dataset = FolderDataset(build(tmp_path, "a", "b"))
    sample: Sample = pickle.loads(pickle.dumps(dataset[1]))
    assert isinstance(sample, Sample)
    assert sample.name == "b"
    np.testing.assert_array_equal(sample.mask, mask_of("b"))
    check(pickle.loads(pickle.dumps(dataset)), "a", "b")


# --- access ----------------------------------------------------------------------------------------------------------


def test_16_bit_and_colour_frames(tmp_path: Path) -> None:
    build(tmp_path, "a", "b")
    save(tmp_path / "images/a.png", frame_of("a"), "RGBA")
    save(tmp_path / "images/b.png", frame_of("b").astype(np.uint16) + 7000)
    dataset = FolderDataset(tmp_path)
    np.testing.assert_array_equal(dataset[0].frame, frame_of("a") / np.float32(255))
    assert np.median(dataset[1].frame) == pytest.approx(0.42, abs=0.01)
    assert 0 < dataset[1].frame.min() < dataset[1].frame.max() < 1


def test_indices(tmp_path: Path) -> None:
    dataset = FolderDataset(build(tmp_path, "a", "b", "c"))
    assert dataset[-1].name == dataset[2].name == dataset[int(np.int64(2))].name == "c"
    assert dataset[-3].name == "a"
    for index in (3, -4, 100):
        with pytest.raises(IndexError):
            dataset[index]


def test_cache_reads_each_file_once(tmp_path: Path) -> None:
    build(tmp_path, "a", "b")
    plain, cached = FolderDataset(tmp_path), FolderDataset(tmp_path, cache=True)
    expected = list(plain)
    list(cached)
    for kind in ("images", "masks"):
        shutil.rmtree(tmp_path / kind)
    for _ in range(2):
        for sample, wanted in zip(cached, expected, strict=True):
            assert sample.name == wanted.name
            np.testing.assert_array_equal(sample.frame, wanted.frame)
            np.testing.assert_array_equal(sample.mask, wanted.mask)
            # what a caller does to a sample stays the caller's
            sample.frame[:] = 0
            sample.mask[:] = True
    with pytest.raises(FileNotFoundError):
        plain[0]


# --- statistics ------------------------------------------------------------------------------------------------------


def test_grey_statistics() -> None:
    rng = np.random.default_rng(3)
    frames = [rng.beta(2, 5, shape).astype(np.float32) for shape in ((30, 40), (7, 90), (64, 64))]
    samples = [Sample(str(i), f, np.zeros(f.shape, np.bool_)) for i, f in enumerate(frames)]
    pixels = np.concatenate([f.ravel() for f in frames]).astype(np.float64)
    mean, std = grey_statistics(samples)
    assert (mean, std) == (round(pixels.mean(), 3), round(pixels.std(), 3))


def test_grey_statistics_limits() -> None:
    constant = Sample("a", np.full((9, 9), 0.3, np.float32), np.zeros((9, 9), np.bool_))
    assert grey_statistics([constant]) == (0.3, 0.001)
    with pytest.raises(ValueError, match="samples is empty"):
        grey_statistics([])


# --- the shared data -------------------------------------------------------------------------------------------------


def test_shared_sirst(shared: Path) -> None:
    root = shared / "data" / "sirst"
    if not root.is_dir():
        pytest.skip(f"needs the frames of {root}")
    everything, both = FolderDataset(root), FolderDataset(root, "trainval")
    train, val = FolderDataset(root, "train"), FolderDataset(root, "val")
    assert (len(everything), len(both), len(train), len(val)) == (341, 341, 256, 85)
    assert not set(train.names) & set(val.names)
    assert set(train.names) | set(val.names) == set(both.names) == set(everything.names)
    assert FolderDataset(root, "sirst:train").names == train.names
    assert check_overlap(train, val) == []
    for i in range(0, 341, 10):
        name, frame, mask, *_ = everything[i]
        assert name == everything.names[i]
        assert frame.shape == mask.shape
        assert 0 <= frame.min() < frame.max() <= 1
        assert 0 < mask.sum() < 0.05 * mask.size


def test_report_on_the_shared_data(shared: Path) -> None:
    root = shared / "data" / "sirst"
    if not root.is_dir():
        pytest.skip(f"needs the frames of {root}")
    report = describe_folder(root)
    assert report.coloured == ["Misc_68"]
    assert len(report.problems) == 1
    assert (report.frames, report.pairs, report.empty_masks) == (341, 341, [])
    assert set(report.known) == {"train", "val", "trainval"}
    assert dict(report.modes) == {"colour uint8": 317, "grey uint8": 24}


def test_a_name_that_a_list_repeats_is_taken_once(tmp_path: Path) -> None:
    root = build(tmp_path, "a", "b")
    write_list(root / "some.txt", "b", "a", "b")
    with pytest.warns(UserWarning, match="some names 1 frames twice, taken once"):
        dataset = FolderDataset(root, "some")
    assert dataset.names == ["b", "a"]
    assert [sample.name for sample in dataset] == ["b", "a"]


def test_mismatches_are_kept(tmp_path: Path) -> None:
    root = build(tmp_path, "a", "b")
    save(root / "masks" / "b.png", np.zeros((6, 8), np.uint8))
    dataset = FolderDataset(root)
    assert dataset.mismatches == []
    with pytest.warns(UserWarning, match="resized by nearest"):
        assert [sample.mask.shape for sample in dataset] == [SHAPE, SHAPE]
    list(dataset)
    assert dataset.mismatches == [SizeMismatch("b", SHAPE, (6, 8))]


def test_a_part_of_a_data_set(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(4):
            Image.fromarray(np.diag([i, 9, 0, 0, 0, 0]).astype(np.uint8)).save(tmp_path / kind / f"f{i}.png")
    data = FolderDataset(tmp_path, cache=True)
    part = data.subset([2, -4])
    assert (part.names, [s.name for s in part], len(part)) == (["f2", "f0"], ["f2", "f0"], 2)
    assert np.array_equal(part[0].frame, data[2].frame)
    assert part.subset([1]).names == ["f0"]
    assert (data.names, len(data)) == (["f0", "f1", "f2", "f3"], 4)
    assert data.subset(slice(1, None, 2)).names == ["f1", "f3"]
    with pytest.raises(TypeError, match="takes positions, not a mask"):
        data.subset([True, False, True, False])
    with pytest.raises(IndexError):
        data.subset([4])
    with pytest.raises(TypeError, match=r"gives one sample at a time; torch\.utils\.data\.Subset"):
        data[:2]  # type: ignore[index]


@pytest.mark.parametrize(
    "name", ["some", "some.txt", "img_idx/some", "img_idx/some.txt", "{}/img_idx/some.txt", "my.txt"]
)
def test_a_list_by_name_or_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    for kind in ("images", "masks", "img_idx"):
        (root / kind).mkdir(parents=True)
    for i in range(3):
        for kind in ("images", "masks"):
            Image.fromarray(np.diag([i, 9, 0, 0, 0, 0]).astype(np.uint8)).save(root / kind / f"f{i}.png")
    for file in (root / "img_idx" / "some.txt", tmp_path / "my.txt"):
        file.write_text("f2\nf0\n")
    monkeypatch.chdir(tmp_path)
    assert FolderDataset(root, name.format(root)).names == ["f2", "f0"]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert [p.name for p in frame_files(tmp_path)] == ["a.png", "link.png"]


@pytest.mark.parametrize("ending", ["_pixels0", "_mask"])
def test_a_frame_with_two_masks_is_said(tmp_path: Path, ending: str) -> None:
    build(tmp_path, "a", "b")
    assert describe_folder(tmp_path).problems == []
    shutil.copy(tmp_path / "masks" / "b.png", tmp_path / "masks" / f"a{ending}.png")
    (problem,) = describe_folder(tmp_path).problems
    assert problem == "frames with two masks, of which the first is read (NAME, NAME_pixels0, NAME_mask): 1 (a)"
    # the mask of a frame of that name is its own
    save(tmp_path / "images" / f"a{ending}.png", frame_of("c"))
    assert describe_folder(tmp_path).problems == []
