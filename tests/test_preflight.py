"""What a training set is refused for, before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from serank import SeRankDet
from serank.datasets import FolderDataset, JoinedSamples, NoisySIRST, Sample
from serank.errors import FrameError
from serank.train import Recipe, fit
from serank.train.preflight import inspect_samples, warn_shared_frames


def sample(name: str, *areas: int, side: int = 20) -> Sample:
    mask = np.zeros((side, side), bool)
    for row, area in enumerate(areas):
        mask[4 * row, :area] = True
    return Sample(name, np.full((side, side), 0.5, np.float32), mask)


class Broken(Sequence[Sample]):
    """Every other frame can't be read."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if index % 2:
            raise FrameError(f"frame_{index}.png: not an image")
        return sample(f"frame_{index}", 3)


def test_summary_counts() -> None:
    summary = inspect_samples([sample("a", 3, 9), sample("b"), sample("c", 5, side=40)], "train_set")
    assert (summary.frames, summary.empty, summary.targets) == (3, 1, 3)
    assert summary.areas == (3, 5, 9)
    assert summary.sides == (20, 40)
    assert str(summary) == "3 frames of 20 to 40 px, 1 without a target; 3 targets of 3 to 9 px (median 5)"


def test_empty_set() -> None:
    with pytest.raises(ValueError, match="val_set is empty; expected at least one frame"):
        inspect_samples([], "val_set", need_targets=False)


def test_digest_tells_sets_apart() -> None:
    a, b = sample("a", 3), sample("b", 3)
    moved = Sample(b.name, b.frame, np.roll(b.mask, 2, 0))
    brighter = Sample(b.name, b.frame + np.float32(1e-3), b.mask)
    sets = ([a, b], [b, a], [a], [a, b, b], [a, sample("b", 3, side=21)], [a, moved], [a, brighter])
    assert len({inspect_samples(s, "set").digest for s in sets}) == len(sets)
    assert inspect_samples([a, b], "set").digest == inspect_samples([a, sample("b", 3)], "set").digest


def test_no_target_at_all() -> None:
    empty = [sample("a"), sample("b")]
    with pytest.raises(ValueError, match="train_set: none of its 2 masks holds a target"):
        inspect_samples(empty, "train_set")
    assert str(inspect_samples(empty, "val_set", need_targets=False)).endswith("2 without a target; no target")


def test_unreadable_frames_are_listed_and_counted() -> None:
    with pytest.raises(ValueError, match="train_set: 15 of 30 samples can't be used") as error:
        inspect_samples(Broken(), "train_set")
    lines = str(error.value).splitlines()
    assert lines[1].strip() == "frame_1.png: not an image"
    assert lines[-1].strip() == "and 5 more"


def test_sizes_that_disagree() -> None:
    wrong = sample("wide", 3)._replace(frame=np.zeros((20, 30), np.float32))
    with pytest.raises(ValueError, match=r"1 of 2 samples can't be used:\n  wide: mask is 20 x 20, its frame 20 x 30"):
        inspect_samples([sample("a", 3), wrong], "train_set")


def test_inverted_masks() -> None:
    inverted = [s._replace(mask=~s.mask) for s in (sample("a", 3), sample("b", 4))]
    with pytest.raises(ValueError, match=r"in 2 of 2 masks more than half of the pixels are target; are they inverted"):
        inspect_samples(inverted, "train_set")


def write(root: Path, names: Sequence[str], mask_side: int = 20) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i, name in enumerate(names):
        frame = np.full((20, 20), 90 + i, np.uint8)
        Image.fromarray(frame).save(root / "images" / f"{name}.png")
        mask = np.zeros((mask_side, mask_side), np.uint8)
        mask[4:7, 4:7] = 255
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    return root


def test_masks_of_another_size_in_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, ["Misc_1", "Misc_111"], mask_side=30)
    with pytest.warns(UserWarning, match="resized by nearest"), pytest.raises(ValueError) as error:  # noqa: PT011
        inspect_samples(JoinedSamples([FolderDataset(folder)]), "train_set")
    assert "train_set: 1 of 2 samples can't be used:\n  Misc_1: mask is 30 x 30, its frame 20 x 20" in str(error.value)
    # the known defect alone is no reason to stop
    known = write(tmp_path / "known", ["Misc_111"], mask_side=30)
    with pytest.warns(UserWarning, match="resized by nearest"):
        assert inspect_samples(FolderDataset(known), "train_set").frames == 1


def test_frames_in_both_sets_are_warned_of(tmp_path: Path) -> None:
    root = write(tmp_path, ["a", "b", "c"])
    for name, text in (("some", "a\nb\n"), ("other", "b\nc\n")):
        (root / f"{name}.txt").write_text(text)
    sets = [FolderDataset(root, "some"), JoinedSamples([NoisySIRST(FolderDataset(root, "other"), 10)])]
    with pytest.warns(UserWarning, match="metrics on this test set will be too good"):
        fit(SeRankDet(width=2), sets[0], sets[1], recipe=Recipe(epochs=1, batch_size=2), progress=False)


