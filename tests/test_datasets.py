"""Folder data sets: every layout in use, lists as people write them, and masks as they are found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import serank.datasets
from serank.datasets import FolderDataset, Sample, grey_statistics
from serank.errors import FrameError
from serank.frames import decode

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


def test_layout_with_lists_in_img_idx(tmp_path: Path) -> None:
    build(tmp_path, "a", "b", "c", "d")
    write_list(tmp_path / "img_idx/train_NUDT-SIRST.txt", "c", "a")
    write_list(tmp_path / "img_idx/test_NUDT-SIRST.txt", "b", "d")
    check(FolderDataset(tmp_path, "train"), "c", "a")
    check(FolderDataset(tmp_path, "test"), "b", "d")
    check(FolderDataset(tmp_path, "train_NUDT-SIRST"), "c", "a")
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
    with pytest.raises(FileNotFoundError, match="expected a folder of frames"):
        FolderDataset(tmp_path)


def test_layout_with_lists_at_the_root(tmp_path: Path) -> None:
    build(tmp_path, "a", "b", "c", suffix=".bmp")
    write_list(tmp_path / "trainval.txt", "b", "a")
    write_list(tmp_path / "test.txt", "c")
    check(FolderDataset(tmp_path, "trainval"), "b", "a")
    check(FolderDataset(tmp_path, "test"), "c")


def test_layout_of_the_original_sirst(tmp_path: Path) -> None:
    build(tmp_path, "Misc_1", "Misc_10", "Misc_2", ending="_pixels0")
    write_list(tmp_path / "idx_427/trainval.txt", "Misc_10", "Misc_2")
    write_list(tmp_path / "idx_427/test.txt", "Misc_1")
    check(FolderDataset(tmp_path, "trainval"), "Misc_10", "Misc_2")
    check(FolderDataset(tmp_path, "test"), "Misc_1")
    check(FolderDataset(tmp_path), "Misc_1", "Misc_10", "Misc_2")


def test_layout_with_mask_endings(tmp_path: Path) -> None:
    build(tmp_path, "000", "001", ending="_mask")
    check(FolderDataset(tmp_path), "000", "001")


def test_mask_named_as_its_frame_comes_first(tmp_path: Path) -> None:
    build(tmp_path, "a")
    save(tmp_path / "masks/a_mask.png", np.full(SHAPE, 255, np.uint8))
    check(FolderDataset(tmp_path), "a")


def test_layout_of_irstd1k(tmp_path: Path) -> None:
    build(tmp_path, "XDU0", "XDU1", images="IRSTD1k_Img", masks="IRSTD1k_Label")
    write_list(tmp_path / "test.txt", "XDU1")
    check(FolderDataset(tmp_path), "XDU0", "XDU1")
    check(FolderDataset(tmp_path, "test"), "XDU1")


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


def test_name_that_a_list_repeats(tmp_path: Path) -> None:
    """Taken as written: a list may weight its frames."""
    build(tmp_path, "a", "b")
    write_list(tmp_path / "train.txt", "a", "b", "a")
    check(FolderDataset(tmp_path, "train"), "a", "b", "a")
    check(FolderDataset(tmp_path, "train", cache=True), "a", "b", "a")


def test_empty_list(tmp_path: Path) -> None:
    build(tmp_path, "a")
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.raises(FileNotFoundError, match=r"train\.txt: the list is empty"):
        FolderDataset(tmp_path, "train")


def test_list_in_another_encoding(tmp_path: Path) -> None:
    build(tmp_path, "a")
    (tmp_path / "train.txt").write_bytes("a\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"train\.txt: the list is not UTF-8 text"):
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
    assert f"lists found: {Path('img_idx/test_X.txt')}, val.txt" in message


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
def test_names_that_leave_the_folder(tmp_path: Path, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = build(tmp_path / "out", "secret")
    save(tmp_path / "in/secret.png", frame_of("secret"))
    root = build(tmp_path / "in", "a")
    write_list(root / "train.txt", "a", entry.format(out=out))
    opened: list[str] = []
    monkeypatch.setattr(serank.datasets, "decode", lambda file: opened.append(str(file)))
    with pytest.raises(FileNotFoundError, match=r"secret \(frame\)"):
        FolderDataset(root, "train")
    assert not opened


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
    """Read as they are meant, and without a warning, however large the target."""
    build(tmp_path, "a")
    expected = {"some": mask_of("a"), "none": np.zeros(SHAPE, np.bool_), "all": np.ones(SHAPE, np.bool_)}[target]
    MASK_FILES[kind](expected).save(tmp_path / "masks/a.png")
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
        np.array([[0, 60000, 20000, 31000]], np.uint16),
        np.array([[0, 1, 0.25, 0.6]], np.float32),
        np.array([[0, 0.004, 0.001, 0.4]], np.float32),
    ],
)
def test_grey_masks_of_other_types(tmp_path: Path, values: NDArray[Any]) -> None:
    frame = np.zeros((1, 4), np.uint8)
    save(tmp_path / "images/a.png", frame)
    save(tmp_path / "masks/a.tif", values)
    with pytest.warns(UserWarning, match="grey values"):
        mask = FolderDataset(tmp_path)[0].mask
    np.testing.assert_array_equal(mask, values / max(values.max(), 1) > 0.5)


@pytest.mark.parametrize("value", [38, 100, 200])
def test_two_values_that_are_not_0_and_255_are_warned_of(tmp_path: Path, value: int) -> None:
    """The first two would otherwise lose every target in silence."""
    build(tmp_path, "a")
    save(tmp_path / "masks/a.png", mask_of("a").astype(np.uint8) * np.uint8(value))
    with pytest.warns(UserWarning, match="grey values"):
        mask = FolderDataset(tmp_path)[0].mask
    np.testing.assert_array_equal(mask, mask_of("a") & (value > 127))


def test_mask_of_another_size_is_resized_by_nearest(tmp_path: Path) -> None:
    """As SIRST's `Misc_111`."""
    build(tmp_path, "a", "b")
    for name in "ab":
        save(tmp_path / f"masks/{name}.png", mask_of("a")[::2, ::2].astype(np.uint8) * 255)
    dataset = FolderDataset(tmp_path)
    with pytest.warns(UserWarning, match=r"a\.png: mask is \(6, 8\), its frame \(12, 16\); resized") as caught:
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
    assert sorted(str(w.message).split("mask ")[1][:4] for w in caught) == ["has ", "is ("]
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


