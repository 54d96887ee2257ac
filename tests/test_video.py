"""Videos: tracked, confirmed, thinned out and written, from files and from Python."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from torch import Tensor, nn

from serank.errors import FrameError
from serank.frames.preparation import FrameSpec
from serank.frames.sources import read_sources
from serank.inference import Detections, Detector, FrameSource, detect_files, write_detections
from serank.inference.video import frame_rate, video_writer
from serank.synthetic import make_scene

av = pytest.importorskip("av", reason="videos need the extra `video`")

HEIGHT, WIDTH, FRAMES = 80, 97, 30  # one side is odd, which codecs refuse


class Peaks(Detector, nn.Module):
    """Finds pixels that stand out of the mean of their neighbours: targets, and the highest peaks of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(60.0))
        self.frame_spec, self.in_channels, self.threshold = FrameSpec(mean=0.0, std=1.0), 1, 0.5

    def forward(self, x: Tensor) -> Tensor:
        around = nn.functional.avg_pool2d(x, 7, 1, 3, count_include_pad=False)
        return self.gain * (x - around - 0.105)


def place(t: int) -> tuple[float, float]:
    """x, y of the target in frame t: 2.5 px a frame, more than its size."""
    return 8 + 2.5 * t, 50 - 0.8 * t


def clip(noise: float = 0.03) -> list[NDArray[np.uint8]]:
    """A still sky, noise of each frame's own, and one target of 2 px that moves through."""
    background = make_scene(HEIGHT, WIDTH, background="sky", targets=0, noise=0.0, seed=3).frame * 0.6
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for t in range(FRAMES):
        x0, y0 = place(t)
        frame = background + noise * rng.standard_normal((HEIGHT, WIDTH))
        frame += 0.35 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2))
        frames.append(np.rint(255 * np.clip(frame, 0, 1)).astype(np.uint8))
    return frames


def write_clip(path: Path, frames: list[NDArray[np.uint8]], rate: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "gray"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mkv", clip())


def counts(results: list[Detections]) -> tuple[int, int]:
    """Frames in which the target was found, and false alarms in all of them."""
    hits = false = 0
    for found in results:
        assert found.source is not None
        assert found.source.frame is not None
        near = np.hypot(*(found.centroids - place(found.source.frame)).T) < 3
        hits, false = hits + int(near.any()), false + int((~near).sum())
    return hits, false


def test_confirmation_leaves_false_alarms_out(source: Path) -> None:
    hits, false = counts(list(detect_files(Peaks(), source)))
    assert hits == FRAMES
    assert false > FRAMES / 2
    confirmed = list(detect_files(Peaks(), source, confirm=(3, 4), max_distance=4))
    assert len(confirmed) == FRAMES
    hits, left = counts(confirmed)
    assert hits == FRAMES - 2
    assert left <= false / 10


def test_a_moving_target_keeps_its_number(source: Path) -> None:
    numbers = set()
    for found in detect_files(Peaks(), [source], track=True, max_distance=4, batch_size=4):
        assert found.source is not None
        assert found.tracks is not None
        assert found.source.frame is not None
        near = np.hypot(*(found.centroids - place(found.source.frame)).T) < 3
        numbers.update(found.tracks[near].tolist())
    assert len(numbers) == 1


def test_every_nth_frame(source: Path) -> None:
    found = list(detect_files(Peaks(), source, every=4))
    assert [d.source for d in found] == [FrameSource(source, frame=i) for i in range(0, FRAMES, 4)]


def test_sequences_have_tracks_of_their_own(tmp_path: Path) -> None:
    frame = np.tile(np.linspace(0, 30, WIDTH).astype(np.uint8), (HEIGHT, 1))
    frame[20:22, 20:22] = 255  # a single pixel would be repaired as dead
    (tmp_path / "f").mkdir()
    write_clip(tmp_path / "f" / "a.mkv", [frame] * 2)
    for name in ("b.png", "c.png"):
        Image.fromarray(frame).save(tmp_path / "f" / name)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "f" / "d.tif"), True) as pages:
        for _ in range(2):
            Image.fromarray(frame).save(pages, format="TIFF")
            pages.newFrame()
    found = list(detect_files(Peaks(), tmp_path / "f", track=True))
    assert [d.tracks.tolist() for d in found if d.tracks is not None] == [[1], [1], [2], [2], [3], [3]]
    sources = [d.source for d in found if d.source]
    assert [(s.page, s.frame) for s in sources] == [
        (None, 0),
        (None, 1),
        (None, None),
        (None, None),
        (0, None),
        (1, None),
    ]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    ("middle", "x", "number"),
    [("b.png", 28, 1), ("b.png", 31, 2), ("b.mkv", 20, 2)],  # in reach of two frames, beyond it, another sequence
)
def test_a_frame_that_cannot_be_read_is_one_without_detections(
    tmp_path: Path, middle: str, x: int, number: int, batch_size: int
) -> None:
    for name, left in (("a.png", 20), ("c.png", x)):
        frame = np.tile(np.linspace(0, 30, WIDTH).astype(np.uint8), (HEIGHT, 1))
        frame[20:22, left : left + 2] = 255
        Image.fromarray(frame).save(tmp_path / name)
    (tmp_path / middle).write_bytes(b"no frame")
    told: list[FrameSource] = []
    found = detect_files(
        Peaks(),
        tmp_path,
        track=True,
        max_distance=5,
        batch_size=batch_size,
        skipped=lambda source, _: told.append(source),
    )
    assert [d.tracks.tolist() for d in found if d.tracks is not None] == [[1], [number]]
    assert told == [FrameSource(tmp_path / middle)]


