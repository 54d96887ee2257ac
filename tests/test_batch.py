"""Detection over many frames: what is read, in which order it is written, and that processes share the work."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from serank import Detections, SeRankDet
from serank.cli.entry import main
from serank.datasets import FolderDataset
from serank.errors import FrameError
from serank.frames import sources
from serank.frames.reading import count_pages, decode_pages
from serank.frames.sources import find_sources, read_sources
from serank.inference import Detector, detect_files, write_detections
from serank.inference.table_formats import detection_rows

Array = NDArray[Any]


@pytest.fixture(scope="module")
def model() -> SeRankDet:
    return SeRankDet(width=2).eval()


def noise(count: int, height: int = 24, width: int = 32, dtype: type = np.uint8) -> list[Array]:
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(count)
    return [rng.integers(0, top, (height, width), dtype=dtype, endpoint=True) for _ in range(count)]


def pages(path: Path, arrays: list[Array], **tags: Any) -> None:
    first, *others = (Image.fromarray(a) for a in arrays)
    first.save(path, save_all=True, append_images=others, **tags)


def video(path: Path, arrays: list[Array], codec: str = "ffv1", pixels: str = "gray") -> None:
    av = pytest.importorskip("av", reason="videos need the extra `video`")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = arrays[0].shape
        stream.pix_fmt = pixels
        for array in arrays:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format=pixels)))
        container.mux(stream.encode())


def table(output: Path) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = json.loads((output / "detections.json").read_text())["frames"]
    return frames


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_page_of_a_tiff_file_is_a_frame(tmp_path: Path, dtype: type) -> None:
    arrays = noise(5, dtype=dtype)
    pages(tmp_path / "clip.tif", arrays)
    read = list(read_sources([tmp_path / "clip.tif"]))
    assert [r.index for r in read] == [0, 1, 2, 3, 4]
    for entry, array in zip(read, arrays, strict=True):
        assert entry.pixels is not None
        np.testing.assert_array_equal(entry.pixels, array)
    pages(tmp_path / "one.tif", arrays[:1])
    assert [r.index for r in read_sources([tmp_path / "one.tif"])] == [None]


def test_previews_in_a_tiff_file_are_left_out(tmp_path: Path) -> None:
    arrays = noise(3)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "all.tif"), True) as file:
        for number, array in enumerate(arrays):
            # tag 254: a reduced copy of another page
            Image.fromarray(array).save(file, format="TIFF", tiffinfo={254: int(number == 1)})
            file.newFrame()
    assert [page for page, _ in decode_pages(tmp_path / "all.tif")] == [0, 2]


@pytest.mark.parametrize(
    ("types", "numbers"),
    [
        ([0], [None]),
        ([0, 1], [None]),  # tag 254: 1 is a reduced copy of another page, 4 its mask of opacity
        ([0, 4, 5, 1], [None]),
        ([1], [None]),
        ([0, 1, 2], [0, 2]),
        ([1, 0], [0, 1]),
        ([0, 0, 1], [0, 1]),
        ([0, 1, 0, 1, 0], [0, 2, 4]),
    ],
)
def test_a_page_has_a_number_where_another_one_is_no_preview(
    tmp_path: Path, types: list[int], numbers: list[int | None]
) -> None:
    file, arrays = tmp_path / "a.tif", noise(len(types))
    with TiffImagePlugin.AppendingTiffWriter(str(file), True) as writer:
        for array, kind in zip(arrays, types, strict=True):
            Image.fromarray(array).save(writer, format="TIFF", tiffinfo={254: kind})
            writer.newFrame()
    read = list(decode_pages(file))
    assert [number for number, _ in read] == numbers
    assert count_pages(file) == len(numbers)
    for number, pixels in read:
        np.testing.assert_array_equal(pixels, arrays[number or 0])
    # every second frame, not every page of an even number
    assert [frame.index for frame in read_sources([file], every=2)] == numbers[::2]


def test_names_that_differ_in_case_alone_have_files_of_their_own(model: SeRankDet, tmp_path: Path) -> None:
    files = [tmp_path / "x" / "Clip.png", tmp_path / "y" / "clip.png"]
    for file in files:
        file.parent.mkdir()
        Image.fromarray(noise(1)[0]).save(file)
    write_detections(model, files, tmp_path / "out", probability=tmp_path / "maps")
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["Clip.png", "clip_2.png"]
    assert [r["picture"] for r in table(tmp_path / "out")] == ["Clip_detections.png", "clip_2_detections.png"]


def test_a_cut_tiff_file_gives_the_pages_before_the_cut(tmp_path: Path) -> None:
    pages(tmp_path / "clip.tif", noise(4))
    data = (tmp_path / "clip.tif").read_bytes()
    (tmp_path / "clip.tif").write_bytes(data[: len(data) * 6 // 10])
    read = list(read_sources([tmp_path / "clip.tif"]))
    assert read[-1].pixels is None
    assert "clip.tif: truncated or corrupt" in read[-1].reason
    with pytest.raises(FrameError):
        list(decode_pages(tmp_path / "clip.tif"))


@pytest.mark.parametrize(("pixels", "dtype"), [("gray", np.uint8), ("gray16le", np.uint16)])
def test_lossless_videos_come_as_they_were(tmp_path: Path, pixels: str, dtype: type) -> None:
    arrays = noise(6, dtype=dtype)
    video(tmp_path / "clip.mkv", arrays, pixels=pixels)
    read = list(read_sources([tmp_path / "clip.mkv"]))
    assert [r.index for r in read] == list(range(6))
    for entry, array in zip(read, arrays, strict=True):
        assert entry.pixels is not None
        assert entry.pixels.dtype == dtype
        np.testing.assert_array_equal(entry.pixels, array)


def test_files_that_are_no_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need the extra `video`")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.avi").touch()
    video(tmp_path / "good.mkv", noise(2))
    files = [tmp_path / name for name in ("text.mp4", "empty.avi", "gone.mp4", "good.mkv")]
    read = list(read_sources(files))
    assert [r.pixels is None for r in read] == [True, True, True, False, False]
    for entry, reason in zip(read, ("can't be decoded", "can't be decoded", "no such file"), strict=False):
        assert str(entry.file) in entry.reason
        assert reason in entry.reason


def test_videos_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"serank\[video\]"):
        list(read_sources([tmp_path / "clip.mp4"]))


def test_a_folder_stands_for_its_images_and_videos(tmp_path: Path) -> None:
    for name in ("b.png", "a.MP4", ".hidden.png", ".hidden.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [p.name for p in find_sources([tmp_path])] == ["a.MP4", "b.png"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10.png", "9.bmp", "0.bmp"], ["0.bmp", "9.bmp", "10.png"]),
        (["f10_2.png", "f2_10.png", "f2_9.png"], ["f2_9.png", "f2_10.png", "f10_2.png"]),
        (["001.png", "1.png", "01.png", "2.png"], ["001.png", "01.png", "1.png", "2.png"]),
        (["a10.png", "a.png", "b.png", "a9.png"], ["a.png", "a9.png", "a10.png", "b.png"]),
        (["12345678901234567890.png", "9.png"], ["9.png", "12345678901234567890.png"]),
        (["s10/1.png", "s9/2.png", "s9/10.png"], ["s9/2.png", "s9/10.png", "s10/1.png"]),
    ],
)
def test_the_frames_of_a_folder_come_in_the_order_of_their_numbers(
    tmp_path: Path, names: list[str], expected: list[str]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_sources([tmp_path], recursive=True)
    assert [p.relative_to(tmp_path).as_posix() for p in found] == expected
    # what is named itself comes as it is named
    assert find_sources([tmp_path / name for name in names]) == [tmp_path / name for name in names]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_frame_is_one_process_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    pytest.importorskip("av", reason="videos need the extra `video`")
    names = ("0.png", "1.tif", "2.tif", "3.png", "4.png", "gone.tif", "6.mkv")
    files = [tmp_path / name for name in names]
    pages(files[1], noise(4))
    for file in (files[0], files[2]):
        Image.fromarray(noise(1)[0]).save(file)
    pages(tmp_path / "pages.tif", noise(2))
    (tmp_path / "pages.tif").rename(files[3])  # is a TIFF in spite of its name
    files[4].write_bytes(b"no image")
    video(files[6], noise(3))
    opened: list[str] = []

    def decode(file: Path) -> Any:
        opened.append(file.name)
        return decode_pages(file)

    monkeypatch.setattr(sources, "decode_pages", decode)
    shares = [list(read_sources(files, rank, processes)) for rank in range(processes)]
    assert all([f.order for f in share] == sorted(f.order for f in share) for share in shares)
    found = sorted((f.order, f.file.name, f"{f.index} {f.pixels is None}") for share in shares for f in share)
    one, bad, several = ["None False"], ["None True"], [f"{i} False" for i in range(4)]
    expected = [one, several, one, several[:2], bad, bad, several[:3]]
    assert found == [
        ((number, position), files[number].name, entry)
        for number, entries in enumerate(expected)
        for position, entry in enumerate(entries)
    ]
    # a file of one frame is decoded by one process alone
    assert sorted(opened) == sorted([*names[:-1], *["1.tif"] * (processes - 1)])


@pytest.mark.parametrize(
    ("processes", "every", "expected"),
    [
        (1, 2, [[0, 2, 4, 6]]),
        (2, 1, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (2, 2, [[0, 4], [2, 6]]),
        (2, 4, [[0], [4]]),
        (3, 3, [[0], [3], [6]]),
        (3, 8, [[0], [], []]),
    ],
)
def test_processes_share_the_frames_that_are_kept(
    tmp_path: Path, processes: int, every: int, expected: list[list[int]]
) -> None:
    np.save(tmp_path / "clip.npy", np.stack(noise(8)))
    shares = [list(read_sources([tmp_path / "clip.npy"], rank, processes, every)) for rank in range(processes)]
    assert [[frame.index for frame in share] for share in shares] == expected


def test_pages_are_counted_without_decoding(tmp_path: Path) -> None:
    pages(tmp_path / "four.tif", noise(4))
    Image.fromarray(noise(1)[0]).save(tmp_path / "one.png")
    (tmp_path / "text.tif").write_bytes(b"no image")
    assert [count_pages(tmp_path / name) for name in ("four.tif", "one.png", "text.tif", "gone.tif")] == [4, 1, 1, 1]


def test_frames_of_a_file_get_a_folder_and_numbers(model: SeRankDet, tmp_path: Path) -> None:
    arrays = noise(3)
    pages(tmp_path / "clip.tif", arrays)
    Image.fromarray(arrays[0]).save(tmp_path / "clip.png")
    seen: list[dict[str, Any]] = []
    output = tmp_path / "out"
    result = write_detections(model, [tmp_path], output, threshold=0.0, report=seen.append)
    assert (result.frames, result.detections, result.failures) == (4, 4, 0)
    names = ["clip_detections.png", *(f"clip_2/{i:06d}_detections.png" for i in range(3))]
    assert [r["picture"] for r in seen] == names
    assert all((output / name).is_file() for name in names)
    assert [r.get("index") for r in table(output)] == [None, 0, 1, 2]
    assert table(output) == seen
    for entry, array in zip(table(output), [arrays[0], *arrays], strict=True):
        found = model.detect(array, 0.0)
        assert isinstance(found, Detections)
        assert entry["detections"] == found.to_dict()["detections"]


@pytest.mark.parametrize("batch", [2, 5])
def test_batches_give_what_single_frames_give(model: SeRankDet, tmp_path: Path, batch: int) -> None:
    for i, array in enumerate([*noise(5), *noise(4, 40, 20)]):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    for size in (1, batch):
        result = write_detections(model, [tmp_path], tmp_path / f"out{size}", batch_size=size, threshold=0.4)
        assert (result.frames, result.failures) == (8, 1)
    one, many = table(tmp_path / "out1"), table(tmp_path / f"out{batch}")
    assert [Path(r["frame"]).stem for r in many] == [c for c in "012345678" if c != "3"]
    for a, b in zip(one, many, strict=True):
        assert [d["box"] for d in a["detections"]] == [d["box"] for d in b["detections"]]


def test_without_pictures_there_is_only_the_table(model: SeRankDet, tmp_path: Path) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "a.png")
    write_detections(model, [tmp_path / "a.png"], tmp_path / "out", pictures=False, table="csv", threshold=0.0)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["detections.csv"]
    with (tmp_path / "out" / "detections.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["index"] == row["picture"] == ""
    assert (row["x0"], row["x1"]) == ("0", "32")


def test_rows_of_a_failure_are_none() -> None:
    assert list(detection_rows({"frame": "a.png", "reason": "gone"})) == []


def test_processes_share_the_frames_and_write_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, array in enumerate(noise(5)):
        Image.fromarray(array).save(folder / f"{i}.png")
    pages(folder / "clip.tif", noise(4))
    (folder / "bad.png").write_bytes(b"no image")
    arguments = ["detect", str(folder), "--threshold", "0.4", "--output"]
    assert main([*arguments, str(tmp_path / "1")]) == 1  # for the frame that can't be read
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "serank"]
    done = subprocess.run([*start, *arguments, str(tmp_path / "2")], capture_output=True, text=True, check=False)
    one, two = table(tmp_path / "1"), table(tmp_path / "2")
    assert len(one) == 9
    assert one == two
    assert "9 frames" in done.stdout
    assert done.stdout.count("frames/s") == 1
    names = [{p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")} for n in "12"]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": "0.5"}, r"threshold must be a number in \[0, 1\]; got '0.5' \(str\)"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number >= 1; got 2.5 \(float\)"),
        ({"min_area": 2.5}, r"min_area must be a whole number >= 1; got 2.5 \(float\)"),
        ({"table": "xml"}, "table must be one of json, jsonl, csv, coco, yolo; got 'xml'"),
        ({"every": 0}, "every must be >= 1; got 0"),
        ({"confirm": (3, 2)}, r"confirm must be \(M, N\) with M <= N"),
        ({"confirm": (0, 2)}, "confirm's M must be >= 1; got 0"),
        ({"max_distance": 0}, "max_distance must be > 0 px and finite; got 0"),
        ({"video": "clip.gif"}, "no suffix that can be written; use .mp4"),
    ],
)
def test_wrong_arguments_leave_no_folder(
    model: SeRankDet, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        write_detections(model, [tmp_path / "a.png"], tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_links_is_not_written_over(model: SeRankDet, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "links").mkdir()
    Image.fromarray(noise(1)[0]).save(tmp_path / "frames" / "a.png")
    (tmp_path / "links" / "a.png").symlink_to(tmp_path / "frames" / "a.png")
    for output in ("links", "frames"):
        with pytest.raises(ValueError, match="holds the frames themselves"):
            write_detections(model, [tmp_path / "links"], tmp_path / output)
    assert [p.name for p in (tmp_path / "links").iterdir()] == ["a.png"]


def test_maps_and_pictures_have_folders_of_their_own(model: SeRankDet, tmp_path: Path) -> None:
    """In one, the picture of a.png would be the map of a_detections.png."""
    frames, output = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for name in ("a", "a_detections"):
        Image.fromarray(noise(1)[0]).save(frames / f"{name}.png")
    output.mkdir()
    (tmp_path / "link").symlink_to(output)
    for same in (output, tmp_path / "frames" / ".." / "out", tmp_path / "link"):
        with pytest.raises(ValueError, match=r"probability '.*' is the output folder.*--no-pictures"):
            write_detections(model, frames, output, probability=same)
    assert list(output.iterdir()) == []
    write_detections(model, frames, output, probability=output, pictures=False)
    assert sorted(p.name for p in output.iterdir()) == ["a.png", "a_detections.png", "detections.json"]
    for name in ("a", "a_detections"):
        with Image.open(output / f"{name}.png") as image:
            assert image.mode == "L"


def test_masks_and_maps_have_folders_of_their_own(model: SeRankDet, tmp_path: Path) -> None:
    frames = many(tmp_path / "frames", 1)
    with pytest.raises(ValueError, match=r"masks '.*maps' is the folder of probability too"):
        write_detections(model, frames, tmp_path / "out", probability=tmp_path / "maps", masks=tmp_path / "maps")
    with pytest.raises(ValueError, match=r"masks '.*out' is the output folder.*--no-pictures"):
        write_detections(model, frames, tmp_path / "out", masks=tmp_path / "out")
    with pytest.raises(ValueError, match=r"masks '.*frames' holds the frames themselves"):
        write_detections(model, frames, tmp_path / "out", masks=frames)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [{}, {"min_area": 2}, {"min_score": 0.9}, {"confirm": (2, 2)}])
def test_masks_are_of_the_detections_in_the_table_and_make_a_data_set(
    model: SeRankDet, tmp_path: Path, kept: dict[str, Any]
) -> None:
    (tmp_path / "data").mkdir()
    frames, masks = many(tmp_path / "data" / "images", 3), tmp_path / "data" / "masks"
    probability = model.detect(noise(3)[0]).probability  # of random weights
    threshold = float(np.quantile(probability, 0.85))
    if "min_score" in kept:
        kept = {"min_score": float(np.quantile(probability, kept["min_score"]))}
    write_detections(model, frames, tmp_path / "out", masks=masks, pictures=False, threshold=threshold, **kept)
    records = table(tmp_path / "out")
    areas = []
    for (_, _, mask, *_), record in zip(FolderDataset(tmp_path / "data"), records, strict=True):
        boxed = np.zeros_like(mask)
        for entry in record["detections"]:
            x0, y0, x1, y1 = entry["box"]
            boxed[y0:y1, x0:x1] = True
        assert not (mask & ~boxed).any()
        assert mask.sum() == sum(entry["area"] for entry in record["detections"])
        areas.append(int(mask.sum()))
    assert any(areas)
    if kept:
        write_detections(model, frames, tmp_path / "all", pictures=False, threshold=threshold)
        assert sum(areas) < sum(entry["area"] for r in table(tmp_path / "all") for entry in r["detections"])


def many(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i, array in enumerate(noise(count)):
        Image.fromarray(array).save(folder / f"{i:03d}.png")
    return folder


def threads_end(before: int) -> bool:
    """Whether no more threads than before are left soon."""
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    return threading.active_count() <= before


@pytest.mark.parametrize("batch", [1, 8])
def test_the_table_does_not_wait_for_the_next_batch(
    model: SeRankDet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """A second after a batch is drawn its frames are in the table, which a kill then leaves."""
    original, calls, go_on = Detector.detect, 0, threading.Event()

    def slow(self: Detector, *arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1 + 8 // batch:
            assert go_on.wait(30)
        return original(self, *arguments, **more)

    monkeypatch.setattr(Detector, "detect", slow)
    frames, output = many(tmp_path / "frames", 10), tmp_path / "out"
    run = threading.Thread(target=write_detections, args=(model, frames, output), kwargs={"batch_size": batch})
    run.start()
    try:
        deadline = time.monotonic() + 20
        while len(list(output.glob("*_detections.png"))) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        deadline = time.monotonic() + 3
        while len(table(output)) < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [Path(record["frame"]).stem for record in table(output)] == [f"{i:03d}" for i in range(8)]
    finally:
        go_on.set()
        run.join()
    assert len(table(output)) == 10


def test_an_error_that_is_held_keeps_no_thread(
    model: SeRankDet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, which holds the last error: threads have ended, and the writers before the folder is free."""
    original, output = Detections.save, tmp_path / "out"
    guarded: list[bool] = []

    def slow(self: Detections, path: Path) -> None:
        time.sleep(0.05)
        original(self, path)
        guarded.append((output / ".detections.lock").exists())

    def refuse(_: Any) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(Detections, "save", slow)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no more") as held:
        write_detections(model, many(tmp_path / "frames", 30), output, report=refuse)
    drawn = len(guarded)
    assert threads_end(before)
    assert len(guarded) == drawn < 30
    assert all(guarded)
    assert len(table(output)) == drawn  # and no picture is without its entry
    assert held.value.__traceback__ is not None


def test_an_error_of_detect_files_that_is_held_keeps_no_thread(model: SeRankDet, tmp_path: Path) -> None:
    frames = many(tmp_path / "frames", 30)
    (frames / "000.png").write_bytes(b"no image")
    before = threading.active_count()
    with pytest.raises(FrameError, match="give skipped=") as held:
        list(detect_files(model, frames))
    assert threads_end(before)
    assert held.value.__traceback__ is not None
