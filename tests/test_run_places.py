"""Where `write_detections` reads and writes: no frame is dropped unsaid, and no file of a user's is written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serank import SeRankDet
from serank.inference import CentroidTracker, write_detections


@pytest.fixture(scope="module")
def model() -> SeRankDet:
    return SeRankDet(width=2).eval()


def pixels(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (24, 32), dtype=np.uint8)


def save(*files: Path) -> None:
    for seed, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(file)


def records(output: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output / "detections.json").read_text())["frames"]
    return found


def test_an_output_above_the_frames_drops_none(
    model: SeRankDet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "cam1" / "1.png", tmp_path / "cam2" / "2.png")
    monkeypatch.chdir(tmp_path)
    for paths in (["cam1", "cam2"], ["cam1/1.png", "cam2"], ["cam1/1.png", "cam2/2.png"]):
        for recursive in (False, True):
            assert write_detections(model, paths, ".", recursive=recursive, pictures=False).frames == 2
            assert len(records(tmp_path)) == 2


@pytest.mark.parametrize("name", ["output", "probability", "masks"])
def test_a_folder_that_is_read_whole_is_not_written_to(model: SeRankDet, tmp_path: Path, name: str) -> None:
    save(tmp_path / "frames" / "day" / "1.png", tmp_path / "other" / "2.png")
    places: dict[str, Any] = {"output": tmp_path / "out"} | {name: tmp_path / "frames"}
    with pytest.raises(ValueError, match=rf"{name} '.*frames' is read with its sub-folders \(recursive\)"):
        write_detections(model, [tmp_path / "frames", tmp_path / "other"], recursive=True, **places)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.*1 other file passed over", "ignore:.*constant, nothing can be found")
def test_what_an_earlier_run_wrote_is_no_frame(model: SeRankDet, tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root / "images" / "1.png", root / "images" / "2.png")
    folders: dict[str, Any] = {"masks": root / "masks", "probability": root / "maps"}
    assert write_detections(model, root, root / "out", recursive=True, **folders).frames == 2
    others: list[dict[str, Any]] = [folders, {}, {"masks": tmp_path / "elsewhere"}]
    for again in others:
        assert write_detections(model, root, root / "out", recursive=True, **again).frames == 2
    for file in (root / "masks").iterdir():  # what is named is read
        assert write_detections(model, [file], tmp_path / "named", recursive=True).frames == 1


def test_labels_are_not_written_over(model: SeRankDet, tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png", tmp_path / "images" / "2.png")
    for label in ("1.png", "1_pixels0.png", "1/000000.bmp"):
        root = tmp_path / label.replace("/", "_")
        save(root / label)
        before = (root / label).read_bytes()
        with pytest.raises(ValueError, match=rf"holds '{label}', which serank detect did not write as a mask"):
            write_detections(model, tmp_path / "images", tmp_path / "out", masks=root)
        assert (root / label).read_bytes() == before
    assert not (tmp_path / "out").exists()
    for _ in range(2):  # its own are
        write_detections(model, tmp_path / "images", tmp_path / "out", masks=tmp_path / "masks")


def test_each_frame_s_files_are_in_its_record(model: SeRankDet, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("b/1.PNG", "b/1.jpg", "b/1_2.png", "a/1.png")]
    save(*files)
    write_detections(
        model, files, tmp_path / "out", masks=tmp_path / "masks", probability=tmp_path / "maps", threshold=0.0
    )
    found = {record["frame"]: record for record in records(tmp_path / "out")}
    assert [found[str(file)]["mask"] for file in files] == ["1.png", "1_2.png", "1_2_2.png", "1_3.png"]
    for file in files:
        record = found[str(file)]
        assert record["mask"] == record["probability"]
        expected = model.detect(file).probability
        with Image.open(tmp_path / "maps" / record["probability"]) as image:
            np.testing.assert_allclose(np.asarray(image) / 255, expected, atol=0.003)


@pytest.mark.parametrize("name", ["output", "probability", "masks"])
def test_an_empty_path_is_no_folder(
    model: SeRankDet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save(tmp_path / "frames" / "1.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{name} is an empty path; name a folder"):
        write_detections(model, "frames", **({"output": "out"} | {name: ""}))  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames"]


def test_a_full_disk_names_the_file(model: SeRankDet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "frames" / "1.png")

    def full(self: Image.Image, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*masks.*1\.png'"):
        write_detections(model, tmp_path / "frames", tmp_path / "out", masks=tmp_path / "masks", pictures=False)
    assert list((tmp_path / "masks").iterdir()) == []


def test_what_is_no_detections_is_not_counted(model: SeRankDet) -> None:
    tracker = CentroidTracker()
    found = model.detect(pixels(), threshold=0.0)
    first = tracker.update(found).tracks
    for _ in range(9):
        with pytest.raises(TypeError, match=r"found must be Detections; got NoneType; skip\(\)"):
            tracker.update(None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(tracker.update(found).tracks, first)


def test_options_are_frame_options(model: SeRankDet, tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(TypeError, match=r"options must be serank\.frames\.FrameOptions; got dict"):
        write_detections(model, tmp_path, tmp_path / "out", options={"polarity": "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize("paths", ["", [""], ["frames", ""]])
def test_an_empty_path_is_no_frame(model: SeRankDet, tmp_path: Path, paths: Any) -> None:
    with pytest.raises(ValueError, match="paths holds an empty path; name a file or folder"):
        write_detections(model, paths, tmp_path / "out")


def test_a_named_folder_within_the_output_is_read(model: SeRankDet, tmp_path: Path) -> None:
    save(tmp_path / "d" / "s" / "1.png", tmp_path / "d" / "out" / "sub" / "7.png", tmp_path / "d" / "out" / "8.png")
    output = tmp_path / "d" / "out"
    both = [tmp_path / "d", output / "sub"]
    write_detections(model, both, output, recursive=True, pictures=False)
    assert {Path(record["frame"]).name for record in records(output)} == {"1.png", "7.png"}


def test_masks_beside_maps_in_one_folder_run_again(model: SeRankDet, tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png", tmp_path / "images" / "maps.png")
    for _ in range(2):
        write_detections(
            model, tmp_path / "images", tmp_path / "out", masks=tmp_path / "m", probability=tmp_path / "m" / "maps"
        )
