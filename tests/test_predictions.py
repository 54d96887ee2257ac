"""Scoring files that other programs wrote: every format gives the same figures, and nothing is skipped in silence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from serank.errors import FrameError
from serank.evaluation import Evaluation, Evaluator, PredictionFolder
from serank.evaluation.map_files import read_values
from serank.inference.maps import is_probability, save_probability
from serank.metrics import DetectionMetrics
from serank.synthetic import SyntheticScenes

Array = NDArray[Any]

SCENES = list(SyntheticScenes(4, 40, 48, targets=(1, 3), size=(2, 5), scr=(8, 30), seed=4))
rng = np.random.default_rng(0)
# 8-bit values, which every format holds exactly
MAPS = {s.name: np.rint(255 * np.clip(0.7 * s.mask + 0.5 * rng.random(s.mask.shape) ** 4, 0, 1)) for s in SCENES}


def scored(
    predictions: Path, targets: Path, *, threshold: float = 0.5, protocol: Any = "standard", **options: Any
) -> Evaluation:
    return PredictionFolder(predictions, targets, **options).score(threshold=threshold, protocol=protocol)


def picture(folder: Path, name: str, values: Array, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / f"{name}{suffix}")
    return folder / f"{name}{suffix}"


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A plain folder of masks."""
    for scene in SCENES:
        picture(tmp_path / "gt", scene.name, scene.mask.astype(np.uint8) * 255)
    return tmp_path / "gt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with frames, masks and a list."""
    for scene in SCENES:
        picture(tmp_path / "set" / "images", scene.name, np.rint(scene.frame * 255).astype(np.uint8))
        picture(tmp_path / "set" / "masks", f"{scene.name}_pixels0", scene.mask.astype(np.uint8) * 255)
    (tmp_path / "set" / "val.txt").write_text("\n".join(s.name for s in SCENES[1:3]))
    return tmp_path / "set"