def test_frames_that_cannot_be_read_are_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.fromarray(clip()[0]).save(tmp_path / "b.png")
    told: list[Any] = []
    found = list(detect_files(Peaks(), tmp_path, skipped=lambda source, reason: told.append((source, reason))))
    assert [d.source for d in found] == [FrameSource(tmp_path / "b.png")]
    assert [source for source, _ in told] == [FrameSource(tmp_path / "a.png")]
    assert "a.png: not an image" in told[0][1]
    with pytest.raises(FrameError, match=r"a\.png: not an image .*give skipped="):
        list(detect_files(Peaks(), tmp_path))


def test_wrong_arguments_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be >= 1; got 0"):
        detect_files(Peaks(), tmp_path, every=0)
    with pytest.raises(FileNotFoundError, match="no image or video in this folder"):
        detect_files(Peaks(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such file"):
        detect_files(Peaks(), tmp_path / "gone.png")


def video_frames(path: Path) -> list[NDArray[Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_drawn_video(source: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    result = write_detections(Peaks(), source, tmp_path / "out", track=True, every=2, video=target, max_distance=8)
    assert result.frames == FRAMES // 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["detections.json"]
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 5  # of every second frame of 10 a second
    expected = [found.image() for found in detect_files(Peaks(), source, track=True, every=2, max_distance=8)]
    drawn = video_frames(target)
    assert len(drawn) == FRAMES // 2
    width, height = expected[0].size
    assert drawn[0].shape == (height, width + width % 2, 3)
    for frame, picture in zip(drawn, expected, strict=True):
        # colour has half the resolution in a video; brightness has all of it
        off = frame[:, :width].mean(axis=2) - np.asarray(picture).mean(axis=2)
        assert np.abs(off).mean() < 3
    frames = json.loads((tmp_path / "out" / "detections.json").read_text())["frames"]
    assert [frame["index"] for frame in frames] == list(range(0, FRAMES, 2))
    assert all("track" in one for frame in frames for one in frame["detections"])


def test_images_make_a_video_too(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for number, frame in enumerate(clip()[:3]):
        Image.fromarray(frame).save(tmp_path / "f" / f"{number}.png")
    write_detections(Peaks(), tmp_path / "f", tmp_path / "out", video=tmp_path / "out.mp4")
    assert len(video_frames(tmp_path / "out.mp4")) == 3
    assert frame_rate(tmp_path / "out.mp4") == 25


def test_without_h264_it_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = av.codec.Codec

    def without(name: str, mode: str) -> Any:
        if name == "libx264":
            raise av.codec.codec.UnknownCodecError(name)
        return codec(name, mode)

    monkeypatch.setattr(av.codec, "Codec", without)
    with video_writer(tmp_path / "a.mp4") as writer:
        writer.add(Image.new("RGB", (64, 48), (200, 100, 50)))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert np.abs(video_frames(tmp_path / "a.mp4")[0].astype(int) - (200, 100, 50)).max() < 12


@pytest.mark.parametrize("error", [OSError("No space left on device"), ValueError("bad frame")])
def test_an_error_leaves_no_half_video(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a.mp4").write_text("earlier")
    with pytest.raises(type(error), match=str(error)), video_writer(tmp_path / "a.mp4") as writer:  # noqa: PT012
        writer.add(Image.new("RGB", (64, 48)))
        raise error
    assert (tmp_path / "a.mp4").read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_an_interrupted_video_has_the_frames_before(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), video_writer(tmp_path / "a.mp4", Fraction(30)) as writer:  # noqa: PT012
        for _ in range(4):
            writer.add(Image.new("RGB", (64, 48)))
        raise KeyboardInterrupt
    assert len(video_frames(tmp_path / "a.mp4")) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_without_frames_is_none(tmp_path: Path) -> None:
    with video_writer(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frames_of_other_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for number, side in enumerate((500, 510)):
        frame = np.tile(np.arange(500) % 100, (side, 1)).astype(np.uint8)
        Image.fromarray(frame).save(tmp_path / "f" / f"{number}.png")
    with pytest.raises(ValueError, match="this one is 500x510, the first was 500x500"):
        write_detections(Peaks(), tmp_path / "f", tmp_path / "out", video=tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["frames"]) == 2


def test_what_makes_no_video(source: Path, tmp_path: Path) -> None:
    Image.fromarray(clip()[0]).save(tmp_path / "b.png")
    for paths, video, message in (
        ([source, tmp_path / "b.png"], "out.mp4", "takes one video, or image files; got 2 files"),
        ([source], "clip.mkv", "is the file that is read"),
        ([source], "out.gif", "no suffix that can be written"),
    ):
        with pytest.raises(ValueError, match=message):
            write_detections(Peaks(), paths, tmp_path / "out", video=tmp_path / video)
    with pytest.raises(FileNotFoundError, match="its folder doesn't exist"):
        write_detections(Peaks(), source, tmp_path / "out", video=tmp_path / "nowhere" / "out.mp4")
    assert not (tmp_path / "out").exists()
    assert len(list(read_sources([source]))) == FRAMES
