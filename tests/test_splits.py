"""Published splits: the names that are bundled, and telling lists of users apart."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serank.datasets import available_splits, identify_split, sirst_test_names, split_names, warn_sirst_test_names
from serank.datasets import splits as module

EVERY = tuple(f"Misc_{i}" for i in range(1, 428))


@pytest.fixture
def unread() -> Iterator[None]:
    """Lists are kept once read; this makes them be read again."""
    module._load.cache_clear()
    yield
    module._load.cache_clear()


def rival(seed: int = 0) -> tuple[list[str], list[str]]:
    """A training and a test list with the counts of the 213/214 split, whose names are not known here."""
    rng = random.Random(seed)
    own, test = list(split_names("sirst", "trainval")), list(split_names("sirst", "test"))
    rng.shuffle(own)
    rng.shuffle(test)
    return own[:169] + test[:44], own[169:] + test[44:]


def test_counts_of_the_splits() -> None:
    counts = {key: len(split_names(*key.split(":"))) for key in available_splits()}
    assert counts == {
        "sirst:trainval": 341,
        "sirst:train": 256,
        "sirst:val": 85,
        "sirst:test": 86,
        "sirst-v2:train": 293,
        "sirst-v2:val": 155,
        "irstd1k:trainval": 800,
        "irstd1k:train": 640,
        "irstd1k:val": 160,
        "irstd1k:test": 201,
        "nudt-sirst:trainval": 663,
        "nudt-sirst:train": 531,
        "nudt-sirst:val": 132,
        "nudt-sirst:test": 664,
    }


@pytest.mark.parametrize("key", available_splits())
def test_names_are_bare_and_differ(key: str) -> None:
    names = split_names(*key.split(":"))
    assert len(set(names)) == len(names)
    assert all(name == name.strip() and "/" not in name and not name.endswith(".png") for name in names)


@pytest.mark.parametrize(
    ("dataset", "every"),
    [
        ("sirst", set(EVERY)),
        ("irstd1k", {f"XDU{i}" for i in range(1001)}),
        ("nudt-sirst", {f"{i:06d}" for i in range(1, 1328)}),
    ],
)
def test_the_parts_of_a_set(dataset: str, every: set[str]) -> None:
    train, val, trainval, test = (set(split_names(dataset, s)) for s in ("train", "val", "trainval", "test"))
    assert not train & val
    assert train | val == trainval
    assert not trainval & test
    assert trainval | test == every


def test_single_names() -> None:
    # the known defect is in the test split
    assert "Misc_111" in split_names("sirst", "test")
    assert split_names("sirst", "test")[:3] == ("Misc_6", "Misc_8", "Misc_15")
    assert split_names("irstd1k", "test")[:3] == ("XDU3", "XDU5", "XDU9")
    assert split_names("nudt-sirst", "test")[:3] == ("000001", "000003", "000009")
    assert not set(split_names("sirst-v2", "train")) & set(split_names("sirst-v2", "val"))


@pytest.mark.parametrize("key", [k for k in available_splits() if not k.endswith(":test")])
def test_lists_are_those_of_the_shared_data(shared: Path, key: str) -> None:
    dataset, split = key.split(":")
    file = shared / "data" / dataset / f"{split}.txt"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    assert list(split_names(dataset, split)) == file.read_text().split()


@pytest.mark.parametrize(("dataset", "split"), [("sirst", "tests"), ("sirst-v2", "test"), ("nudt", "train"), ("", "")])
def test_unknown_splits(dataset: str, split: str) -> None:
    with pytest.raises(ValueError, match=r"is no bundled split; expected one of sirst:trainval, .*nudt-sirst:test"):
        split_names(dataset, split)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("change", ["swap", "lose", "add"])
def test_a_changed_list_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(module.__file__).parent / "lists", tmp_path / "lists")
    file = tmp_path / "lists" / "sirst_trainval.txt"
    names = file.read_text().split()
    if change == "swap":
        names[3], names[7] = names[7], names[3]
    elif change == "lose":
        names.pop()
    else:
        names.append("Misc_6")
    file.write_text("\n".join(names) + "\n")
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    for split in ("trainval", "test"):  # the second is what the first leaves
        with pytest.raises(ValueError, match=r"bundled split 'sirst:trainval' was changed: .*install serank again"):
            split_names("sirst", split)
    assert len(split_names("sirst", "val")) == 85
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"sirst_trainval\.txt: a bundled split is missing"):
        split_names("sirst", "trainval")


@pytest.mark.usefixtures("unread")
def test_line_ends_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout on Windows may have turned them."""
    (tmp_path / "lists").mkdir()
    names = (Path(module.__file__).parent / "lists" / "sirst_val.txt").read_bytes()
    (tmp_path / "lists" / "sirst_val.txt").write_bytes(names.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    assert len(split_names("sirst", "val")) == 85


@given(st.sampled_from(available_splits()), st.randoms(use_true_random=False), st.sampled_from(["", ".png", ".BMP"]))
def test_a_list_is_identified_whatever_its_order(key: str, rng: random.Random, suffix: str) -> None:
    names = list(split_names(*key.split(":")))
    shuffled = [name + suffix for name in [*names, names[0]]]
    rng.shuffle(shuffled)
    title = identify_split(shuffled)
    assert title is not None
    assert title.startswith(key.replace(":", " "))
    without = [name for name in shuffled if not name.startswith(f"{names[1]}")]
    assert identify_split(without) is None


def test_titles() -> None:
    assert identify_split(split_names("sirst", "trainval")) == "sirst trainval (341/86)"
    assert identify_split(split_names("sirst", "test")) == "sirst test (341/86)"
    assert identify_split(split_names("irstd1k", "trainval")) == "irstd1k trainval (800/201)"
    assert identify_split(split_names("nudt-sirst", "test")) == "nudt-sirst test (663/664)"
    assert identify_split(EVERY) == "sirst, all 427 frames"
    assert identify_split([]) is None
    assert identify_split(f"XDU{i}" for i in range(213)) is None


def test_the_rival_split_is_known_by_its_counts() -> None:
    for seed in range(3):
        train, test = rival(seed)
        assert (len(train), len(test)) == (213, 214)
        assert identify_split(train) == "sirst train (213/214)"
        assert identify_split(test) == "sirst test (213/214)"
        assert identify_split([*train[:-1], "Misc_428"]) is None
        assert identify_split(train[:-1]) is None
    own = split_names("sirst", "trainval")
    assert identify_split(own[:213]) is None  # as many, but none of the 86


def test_test_frames_in_a_training_list() -> None:
    train, _ = rival()
    found = sirst_test_names(f"{name}.png" for name in train)
    assert set(found) == set(train) & set(split_names("sirst", "test"))
    assert list(found) == sorted(found, key=lambda name: int(name[5:]))
    assert sirst_test_names(split_names("sirst", "trainval")) == ()
    # one name of SIRST among others is chance
    assert sirst_test_names(["Misc_6", "a", "b"]) == ()
    assert sirst_test_names([]) == ()


def test_warning_of_test_frames() -> None:
    train, _ = rival()
    expected = r"my list is sirst train \(213/214\) and holds 44 of the 86 test frames .*\(Misc_\d+, .* and 41 more\);"
    with pytest.warns(UserWarning, match=expected) as caught:
        assert warn_sirst_test_names(iter(train), "my list") == 44
    assert Path(caught[0].filename) == Path(__file__)
    with pytest.warns(UserWarning, match=r"the training list holds 1 of .*\(Misc_8\);"):
        assert warn_sirst_test_names(["Misc_8", "Misc_1"]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_sirst_test_names(split_names("sirst", "train")) == 0
