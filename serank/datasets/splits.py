"""Published splits as name lists, and which of them a list is.

SIRST (Dai et al., "Asymmetric Contextual Modulation for Infrared Small Target Detection", WACV 2021) has 427
frames, `Misc_1` to `Misc_427`, and two splits in use that must never be mixed:

- 341/86, its own: 341 `trainval` (256 `train`, 85 `val`) and 86 `test`, bundled here;
- 213/214, used by others and not bundled: it comes with the folders of those who use it. 44 of the 86 test
  frames are training frames in it, so that a network trained on its 213 frames has seen half of the other test.

`sirst-v2` has the lists of the frames that SIRST-V2 (Dai et al., "One-Stage Cascade Refinement Networks for
Infrared Small Target Detection", TGRS 2023) adds to SIRST, its test frames left out.

IRSTD-1k (Zhang et al., "ISNet", CVPR 2022; 800/201) and NUDT-SIRST (Li et al., "Dense Nested Attention Network", TIP
2023; 663/664) have a training and a test list in use, here `trainval` and `test`. Neither has a validation list: `val`
is a fifth of the training list, chosen by a hash of the name, on which this library's checkpoints were measured.

Every list is checked against its SHA-256 when it is read: a changed split would change published metrics.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import PurePath, PurePosixPath
from typing import NamedTuple

from serank.frames.reading import FRAME_SUFFIXES
from serank.utils.text import listing

SIRST_FRAMES = 427
SIRST_NAME = re.compile(r"Misc_([1-9]\d*)")


class _Split(NamedTuple):
    length: int
    sha256: str
    """Of the names in order, each with a line feed, as UTF-8."""
    title: str


_SPLITS: dict[str, _Split] = {
    "sirst:trainval": _Split(
        341, "4ca340bcfb378e1e35641013f87add7deda961f882f5c7998e43367660e5eb10", "sirst trainval (341/86)"
    ),
    "sirst:train": _Split(
        256, "9f456f0d3091a97e897e8b2ef88143d667eb63035114b2c523e0f9b996320c31", "sirst train (256 of 341/86)"
    ),
    "sirst:val": _Split(
        85, "b2e7c2b9a148fa61b4ef7c007d8e58d1c507d44b993c53273059ecfa41f53d94", "sirst val (85 of 341/86)"
    ),
    "sirst:test": _Split(86, "7394769d9aa5c6e76516a2311fcc2fb002d52213dfd4e239a90b296afcde28ea", "sirst test (341/86)"),
    "sirst-v2:train": _Split(
        293, "2e9f57d4bc32592e584bd68bac742b7ffb789cd8d71a7273364af9008541e9b4", "sirst-v2 train (293/155)"
    ),
    "sirst-v2:val": _Split(
        155, "f09a13dd706d90081d1eec2262ca0c47e8403b1ad224630714b15c0647f63ff0", "sirst-v2 val (293/155)"
    ),
    "irstd1k:trainval": _Split(
        800, "a87a9380f0ab8e3c6ea70b3d3d0449385a54ee5f711f7508f9ab04727af49e3a", "irstd1k trainval (800/201)"
    ),
    "irstd1k:train": _Split(
        640, "3a0d6189c3619fb96b085f522b22f4231622a257c2952f9c00a985d22d496077", "irstd1k train (640 of 800/201)"
    ),
    "irstd1k:val": _Split(
        160, "7fa5a04605662b86823ba25e935b1892f3ecc133504bd6dcaa23e144fc4166ed", "irstd1k val (160 of 800/201)"
    ),
    "irstd1k:test": _Split(
        201, "3b8565c1b4497394df659e471eee59e4444425f2557a269d076f907977a7d5aa", "irstd1k test (800/201)"
    ),
    "nudt-sirst:trainval": _Split(
        663, "ffac2c06d3ecd1921a952bb152ade10758a22480135ab037caccfaa0e6ed2198", "nudt-sirst trainval (663/664)"
    ),
    "nudt-sirst:train": _Split(
        531, "5014b546cda86a5f56a21fadaf55c19361df518521785fb09164d2f7b8ffd5f4", "nudt-sirst train (531 of 663/664)"
    ),
    "nudt-sirst:val": _Split(
        132, "ec78ae709003f0ca3deea284efe11b342fcebfd8b7d6bdd02546cc3e1b18d090", "nudt-sirst val (132 of 663/664)"
    ),
    "nudt-sirst:test": _Split(
        664, "7b8d769f40ed7a909b9c79999778ede4e25a4f2b9c973ce2e431eb046308854f", "nudt-sirst test (663/664)"
    ),
}

# all names of the sets of which `trainval` and `val` are files, and `train` and `test` what these leave
_NAMES: dict[str, tuple[str, ...]] = {
    "sirst": tuple(f"Misc_{i}" for i in range(1, SIRST_FRAMES + 1)),
    "irstd1k": tuple(f"XDU{i}" for i in range(1001)),
    "nudt-sirst": tuple(f"{i:06d}" for i in range(1, 1328)),
}

# the rival split by what can be known without its names: how many frames, how many of the 86 test frames in them
_RIVALS = {(213, 44): "sirst train (213/214)", (214, 42): "sirst test (213/214)"}


def bare_name(entry: str) -> str:
    """A list's entry without folder and without the suffix of an image, in Unicode's composed form (NFC)."""
    path = PurePosixPath(entry.replace("\\", "/"))
    name = path.stem if path.suffix.lower() in FRAME_SUFFIXES else path.name
    return unicodedata.normalize("NFC", name)


def file_name(file: PurePath) -> str:
    """What lists call a file: its name without suffix, in Unicode's composed form, which not every system keeps."""
    return unicodedata.normalize("NFC", file.stem)