def test_joined_samples() -> None:
    joined = JoinedSamples([[sample("a", 1)], [], [sample("b", 2), sample("c", 3)]])
    assert [s.name for s in joined] == ["a", "b", "c"]
    assert (len(joined), joined[-1].name) == (3, "c")
    with pytest.raises(IndexError):
        joined[3]
    with pytest.raises(ValueError, match="sets is empty"):
        JoinedSamples([])
    labelled = JoinedSamples([[sample("a", 1)], [sample("a", 2)]], ["x", "y"])
    assert [(s.name, int(s.mask.sum())) for s in labelled] == [("x/a", 1), ("y/a", 2)]
    with pytest.raises(ValueError, match="labels must be one for each of the 2 sets; got 1"):
        JoinedSamples(labelled.sets, ["x"])


def test_one_inverted_mask_is_warned_of() -> None:
    odd = sample("odd", 3)
    odd = odd._replace(mask=~odd.mask)
    with pytest.warns(UserWarning, match="train_set: more than half of the mask is target in odd; inverted"):
        inspect_samples([sample("a", 3), sample("b", 3), odd], "train_set")


def test_fit_looks_before_it_starts() -> None:
    with pytest.raises(ValueError, match="train_set: none of its 2 masks"):
        fit(SeRankDet(width=2), [sample("a"), sample("b")], recipe=Recipe(batch_size=2), progress=False)
    with pytest.raises(ValueError, match="val_set: 15 of 30 samples"):
        fit(SeRankDet(width=2), [sample("a", 3)] * 2, Broken(), recipe=Recipe(batch_size=2), progress=False)


def with_another(data: Any) -> Any:
    return JoinedSamples([data, [sample("other", 3)]])


def noisy(data: Any) -> Any:
    return NoisySIRST(data, 10)


PARTS: list[Callable[[Any], Any]] = [
    lambda data: (Subset(data, [0, 1]), Subset(data, [1, 2])),
    lambda data: (data.subset([0, -2]), Subset(data, [1, 2])),
    lambda data: (ConcatDataset([data.subset([0]), data.subset([1])]), data.subset([1, 2])),
    lambda data: (Subset(ConcatDataset([data, data]), [0, 4]), JoinedSamples([data.subset([1])])),
    lambda data: (Subset(ConcatDataset([data, data]), [-2]), data.subset([1])),
    lambda data: (Subset(noisy(data), [0, 1]), Subset(noisy(data), [1, 2])),
    lambda data: (Subset(Subset(data, [1, 0]), [0, 1]), Subset(with_another(data), [1, 3])),
]
DISJOINT: list[Callable[[Any], Any]] = [
    lambda data: (Subset(data, [0, 1]), Subset(data, [2])),
    lambda data: (data.subset([0, 1]), data.subset([2])),
    lambda data: (Subset(noisy(data), [0, 1]), Subset(noisy(data), [2])),
    lambda data: (Subset(ConcatDataset([data, data]), [0, 4]), data.subset([2])),
    lambda data: (Subset(Subset(data, [2, 1, 0]), [1, 2]), Subset(with_another(data), [2, 3])),
]


@pytest.mark.parametrize("parts", PARTS)
def test_frames_that_parts_of_a_set_share_are_warned_of(tmp_path: Path, parts: Callable[[Any], Any]) -> None:
    sets = parts(FolderDataset(write(tmp_path, ["a", "b", "c"])))
    with pytest.warns(UserWarning, match=r"share 1 frame \(b\); metrics on this test set will be too good"):
        warn_shared_frames(*sets)


@pytest.mark.parametrize("parts", DISJOINT)
def test_parts_without_a_common_frame(tmp_path: Path, parts: Callable[[Any], Any]) -> None:
    sets = parts(FolderDataset(write(tmp_path, ["a", "b", "c"])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_shared_frames(*sets)


def test_masks_of_another_size_in_a_part_of_a_folder(tmp_path: Path) -> None:
    data: Any = FolderDataset(write(tmp_path, ["a", "b"], mask_side=30))
    part: Any = Subset(data, [1])
    with pytest.warns(UserWarning, match="resized by nearest"), pytest.raises(ValueError, match="b: mask is 30 x 30"):
        inspect_samples(part, "train_set")


def test_another_network_is_refused_at_once() -> None:
    samples = [sample("a", 3)] * 2
    with pytest.raises(TypeError, match=r"model must be a SeRankDet; got Conv2d; .*serank\.train\.RandomCrops"):
        fit(nn.Conv2d(1, 1, 3), samples)  # type: ignore[arg-type]
    compiled: Any = torch.compile(SeRankDet(width=2), backend="eager")
    with pytest.raises(TypeError, match="model is compiled already; pass the network itself"):
        fit(compiled, samples)
    with pytest.raises(TypeError, match="teacher must be a SeRankDet; got Conv2d"):
        fit(SeRankDet(width=2), samples, teacher=nn.Conv2d(1, 1, 3))  # type: ignore[arg-type]
