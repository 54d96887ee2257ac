"""Pixels of videos: colours, counts, limited range, orientation."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank.frames import FrameOptions, FramePreparer, FrameSpec
from serank.frames.reading import decode
from serank.frames.sources import read_sources

av = pytest.importorskip("av", reason="videos need the extra `video`")

Array = NDArray[Any]
HEIGHT, WIDTH = 48, 64


def grey(bits: int = 8) -> Array:
    """A slope with noise, over most of the range."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frame = 0.2 + 0.5 * x / WIDTH + 0.1 * y / HEIGHT + 0.02 * np.random.default_rng(0).standard_normal(x.shape)
    counts: Array = np.rint((2**bits - 1) * frame.clip(0, 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    return counts


def false_colour(palette: str) -> Array:
    table = pytest.importorskip("matplotlib").colormaps[palette](np.arange(256), bytes=True)
    coloured: Array = np.asarray(table)[grey(), :3]
    return coloured


def video_frame(pixels: str, planes: list[Array]) -> Any:
    """A frame of the samples of its planes."""
    frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
    for plane, samples in zip(frame.planes, planes, strict=True):
        width = plane.line_size // samples.itemsize
        plane.update(np.pad(samples, ((0, 0), (0, width - samples.shape[1]))).tobytes())
    return frame


def write(path: Path, frame: Any, pixels: str, codec: str = "ffv1") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path: Path) -> Array:
    (found,) = read_sources([path])
    assert found.pixels is not None, found.reason
    return found.pixels


@pytest.mark.parametrize("palette", ["turbo", "jet", "inferno"])
def test_a_palette_means_in_a_video_what_it_means_in_a_picture(tmp_path: Path, palette: str) -> None:
    rgb = false_colour(palette)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    video = write(tmp_path / "a.mkv", av.VideoFrame.from_ndarray(rgb, format="rgb24"), "bgr0")
    np.testing.assert_array_equal(read(video), decode(tmp_path / "a.png"))
    prepare = FramePreparer(FrameSpec(repair=False), FrameOptions(palette=palette))
    unit = prepare.prepare(read(video), "a.mkv").grey
    np.testing.assert_array_equal(unit, prepare(tmp_path / "a.png").grey)
    assert np.abs(unit * 255 - grey()).max() <= 1  # some neighbouring levels share a colour


@pytest.mark.parametrize(
    ("pixels", "codec", "depth"),
    [
        ("bgr0", "ffv1", np.uint8),
        ("yuv420p", "ffv1", np.uint8),
        ("yuv444p", "ffv1", np.uint8),
        ("yuyv422", "rawvideo", np.uint8),
        ("nv12", "rawvideo", np.uint8),
        ("yuv420p10le", "ffv1", np.uint16),
        ("gbrp10le", "ffv1", np.uint16),
        ("yuvj420p", "mjpeg", np.uint8),
    ],
)
def test_false_colour_is_told_however_it_is_stored(tmp_path: Path, pixels: str, codec: str, depth: type) -> None:
    frame = av.VideoFrame.from_ndarray(false_colour("jet"), format="rgb24").reformat(format=pixels)
    found = read(write(tmp_path / "a.mkv", frame, pixels, codec))
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert found.dtype == depth
    with pytest.warns(UserWarning, match=r"a\.mkv: false colour"):
        FramePreparer(FrameSpec()).prepare(found, "a.mkv")
    coloured = FramePreparer(FrameSpec(repair=False), FrameOptions(palette="jet")).prepare(found, "a.mkv").grey
    # colours at half the resolution are less exact at edges and noise
    assert np.abs(coloured * 255 - grey()).mean() < (1 if pixels in ("bgr0", "gbrp10le") else 5)


@pytest.mark.parametrize(
    ("pixels", "codec", "bits", "off"),
    [
        ("gray", "ffv1", 8, 0),
        ("bgr0", "ffv1", 8, 0),
        ("pal8", "rawvideo", 8, 0),
        ("yuv420p", "ffv1", 8, 1),  # limited range has 220 levels
        ("yuv444p", "ffv1", 8, 1),
        ("yuva420p", "ffv1", 8, 1),
        ("yuyv422", "rawvideo", 8, 1),
        ("nv12", "rawvideo", 8, 1),
        ("yuvj420p", "mjpeg", 8, 12),
        ("yuv420p", "mpeg4", 8, 24),
        ("yuv420p10le", "ffv1", 10, 5),
        ("yuv422p12le", "ffv1", 12, 17),
    ],
)
def test_grey_stays_grey_however_it_is_stored(tmp_path: Path, pixels: str, codec: str, bits: int, off: int) -> None:
    if pixels == "pal8":
        levels = np.arange(256, dtype=np.uint8)
        alpha = np.full_like(levels, 255)
        frame = av.VideoFrame.from_ndarray((grey(), np.stack([alpha, levels, levels, levels], 1)), format="pal8")
    else:
        frame = av.VideoFrame.from_ndarray(grey(), format="gray").reformat(format=pixels)
    found = read(write(tmp_path / ("a.avi" if pixels == "pal8" else "a.mkv"), frame, pixels, codec))
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = FramePreparer(FrameSpec(repair=False)).clean(found, "a.mkv").values
    assert values.shape == (HEIGHT, WIDTH)
    assert np.abs(values - grey() * ((2**bits - 1) / 255)).max() <= off


def test_a_few_coloured_signs_leave_a_video_grey(tmp_path: Path) -> None:
    rgb = np.repeat(grey()[..., None], 3, 2)
    rgb[:4, :30] = 255, 0, 0  # 4% of the pixels
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv444p")
    found = read(write(tmp_path / "a.mkv", frame, "yuv444p"))
    assert found.shape == (HEIGHT, WIDTH)
    assert np.abs(found[4:].astype(int) - grey()[4:]).max() <= 1


@pytest.mark.parametrize("pixels", ["gray", "gray9le", "gray10le", "gray12le", "gray14le", "gray16le", "gbrp10le"])
def test_counts_stay_what_the_camera_wrote(tmp_path: Path, pixels: str) -> None:
    bits = int("".join(filter(str.isdigit, pixels)) or 8)
    counts = grey(bits)
    planes = [counts] * (3 if pixels.startswith("gbrp") else 1)
    found = read(write(tmp_path / "a.mkv", video_frame(pixels, planes), pixels))
    np.testing.assert_array_equal(found if found.ndim == 2 else found[..., 0], counts)
    np.save(tmp_path / "a.npy", counts)
    prepare = FramePreparer(FrameSpec(), FrameOptions(value_range=(0, 2**bits - 1), no_data=int(counts[5, 5])))
    from_video, from_array = prepare.prepare(found, "a.mkv"), prepare(tmp_path / "a.npy")
    np.testing.assert_array_equal(from_video.grey, from_array.grey)
    assert from_video.hidden is not None
    assert from_array.hidden is not None
    np.testing.assert_array_equal(from_video.hidden, from_array.hidden)


def shown(across: tuple[int, int], down: tuple[int, int]) -> bytes:
    """The matrix of an MP4 track whose pixel (1, 0) lies at `across` of its origin when shown, and (0, 1) at `down`."""
    one = 2**16
    return struct.pack(">9i", across[0] * one, across[1] * one, 0, down[0] * one, down[1] * one, 0, 0, 0, 2**30)


@pytest.mark.parametrize(
    ("across", "down", "rotation", "corners"),
    [  # corners: stored ones 0 1 / 2 3 as they are shown
        ((1, 0), (0, 1), 0, [[0, 1], [2, 3]]),
        ((0, 1), (-1, 0), -90, [[2, 0], [3, 1]]),
        ((-1, 0), (0, -1), 180, [[3, 2], [1, 0]]),
        ((0, -1), (1, 0), 90, [[1, 3], [0, 2]]),
        ((-1, 0), (0, 1), None, [[1, 0], [3, 2]]),
        ((1, 0), (0, -1), None, [[2, 3], [0, 1]]),
        ((0, 1), (1, 0), None, [[0, 2], [1, 3]]),
        ((0, -1), (-1, 0), None, [[3, 1], [2, 0]]),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_videos_are_turned_as_they_are_shown(
    tmp_path: Path,
    across: tuple[int, int],
    down: tuple[int, int],
    rotation: int | None,
    corners: list[list[int]],
    colour: bool,
) -> None:
    levels = np.array([[20, 90], [160, 230]], np.uint8)
    pixels = levels.repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)
    rgb = np.stack([pixels, 255 - pixels if colour else pixels, pixels], 2)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    data = write(tmp_path / "a.mp4", frame, "yuv420p", "mpeg4").read_bytes()
    upright = shown((1, 0), (0, 1))
    at = data.index(upright, data.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(data[:at] + shown(across, down) + data[at + len(upright) :])
    found = read(tmp_path / "a.mp4")
    assert found.ndim == (3 if colour else 2)
    assert found.shape[:2] == ((WIDTH, HEIGHT) if across[0] == 0 else (HEIGHT, WIDTH))
    red = found[..., 0] if colour else found
    corner = red[4 :: red.shape[0] - 9, 4 :: red.shape[1] - 9]
    assert np.abs(corner.astype(int) - levels.reshape(-1)[corners]).max() < 12
    with av.open(str(tmp_path / "a.mp4")) as container:
        flagged = getattr(next(container.decode(video=0)), "rotation", None)  # since PyAV 14.1
    if rotation is not None and flagged is not None:
        assert (flagged - rotation) % 360 == 0


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("clip.mkv", "ffv1", "gray"), ("clip.webm", "libvpx-vp9", "yuv420p")]
)
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    whole, cut = tmp_path / name, tmp_path / f"cut_{name}"
    for count in (1, 2, 30):
        with av.open(str(whole), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
            for number in range(count):
                noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
                frame = av.VideoFrame.from_ndarray(noise, format="gray")
                container.mux(stream.encode(frame.reformat(format=pixels)))
            container.mux(stream.encode())
        assert len(list(read_sources([whole]))) == count  # warnings are errors here
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.warns(
        UserWarning, match=rf"cut_{name}: the last frame ends at 0\.\d+ s of 1\.20 s; the file may be cut"
    ):
        assert 5 <= len(list(read_sources([cut]))) < 25