def available_splits() -> tuple[str, ...]:
    """The bundled splits as `FolderDataset` takes them, such as `"sirst:val"`."""
    return tuple(_SPLITS)


def split_names(dataset: str, split: str) -> tuple[str, ...]:
    """Names of the frames of a bundled split, without suffix, in the published order.

    The names of a `test` are what `trainval` leaves of all, such as `Misc_1` to `Misc_427`, by their numbers.

    Args:
        dataset: `"sirst"`, `"sirst-v2"`, `"irstd1k"` or `"nudt-sirst"`.
        split: `"trainval"`, `"train"`, `"val"` or `"test"`; for `sirst-v2` `"train"` or `"val"`.

    Raises:
        ValueError: no such split is bundled, or its file was changed.
        FileNotFoundError: its file is gone from the installation.
    """
    return _load(f"{dataset}:{split}")


@cache
def _load(key: str) -> tuple[str, ...]:
    if key not in _SPLITS:
        raise ValueError(f"{key!r} is no bundled split; expected one of {', '.join(_SPLITS)}")
    dataset, split = key.split(":")
    if dataset in _NAMES and split in ("train", "test"):
        whole = _load(f"{dataset}:trainval") if split == "train" else _NAMES[dataset]
        left_out = set(_load(f"{dataset}:{'val' if split == 'train' else 'trainval'}"))
        names = tuple(name for name in whole if name not in left_out)
    else:
        names = _read(f"{dataset}_{split}.txt")
    digest = _digest(names)
    if len(names) != _SPLITS[key].length or digest != _SPLITS[key].sha256:
        raise ValueError(
            f"the bundled split {key!r} was changed: {len(names)} names with SHA-256 {digest}, expected "
            f"{_SPLITS[key].length} with {_SPLITS[key].sha256}; install serank again"
        )
    return names


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def _read(file: str) -> tuple[str, ...]:
    source = files("serank.datasets").joinpath("lists", file)
    try:
        return tuple(source.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        raise FileNotFoundError(f"{source}: a bundled split is missing; install serank again") from None


def identify_split(names: Iterable[str]) -> str | None:
    """Which known split a list is, whatever its order, its repeats and its file suffixes.

    Args:
        names: entries of a list, such as `FolderDataset.names`.

    Returns:
        For example `"sirst trainval (341/86)"`; `None` for a list that is none. The rival split of SIRST is known by
        count alone: 213 SIRST names with 44 of the 86 test names are its training list, 214 with the other 42 its test
        list.
    """
    given = {bare_name(name) for name in names}
    for key, split in _SPLITS.items():
        if len(given) == split.length and given == set(_load(key)):
            return split.title
    if not given or not all(map(_is_sirst, given)):
        return None
    if len(given) == SIRST_FRAMES:
        return "sirst, all 427 frames"
    return _RIVALS.get((len(given), len(given.intersection(_load("sirst:test")))))


def _is_sirst(name: str) -> bool:
    found = SIRST_NAME.fullmatch(name)
    return found is not None and int(found[1]) <= SIRST_FRAMES


def sirst_test_names(names: Iterable[str]) -> tuple[str, ...]:
    """Those names that are test frames of SIRST's own 341/86 split, in the order of their numbers.

    Empty for lists of other data sets: it takes part only where at least half of the names are SIRST's.
    """
    given = {bare_name(name) for name in names}
    if 2 * sum(map(_is_sirst, given)) < len(given):
        return ()
    return tuple(name for name in _load("sirst:test") if name in given)


def warn_sirst_test_names(names: Iterable[str], source: str = "the training list", *, stacklevel: int = 2) -> int:
    """Warns (`UserWarning`) of a training list that holds test frames of SIRST's 341/86 split.

    Args:
        names: entries of the training list.
        source: what the warning calls it, such as its file.
        stacklevel: as for `warnings.warn`.

    Returns:
        How many it holds.
    """
    names = tuple(names)
    found = sirst_test_names(names)
    if found:
        title = identify_split(names)
        which = f" is {title} and" if title else ""
        warnings.warn(
            f"{source}{which} holds {len(found)} of the 86 test frames of SIRST's 341/86 split ({listing(found, 3)}); "
            f"never report metrics on that test split from a network trained so",
            stacklevel=stacklevel,
        )
    return len(found)