# --- access ----------------------------------------------------------------------------------------------------------


def test_16_bit_and_colour_frames(tmp_path: Path) -> None:
    build(tmp_path, "a", "b")
    save(tmp_path / "images/a.png", frame_of("a"), "RGBA")
    save(tmp_path / "images/b.png", frame_of("b").astype(np.uint16) + 7000)
    dataset = FolderDataset(tmp_path)
    np.testing.assert_array_equal(dataset[0].frame, frame_of("a") / np.float32(255))
    assert dataset[1].frame.min() == 0
    assert 0.45 < dataset[1].frame.max() <= 0.51


def test_indices(tmp_path: Path) -> None:
    dataset = FolderDataset(build(tmp_path, "a", "b", "c"))
    assert dataset[-1].name == dataset[2].name == dataset[int(np.int64(2))].name == "c"
    assert dataset[-3].name == "a"
    for index in (3, -4, 100):
        with pytest.raises(IndexError):
            dataset[index]


def test_cache_reads_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, "a", "b")
    plain, cached = FolderDataset(tmp_path), FolderDataset(tmp_path, cache=True)
    expected = list(plain)
    opened: list[str] = []

    def counting(file: Any) -> NDArray[Any]:
        opened.append(Path(file).name)
        return decode(file)

    monkeypatch.setattr(serank.datasets, "decode", counting)
    for _ in range(3):
        for sample, wanted in zip(cached, expected, strict=True):
            assert sample.name == wanted.name
            np.testing.assert_array_equal(sample.frame, wanted.frame)
            np.testing.assert_array_equal(sample.mask, wanted.mask)
            # what a caller does to a sample stays the caller's
            sample.frame[:] = 0
            sample.mask[:] = True
    assert sorted(opened) == ["a.png", "a.png", "b.png", "b.png"]  # a frame and a mask each
    opened.clear()
    for _ in range(2):
        list(plain)
    assert len(opened) == 8


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
    for i in range(0, 341, 10):
        name, frame, mask = everything[i]
        assert name == everything.names[i]
        assert frame.shape == mask.shape
        assert 0 <= frame.min() < frame.max() <= 1
        assert 0 < mask.sum() < 0.05 * mask.size