def write_all(folder: Path, write: Callable[[Path, Array], None], suffix: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in MAPS.items():
        write(folder / f"{name}{suffix}", values)
    return folder


def as_png(file: Path, values: Array) -> None:
    Image.fromarray(values.astype(np.uint8)).save(file)


def expected() -> Evaluation:
    evaluator = Evaluator()
    for scene in sorted(SCENES, key=lambda s: s.name):
        evaluator.update(scene.name, (MAPS[scene.name] / 255).astype(np.float32), scene.mask)
    return evaluator.result()


WRITERS: dict[str, tuple[str, Callable[[Path, Array], Any]]] = {
    "png": (".png", as_png),
    "bmp": (".bmp", as_png),
    "tiff": (".TIF", as_png),
    "grey content in colour": (".png", lambda f, v: Image.fromarray(v.astype(np.uint8)).convert("RGBA").save(f)),
    "16-bit png": (".png", lambda f, v: Image.fromarray(v.astype(np.uint16) * 257).save(f)),
    "float tiff": (".tiff", lambda f, v: Image.fromarray((v / 255).astype(np.float32)).save(f)),
    "npy float32": (".npy", lambda f, v: np.save(f, (v / 255).astype(np.float32))),
    "npy with more axes": (".npy", lambda f, v: np.save(f, (v[None, None] / 255).astype(np.float32))),
    "npy uint8": (".npy", lambda f, v: np.save(f, v.astype(np.uint8))),
    "mat double": (".mat", lambda f, v: savemat(f, {"score": v / 255, "time": 0.1, "note": "none"})),
    "mat uint8": (".mat", lambda f, v: savemat(f, {"map": v.astype(np.uint8)}, do_compression=True)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_formats_agree(kind: str, masks: Path, tmp_path: Path) -> None:
    suffix, write = WRITERS[kind]
    result = scored(write_all(tmp_path / "maps", write, suffix), masks)
    same = expected()
    assert result.problems == []
    assert result.metrics == same.metrics
    assert result.to_dict()["frames"] == same.to_dict()["frames"]
    assert result.curves is not None
    assert same.curves is not None
    np.testing.assert_array_equal(result.curves.fa, same.curves.fa)


MASK_WRITERS: dict[str, tuple[str, Callable[[Path, Array], Any]]] = {
    "png of 0 and 255": (".png", lambda f, v: Image.fromarray((v > 127).astype(np.uint8) * 255).save(f)),
    "png of 0 and 1": (".png", lambda f, v: Image.fromarray((v > 127).astype(np.uint8)).save(f)),
    "png of 1 bit": (".png", lambda f, v: Image.fromarray(v > 127).save(f)),
    "npy bool": (".npy", lambda f, v: np.save(f, v > 127)),
    "npy uint8 of 0 and 1": (".npy", lambda f, v: np.save(f, (v > 127).astype(np.uint8))),
    "npy int64": (".npy", lambda f, v: np.save(f, (v > 127).astype(np.int64))),
    "mat logical": (".mat", lambda f, v: savemat(f, {"mask": v > 127})),
    "mat double": (".mat", lambda f, v: savemat(f, {"mask": (v > 127).astype(np.float64)})),
}


@pytest.mark.parametrize("kind", MASK_WRITERS)
def test_masks_agree(kind: str, masks: Path, tmp_path: Path) -> None:
    suffix, write = MASK_WRITERS[kind]
    result = scored(write_all(tmp_path / "maps", write, suffix), masks, threshold=0.9)
    assert {k: v for k, v in result.metrics.items() if k == "iou"} == {"iou": expected().metrics["iou"]}
    assert result.metrics["fa"] == expected().metrics["fa"]


def test_a_faint_map_among_others_is_no_mask(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    faint = np.zeros((40, 48), np.uint8)
    faint[0:30] = 1  # alone, this could be a mask of 0 and 1
    picture(folder, SCENES[0].name, faint)
    score = next(f for f in scored(folder, masks).frames if f.name == SCENES[0].name)
    assert score.predicted_pixels == 0
    assert score.peak == pytest.approx(1 / 255)


def test_a_folder_that_is_read_as_masks_says_so(masks: Path, tmp_path: Path) -> None:
    for scene in SCENES:
        picture(tmp_path / "maps", scene.name, scene.mask.astype(np.uint8))
    result = scored(tmp_path / "maps", masks)
    assert result.metrics["iou"] == 1
    (problem,) = result.problems
    assert "maps: no file exceeds 1: read as masks of 0 and 1" in problem
    for scene in SCENES:
        picture(tmp_path / "maps", scene.name, np.zeros_like(scene.mask, np.uint8))
    assert scored(tmp_path / "maps", masks).problems == []  # empty, whichever they are


def test_nearly_empty_maps_of_serank_are_no_masks(masks: Path, tmp_path: Path) -> None:
    faint = np.full((40, 48), 1 / 255, np.float32)
    for scene in SCENES:
        save_probability(faint, tmp_path / "maps" / f"{scene.name}.png")
    result = scored(tmp_path / "maps", masks)
    assert (result.metrics["fa"], result.problems) == (0, [])
    assert result.frames[0].peak == pytest.approx(1 / 255)


def test_only_maps_of_serank_are_known_as_such(tmp_path: Path) -> None:
    save_probability(np.zeros((4, 4), np.float32), tmp_path / "a.png")
    assert is_probability(tmp_path / "a.png")
    as_png(tmp_path / "b.png", np.zeros((4, 4)))
    (tmp_path / "c.png").write_bytes(b"text")
    as_png(tmp_path / "d.bmp", np.zeros((4, 4)))
    assert not any(is_probability(tmp_path / name) for name in ("b.png", "c.png", "d.bmp"))


# ---------- names ----------


def test_a_data_set_gives_frames_and_splits(root: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    whole = scored(folder, root)
    assert whole.metrics == expected().metrics
    assert all(math.isfinite(t.scr) for t in whole.targets)
    val = scored(folder, root, split="val")
    assert [f.name for f in val.frames] == [s.name for s in SCENES[1:3]]
    assert len(val.problems) == 2  # the predictions of the frames outside the split
    assert all("extra" in problem for problem in val.problems)


@pytest.mark.parametrize("ending", ["", "_pixels0", "_mask"])
def test_names_may_have_the_endings_of_masks(ending: str, root: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, f"{ending}.png")
    for targets in (root, root / "masks"):
        result = scored(folder, targets)
        assert result.problems == []
        assert result.metrics == expected().metrics
        assert sorted(f.name for f in result.frames) == sorted(MAPS)


def test_masks_without_frames_take_them_from_a_folder(root: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    bare = scored(folder, root / "masks")
    assert all(math.isnan(t.scr) for t in bare.targets)
    assert bare.by_scr == []
    (root / "images" / f"{SCENES[0].name}.png").unlink()
    picture(root / "images", SCENES[1].name, np.zeros((7, 7), np.uint8))
    result = scored(folder, root / "masks", frames=root / "images")
    unknown = {t.frame for t in result.targets if math.isnan(t.scr)}
    assert unknown == {SCENES[0].name, SCENES[1].name}
    assert len(result.problems) == 2
    assert any("no frame in" in problem for problem in result.problems)
    assert any("frame is 7x7, its mask 40x48" in problem for problem in result.problems)
    with pytest.raises(ValueError, match="is for targets that are a plain folder of masks"):
        scored(folder, root, frames=root / "images")


def test_a_list_picks_and_orders(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    names = [SCENES[2].name, SCENES[0].name]
    (tmp_path / "list.txt").write_text(f"{names[0]}.png\n\n{names[1]}\n")
    result = scored(folder, masks, list_file=tmp_path / "list.txt")
    assert [f.name for f in result.frames] == names
    assert len(result.problems) == 2
    (tmp_path / "list.txt").write_text("nowhere\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 names have no mask in .*: nowhere"):
        scored(folder, masks, list_file=tmp_path / "list.txt")


# ---------- what is wrong ----------


def test_missing_counts_as_empty_and_extra_is_listed(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    gone = SCENES[0].name
    (folder / f"{gone}.png").unlink()
    picture(folder, "stranger", np.zeros((4, 4), np.uint8))
    (folder / "notes.txt").write_text("no map")
    (folder / "sub").mkdir()
    (folder / ".hidden.png").write_bytes(b"")
    result = scored(folder, masks)
    assert len(result.frames) == 4
    score = next(f for f in result.frames if f.name == gone)
    assert (score.predicted_pixels, score.detected, score.peak) == (0, 0, 0)
    assert score.targets > 0
    missing, *extra = result.problems
    assert missing.startswith(f"{gone}: no prediction in")
    assert [Path(p.split(":")[0]).name for p in extra] == ["notes.txt", "stranger.png", "sub"]


def test_all_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    scenes = [f"f{i}" for i in range(9)]
    for name in scenes:
        picture(tmp_path / "masks", name, np.zeros((8, 8), np.uint8))
    for name in [*scenes[:7], "stranger"]:
        picture(tmp_path / "maps", name, np.zeros((9, 8), np.uint8))
    with pytest.raises(ValueError, match="7 of 9 predictions have another size") as caught:
        scored(tmp_path / "maps", tmp_path / "masks")
    lines = str(caught.value).splitlines()
    assert [name for name in scenes[:7] if not any(f"{name}.png: map is 9x8" in line for line in lines)] == []
    for name in ("f7: no prediction", "f8: no prediction", "stranger"):
        assert sum(name in line for line in lines) == 1
    assert "resize=True" in lines[-1]


def test_a_wrong_size_is_an_error_unless_resized(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    odd = SCENES[1]
    double = np.kron(odd.mask, np.ones((2, 2))).astype(np.uint8) * 255
    picture(folder, odd.name, double)
    with pytest.raises(
        ValueError, match=r"(?s)1 of 4 predictions have another size.*is 80x96, expected 40x48.*resize=True"
    ):
        scored(folder, masks)
    result = scored(folder, masks, resize=True)
    assert len(result.problems) == 1
    assert "map is 80x96, expected 40x48; resized bilinearly" in result.problems[0]
    score = next(f for f in result.frames if f.name == odd.name)
    assert (score.height, score.width) == (40, 48)
    assert score.iou > 0.5


def test_another_resolution(masks: Path, tmp_path: Path) -> None:
    native = write_all(tmp_path / "maps", as_png, ".png")
    result = scored(native, masks, resolution=64, protocol="released")
    assert result.resolution == "64"
    assert {(f.height, f.width) for f in result.frames} == {(64, 64)}
    # maps already of that size are taken as they are
    folder = tmp_path / "square"
    metrics = DetectionMetrics(protocol="released")
    for scene in SCENES:
        square = Image.fromarray(MAPS[scene.name].astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST)
        folder.mkdir(exist_ok=True)
        square.save(folder / f"{scene.name}.png")
        mask = Image.fromarray(scene.mask.astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST)
        metrics.update(np.asarray(square) / np.float32(255), np.asarray(mask))
    found = scored(folder, masks, resolution=64, protocol="released")
    assert found.problems == []
    assert {k: found.metrics[k] for k in metrics.compute()} == metrics.compute()
    with pytest.raises(ValueError, match="4 of 4 predictions have another size"):
        scored(folder, masks)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.linspace(-8, 9, 40 * 48).reshape(40, 48), "holds -8 to 9; expected probabilities.*Logits need a sigmoid"),
        (np.full((40, 48), 200.0), "holds 200 to 200; .*8-bit values a division by 255"),
        (np.full((40, 48), np.nan), "holds NaN or infinity"),
        (np.full((40, 48), 7), r"holds int64 from 7 to 7; expected 0 and 1 alone"),
        (np.zeros((3, 40, 48)), r"holds float64 of shape \(3, 40, 48\); expected one map"),
        (np.zeros((40, 48), complex), "holds complex128"),
        (np.zeros((0, 48)), r"holds float64 of shape \(0, 48\)"),
    ],
)
def test_values_that_are_no_map(values: Array, message: str, masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", lambda f, v: np.save(f, v / 255), ".npy")
    np.save(folder / f"{SCENES[2].name}.npy", values)
    with pytest.raises(FrameError, match=rf"{SCENES[2].name}\.npy: {message}"):
        scored(folder, masks)


def test_rounding_beyond_one_is_forgiven(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", lambda f, v: np.save(f, v / 255 * (1 + 5e-7) - 1e-9), ".npy")
    assert scored(folder, masks).metrics["iou"] == expected().metrics["iou"]


class Harmful:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harmful"),))


def test_pickles_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    with pytest.raises(FrameError, match=r"a\.npy: holds object of shape"):
        read_values(Path("a.npy"))
    assert not Path("harmful").exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.zeros((40, 40)))
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(FrameError, match=r"a\.npy: truncated or corrupt"):
        read_values(file)
    with file.open("wb") as stream:
        np.savez(stream, a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(FrameError, match=r"expected one array; found 2 \(a, b\)"):
        read_values(file)
    colour = picture(tmp_path, "b", np.stack([np.zeros((4, 4)), np.ones((4, 4)), np.zeros((4, 4))], 2).astype(np.uint8))
    with pytest.raises(FrameError, match=r"b\.png: a colour picture"):
        read_values(colour)
    (tmp_path / "c.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    with pytest.raises(FrameError, match=r"c\.mat: a MATLAB v7\.3 file .*'-v7'"):
        read_values(tmp_path / "c.mat")
    (tmp_path / "d.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(3))
    with pytest.raises(FrameError, match=r"d\.mat: "):
        read_values(tmp_path / "d.mat")
    savemat(tmp_path / "e.mat", {"one": np.zeros((3, 4)), "two": np.ones((3, 4)), "n": 3})
    with pytest.raises(FrameError, match=r"exactly one two-dimensional numeric variable; found one .*two .*n "):
        read_values(tmp_path / "e.mat")
    savemat(tmp_path / "f.mat", {"text": "map"})
    with pytest.raises(FrameError, match="found text"):
        read_values(tmp_path / "f.mat")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_values(tmp_path / "g.png")


def test_sixteen_bits_that_hold_eight_are_noted(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", lambda f, v: Image.fromarray(v.astype(np.uint16)).save(f), ".png")
    (problem,) = scored(folder, masks).problems
    assert "16-bit files with values up to 255 only" in problem


def test_grey_masks_are_noted(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    shares = SCENES[0].mask.astype(np.uint8) * np.uint8(200)
    shares[tuple(np.argwhere(SCENES[0].mask)[0])] = 255
    picture(masks, SCENES[0].name, shares)
    result = scored(folder, masks)
    assert len(result.problems) == 1
    assert "mask has grey values" in result.problems[0]
    assert result.metrics == expected().metrics


def test_masks_of_0_and_1(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    for scene in SCENES:
        picture(masks, scene.name, scene.mask.astype(np.uint8))
    result = scored(folder, masks)
    assert result.problems == []
    assert result.metrics == expected().metrics


def test_folders_that_do_not_fit(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        scored(tmp_path / "nowhere", masks)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        scored(folder, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no masks"):
        scored(folder, tmp_path / "empty")
    with pytest.raises(ValueError, match=r"no prediction for any of 4 frames\. .*found none"):
        scored(tmp_path / "empty", masks)
    np.save(folder / f"{SCENES[0].name}.npy", np.zeros((40, 48)))
    with pytest.raises(ValueError, match="have one name; keep one of them"):
        scored(folder, masks)


def test_two_masks_of_one_frame(masks: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "maps", as_png, ".png")
    picture(masks, f"{SCENES[0].name}_mask", np.zeros((40, 48), np.uint8))
    with pytest.raises(ValueError, match=f"two masks for {SCENES[0].name}"):
        scored(folder, masks)


def test_pairs_can_be_looked_at(root: Path, tmp_path: Path) -> None:
    folder = PredictionFolder(write_all(tmp_path / "maps", as_png, ".png"), root, resolution=32)
    pair = folder.load(folder.names[0])
    assert pair.frame is not None
    assert pair.probability.shape == pair.mask.shape == pair.frame.shape == (32, 32)
    assert pair.probability.dtype == np.float32
    assert pair.mask.dtype == np.bool_
    json.dumps(folder.score(curves=False).to_dict(), allow_nan=False)


def test_many_frames_without_a_prediction_are_counted(tmp_path: Path) -> None:
    for i in range(8):
        picture(tmp_path / "masks", f"f{i}", np.zeros((8, 8), np.uint8))
    picture(tmp_path / "maps", "f3", np.zeros((8, 8), np.uint8))
    result = scored(tmp_path / "maps", tmp_path / "masks")
    assert [p.split(":")[0] for p in result.problems] == ["f0", "f1", "f2", "f4", "f5", str(tmp_path / "maps")]
    assert result.problems[-1].endswith("has none for 7 of 8 frames; a list takes fewer")
    assert len(result.frames) == 8
