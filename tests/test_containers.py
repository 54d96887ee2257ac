"""Containers: every file gives the pixels that its own tags say, or a reason; masks give targets or a reason."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from serank.datasets import FolderDataset
from serank.errors import FrameError
from serank.evaluation.map_files import read_values
from serank.frames import read_frame
from serank.frames.reading import count_pages, decode, decode_pages
from serank.frames.sources import find_sources

tifffile = pytest.importorskip("tifffile", reason="writes what Pillow can't")

Array = NDArray[Any]
GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def values(code: str, *shape: int) -> Array:
    rng = np.random.default_rng(3)
    if np.dtype(code).kind == "f":
        return rng.random(shape).astype(code)
    limits = np.iinfo(code)
    return rng.integers(limits.min, limits.max, shape, dtype=np.dtype(code), endpoint=True)


# The definition in TIFF 6.0: where the first row and column of the stored picture are seen.
SEEN: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: np.fliplr(a),
    3: lambda a: np.rot90(a, 2),
    4: lambda a: np.flipud(a),
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("kind", ["tiff", "tiff16", "png", "jpeg", "webp"])
def test_one_rule_for_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    file = tmp_path / f"frame.{kind.removesuffix('16')}"
    stored = GREY.astype(np.uint16) * 200 if kind == "tiff16" else GREY
    if kind.startswith("tiff"):
        tifffile.imwrite(file, stored, photometric="minisblack", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(file, exif=exif, **({"lossless": True} if kind == "webp" else {"quality": 100}))
    found = decode(file)
    found = found[..., 0] if found.ndim == 3 else found
    tolerance = 3 if kind == "jpeg" else 0
    np.testing.assert_allclose(found.astype(int), SEEN[orientation](stored).astype(int), atol=tolerance)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize(
    "options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 3}, {"compression": "zlib"}, {"bigtiff": True}]
)
def test_types_of_tiff(tmp_path: Path, code: str, order: str, options: dict[str, Any]) -> None:
    file = tmp_path / "frame.tif"
    for shape, photometric in (((35, 27), "minisblack"), ((35, 27, 3), "rgb")):
        stored = values(code, *shape)
        tifffile.imwrite(file, stored, byteorder=order, photometric=photometric, **options)
        found = decode(file)
        assert found.dtype == stored.dtype
        np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize("code", ["u1", "u2", "i4"])
def test_predictor_of_tiff(tmp_path: Path, code: str) -> None:
    stored = values(code, 20, 30)
    tifffile.imwrite(tmp_path / "frame.tif", stored, compression="zlib", predictor=2)
    np.testing.assert_array_equal(decode(tmp_path / "frame.tif"), stored)


@pytest.mark.parametrize("code", ["u1", "u2"])
def test_white_is_zero(tmp_path: Path, code: str) -> None:
    stored = values(code, 4, 6)
    tifffile.imwrite(tmp_path / "frame.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(decode(tmp_path / "frame.tif"), np.iinfo(code).max - stored)
    tifffile.imwrite(tmp_path / "frame.tif", stored.astype("f4"), photometric="miniswhite")
    with pytest.raises(FrameError, match=r"frame\.tif: white is zero"):
        decode(tmp_path / "frame.tif")


def test_bool_arrays_as_tiff(tmp_path: Path) -> None:
    mask = np.zeros((5, 11), np.bool_)
    mask[2, 3:7] = True
    Image.fromarray(mask).save(tmp_path / "pillow.tif")
    tifffile.imwrite(tmp_path / "tifffile.tif", mask)
    for file in tmp_path.iterdir():
        np.testing.assert_array_equal(decode(file), mask * np.uint8(255))
        np.testing.assert_array_equal(read_values(file) > 0, mask)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "group4", "tiff_adobe_deflate"])
def test_compressed_bits(tmp_path: Path, compression: str) -> None:
    mask = values("u1", 19, 37) > 128
    Image.fromarray(mask).save(tmp_path / "mask.tif", compression=compression)
    np.testing.assert_array_equal(decode(tmp_path / "mask.tif"), mask * np.uint8(255))


@pytest.mark.parametrize("kind", ["pages", "imagej", "truncated", "npy", "npz"])
def test_several_frames_in_a_file(tmp_path: Path, kind: str) -> None:
    stack = values("u2", 5, 12, 14)
    file = tmp_path / ("clip." + (kind if kind.startswith("np") else "tif"))
    if kind == "npy":
        np.save(file, stack)
    elif kind == "npz":
        np.savez(file, frames=stack)
    else:
        options: dict[str, Any] = {"imagej": kind == "imagej", "metadata": {} if kind != "pages" else None}
        options |= {"truncate": True} if kind == "truncated" else {}
        tifffile.imwrite(file, stack, photometric="minisblack", **options)
    found = list(decode_pages(file))
    assert [index for index, _ in found] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal([pixels for _, pixels in found], stack)
    assert count_pages(file) == 5
    for read in (decode, read_frame):
        with pytest.warns(UserWarning, match=r"clip\.\w+: frame 1 of 5 is read"):
            read(file)


def test_page_one_of_thousands_and_a_cut_end(tmp_path: Path) -> None:
    file = tmp_path / "clip.tif"
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((3000, 4, 4), np.uint8), photometric="minisblack", metadata=None)
    start = time.process_time()
    with pytest.warns(UserWarning, match="frame 1 of 3000"):
        decode(file)
    assert time.process_time() - start < 1
    tifffile.imwrite(file, np.zeros((6, 40, 40), np.uint8), photometric="minisblack", metadata=None)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(FrameError, match=r"clip\.tif: truncated"):
        list(decode_pages(file))
    first, *others = (Image.fromarray(GREY + np.uint8(i)) for i in range(6))
    first.save(file, save_all=True, append_images=others)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 5])
    with pytest.raises(FrameError, match=r"clip\.tif: truncated"):
        list(decode_pages(file))
    for read in (decode, read_frame):
        with pytest.warns(UserWarning, match=r"clip\.tif: frame 1 of several .* damaged: truncated .* page 3"):
            pixels = read(file)
        np.testing.assert_array_equal(pixels, GREY if read is decode else GREY / np.float32(255))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def too_few_rows(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(values("u1", 23, 30))
    picture.save(buffer, kind)
    data = bytearray(buffer.getvalue())
    if kind == "PNG":
        data[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 2300, 8, 0, 0, 0, 0))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 7] = struct.pack(">H", 2300)
    elif kind == "BMP":
        data[22:26] = struct.pack("<i", 2300)
    else:
        tifffile.imwrite(buffer, values("u1", 23, 30), photometric="minisblack", metadata=None)
        data = bytearray(buffer.getvalue())
        for tag in (257, 278):
            at = data.index(
                struct.pack("<HH", tag, 3) if struct.pack("<HH", tag, 3) in data else struct.pack("<HH", tag, 4)
            )
            data[at + 8 : at + 12] = struct.pack("<I", 2300)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("lenient", [False, True])
def test_files_that_declare_more_than_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, lenient: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    (tmp_path / "frame").write_bytes(too_few_rows(kind))
    with pytest.raises(FrameError, match="frame: truncated or corrupt"):
        decode(tmp_path / "frame")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "JPEG2000"])
def test_another_library_s_leniency_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    buffer = io.BytesIO()
    Image.fromarray(values("u1", 40, 30)).save(buffer, kind)
    (tmp_path / "frame").write_bytes(buffer.getvalue())
    decode(tmp_path / "frame")
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "frame").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
        with pytest.raises(FrameError, match=r"frame: "):
            decode(tmp_path / "frame")


def test_a_flat_grey_jpeg_is_whole(tmp_path: Path) -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        Image.fromarray(np.full((40, 56), 128, np.uint8)).save(tmp_path / "flat.jpg", **options)
        np.testing.assert_array_equal(decode(tmp_path / "flat.jpg"), 128)


def test_a_jpeg_within_tiff_of_colour_and_opacity(tmp_path: Path) -> None:
    rgba = np.kron(values("u1", 4, 5, 4), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(rgba).save(tmp_path / "a.tif", compression="jpeg")
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "RGBA"
        expected = np.asarray(image)[..., :3]
    np.testing.assert_array_equal(decode(tmp_path / "a.tif"), expected)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(FrameError, match="truncated or corrupt"):
        decode(tmp_path / "cut.tif")


def test_a_jpeg_within_tiff_of_grey_and_opacity_says_why_not(tmp_path: Path) -> None:
    grey = Image.fromarray(GREY)
    Image.merge("LA", (grey, grey)).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(FrameError, match="JPEG of 2 samples can't be read; save it uncompressed or as LZW"):
        decode(tmp_path / "a.tif")


def test_threads_read_good_files_and_refuse_cut_ones(tmp_path: Path) -> None:
    good, *cut = (tmp_path / name for name in ("good.tif", "cut by 12.tif", "cut by 1.tif"))
    stored = values("f4", 24, 32)
    tifffile.imwrite(good, stored, metadata=None)
    for file, missing in zip(cut, (12, 1), strict=True):
        file.write_bytes(good.read_bytes()[:-missing])
    wrong: list[str] = []
    hook = warnings.showwarning

    def work(file: Path) -> None:
        for _ in range(150):
            try:
                if file in cut or not np.array_equal(decode(file), stored):
                    decode(file)
                    wrong.append(file.name)
            except FrameError:  # noqa: PERF203
                if file == good:
                    wrong.append(file.name)

    threads = [threading.Thread(target=work, args=(file,)) for file in (good, cut[0], good, cut[1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert warnings.showwarning is hook


def test_other_containers(tmp_path: Path) -> None:
    np.save(tmp_path / "kelvin.npy", values("f8", 5, 7) + 290)
    np.testing.assert_array_equal(decode(tmp_path / "kelvin.npy"), values("f8", 5, 7) + 290)
    np.savez_compressed(tmp_path / "one.npz", a=GREY)
    np.testing.assert_array_equal(decode(tmp_path / "one.npz"), GREY)
    np.savez(tmp_path / "two.npz", a=GREY, b=GREY)
    with pytest.raises(FrameError, match=r"expected one array; found 2 \(a, b\)"):
        decode(tmp_path / "two.npz")
    (tmp_path / "deep.pgm").write_bytes(b"P5\n# counts\n3 2\n1023\n" + np.arange(6, dtype=">u2").tobytes())
    np.testing.assert_array_equal(decode(tmp_path / "deep.pgm"), np.arange(6, dtype=np.uint16).reshape(2, 3))
    (tmp_path / "text.pgm").write_bytes(b"P2 2 1 1\n0 1\n")
    np.testing.assert_array_equal(decode(tmp_path / "text.pgm"), [[0, 255]])
    (tmp_path / "text.pgm").write_bytes(b"P2 2 1 255\n0 11")  # of 117, say
    with pytest.raises(FrameError, match="its last number may be cut off"):
        decode(tmp_path / "text.pgm")
    for array in (GREY, GREY.astype(np.uint16) * 100):
        Image.fromarray(array).save(tmp_path / "frame.jp2")
        np.testing.assert_array_equal(decode(tmp_path / "frame.jp2"), array)


def test_files_that_say_why_not(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "lfs.png").write_text("version https://git-lfs.example/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name, why in (("empty.png", "is empty"), ("lfs.png", "git lfs pull"), ("clip.mp4", "is a video.*detect_files")):
        with pytest.raises(FrameError, match=why):
            read_frame(tmp_path / name)
    with pytest.raises(FrameError, match=r"is a folder.*detect_files"):
        read_frame(tmp_path)
    with pytest.raises(FileNotFoundError, match="broken link"):
        read_frame(tmp_path / "link.png")


def test_sub_folders(tmp_path: Path) -> None:
    (tmp_path / "images/more").mkdir(parents=True)
    for name in ("images/a.png", "images/more/b.png"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"some in images/, more/: name that folder, or pass --recursive"):
        find_sources([tmp_path])
    assert [p.name for p in find_sources([tmp_path], recursive=True)] == ["a.png", "b.png"]


def test_tensors_of_three_frames_are_refused() -> None:
    frames = torch.rand(3, 8, 9)
    with pytest.raises(FrameError, match=r"pass list\(tensor\) for three frames"):
        read_frame(frames)


def test_bombs(tmp_path: Path) -> None:
    header = b"BM" + struct.pack("<IHHI", 72, 0, 0, 54) + struct.pack("<IiiHHI", 40, 11000, 11000, 1, 8, 1) + b"\0" * 34
    (tmp_path / "rle.bmp").write_bytes(header)
    with (tmp_path / "bomb.mat").open("wb") as stream:
        scipy.io.savemat(stream, {"map": np.zeros((12000, 12000), np.uint8)}, do_compression=True)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="run lengths"):
            decode(tmp_path / "rle.bmp")
        with pytest.raises(FrameError, match="more than 134217728 pixels"):
            read_values(tmp_path / "bomb.mat")
        assert tracemalloc.get_traced_memory()[1] < 2**29
    finally:
        tracemalloc.stop()


# --- masks -----------------------------------------------------------------------------------------------------------

TARGETS = np.zeros((8, 10), np.uint8)
TARGETS[2:4, 3:5], TARGETS[6, 7:9] = 1, 2


def palette_mask() -> Image.Image:
    image = Image.fromarray((TARGETS > 0).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


MASKS: dict[str, Any] = {
    "palette": palette_mask,
    "red": lambda: Image.fromarray((TARGETS > 0)[..., None] * np.array([255, 0, 0], np.uint8)),
    "blue": lambda: Image.fromarray((TARGETS > 0)[..., None] * np.array([0, 0, 255], np.uint8)),
    "RGB (1, 0, 0)": lambda: Image.fromarray((TARGETS > 0)[..., None] * np.array([1, 0, 0], np.uint8)),
    "class 2": lambda: Image.fromarray((TARGETS > 0) * np.uint8(2)),
    "127": lambda: Image.fromarray((TARGETS > 0) * np.uint8(127)),
    "instances 1 and 2": lambda: Image.fromarray(TARGETS),
    "16-bit instances 1 and 3": lambda: Image.fromarray(np.array([0, 1, 3], np.uint16)[TARGETS]),
}


def data_set(root: Path, mask: Image.Image, frame: Array | None = None) -> FolderDataset:
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    Image.fromarray(np.zeros((8, 10), np.uint8) if frame is None else frame).save(root / "images/a.png")
    mask.save(root / "masks/a.png")
    return FolderDataset(root)


@pytest.mark.parametrize("kind", MASKS)
def test_what_is_not_background_is_target(tmp_path: Path, kind: str) -> None:
    np.testing.assert_array_equal(data_set(tmp_path, MASKS[kind]())[0].mask, TARGETS > 0)


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (np.array([0, 1, 255], np.uint8)[TARGETS], "1 regions of the mask"),
        (TARGETS + np.uint8(1), "none of them is 0"),
        (np.where((TARGETS > 0)[..., None], [255, 0, 0], 255).astype(np.uint8), "without a black background"),
    ],
)
def test_what_is_neither_is_refused(tmp_path: Path, stored: Array, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        data_set(tmp_path, Image.fromarray(stored))[0]


def test_masks_on_their_side_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"a\.png: mask is 10 x 8, its frame 8 x 10 \(its sides are swapped"):
        data_set(tmp_path, Image.fromarray(np.ascontiguousarray(TARGETS.T)))[0]


def test_inverted_masks_are_flagged(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="more than half of the mask is target; inverted"):
        data_set(tmp_path, Image.fromarray(np.uint8(255) * (TARGETS == 0)))[0]


def test_names_in_lists(tmp_path: Path) -> None:
    """Lists and files in other Unicode forms, and entries under a folder without a suffix."""
    data_set(tmp_path, Image.fromarray(TARGETS))
    for kind in ("images", "masks"):
        os.rename(tmp_path / kind / "a.png", tmp_path / kind / "ma\u0308rz.png")  # noqa: PTH104
    (tmp_path / "train.txt").write_text("images/m\u00e4rz\n", encoding="utf-8")
    assert FolderDataset(tmp_path, "train").names == ["m\u00e4rz"]
