"""Where frames, masks and lists lie in the folders that this field shares.

| layout | who uses it |
|---|---|
| `images/ masks/ img_idx/{train,test}_X.txt` | DNA-Net and its followers |
| `{trainval,test}/{images,masks}` | SIRST-AUG, NUDT-SIRST as repackaged |
| `images/ masks/ trainval.txt test.txt` | several, IRSTD-1k among them |
| `images/ masks/NAME_pixels0.png idx_427/*.txt` | the original SIRST |
| `images/ masks/NAME_mask.png` | several |
| `IRSTD1k_Img/ IRSTD1k_Label/` | IRSTD-1k |
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serank.datasets.splits import available_splits, bare_name, file_name, split_names
from serank.frames.sources import frame_files
from serank.utils.files import text_file
from serank.utils.text import listing

IMAGE_FOLDERS = ("images", "IRSTD1k_Img")
MASK_FOLDERS = ("masks", "IRSTD1k_Label")
MASK_ENDINGS = ("", "_pixels0", "_mask")
LIST_FOLDERS = ("", "img_idx", "idx_427", "idx_320")

_ROLE = re.compile(r"(trainval|train|val|test)(?:[_-](.*))?")
_DISJOINT = (("train", "test"), ("trainval", "test"), ("train", "val"), ("val", "test"))


@dataclass(frozen=True)
class Layout:
    """How a folder is laid out; `str` says it in words."""

    images: str
    """Name of the folder of frames."""
    masks: str
    """Name of the folder of masks."""
    mask_ending: str
    """What a mask's name has after its frame's: nothing, `_pixels0` or `_mask`."""
    list_folders: tuple[str, ...]
    """Where lists are, relative to the root: `""` for the root itself, `img_idx`, `idx_427`, `idx_320`."""
    split_folders: tuple[str, ...]
    """Sub-folders that hold frames and masks of their own."""

    def __str__(self) -> str:
        masks = f"{self.masks}/" + (f"NAME{self.mask_ending}" if self.mask_ending else "")
        if self.split_folders:
            text = f"{self.images}/ and {masks} in each of {', '.join(f + '/' for f in self.split_folders)}"
        else:
            text = f"{self.images}/ and {masks}"
        if self.list_folders:
            text += ", lists in " + " and ".join(f"{f}/" if f else "the folder itself" for f in self.list_folders)
        return text


@dataclass(frozen=True)
class Overlap:
    """Frames that two splits share though they should be disjoint."""

    first: str
    second: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        count = f"{len(self.names)} frame{'s' if len(self.names) > 1 else ''}"
        return f"{self.first} and {self.second} share {count} ({listing(self.names, 3)})"


def frame_folder(base: Path) -> Path | None:
    """The folder of frames in `base`."""
    return next((base / name for name in IMAGE_FOLDERS if (base / name).is_dir()), None)


def mask_folder(base: Path) -> Path | None:
    """The folder of masks in `base`."""
    return next((base / name for name in MASK_FOLDERS if (base / name).is_dir()), None)


def mask_of(name: str, masks: Mapping[str, Path]) -> Path | None:
    """A frame's mask among files by their names."""
    return next((masks[name + ending] for ending in MASK_ENDINGS if name + ending in masks), None)


def second_mask(name: str, masks: Mapping[str, Path], frames: Container[str]) -> Path | None:
    """Another file that may be a frame's mask as well as `mask_of`'s, and isn't that of another frame."""
    found = [name + ending for ending in MASK_ENDINGS if name + ending in masks]
    return next((masks[other] for other in found[1:] if other not in frames), None)


def find_layout(root: Path) -> Layout | None:
    """How `root` is laid out; `None` where no folder of frames with one of masks is found."""
    bases = [root] if _both(root) else [folder for folder in split_folders(root) if _both(folder)]
    pair = _both(bases[0]) if bases else None
    if pair is None:
        return None
    images, masks = pair
    return Layout(
        images.name,
        masks.name,
        _mask_ending(images, masks),
        tuple(dict.fromkeys(key.rpartition("/")[0] for key in find_lists(root))),
        tuple(base.name for base in bases if base != root),
    )


def _both(base: Path) -> tuple[Path, Path] | None:
    images, masks = frame_folder(base), mask_folder(base)
    return None if images is None or masks is None else (images, masks)


def _mask_ending(images: Path, masks: Path) -> str:
    stems = named_files(masks)
    for frame in frame_files(images):
        for ending in MASK_ENDINGS:
            if file_name(frame) + ending in stems:
                return ending
    return ""


def split_folders(root: Path) -> list[Path]:
    """Sub-folders of `root` that hold frames of their own, such as `trainval` and `test`."""
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".") and frame_folder(f))


def find_lists(root: Path) -> dict[str, Path]:
    """Lists of a folder by their path without suffix, such as `train` or `img_idx/train_X`.

    A text file beside the frames is a list when its name begins as a split's does; another (a licence, notes) only
    when at least half of its lines name frames.
    """
    frames = named_files(frame_folder(root))
    found: dict[str, Path] = {}
    for folder in LIST_FOLDERS:
        for file in sorted((root / folder).glob("*.txt")):
            if folder or _ROLE.fullmatch(file.stem) or _names_frames(file, frames):
                found[file.relative_to(root).with_suffix("").as_posix()] = file
    return found


def _names_frames(file: Path, frames: Container[str]) -> bool:
    try:
        names = read_list(file)
    except (OSError, ValueError):
        return False
    return 2 * sum(name in frames for name in names) >= len(names)


def find_list(root: Path, split: str) -> Path:
    """The file of the list called `split`, or, where that ends in `.txt`, of that path in `root` or anywhere.

    Raises:
        FileNotFoundError: there is none, or several; the message names the lists that are there.
    """
    name = split.removesuffix(".txt")
    for folder in LIST_FOLDERS:
        exact = root / folder / f"{name}.txt"
        if exact.is_file():
            return exact
        if (root / folder).is_dir() and folder:
            started = [p for p in (root / folder).glob("*.txt") if p.stem.startswith(f"{split}_")]
            if len(started) == 1:
                return started[0]
    if split.endswith(".txt") and Path(split).is_file():
        return Path(split)
    known = sorted(str(p.relative_to(root)) for f in LIST_FOLDERS for p in (root / f).glob("*.txt"))
    # names of published lists help those alone who asked for one
    bundled = f"; bundled lists: {', '.join(available_splits())}" if ":" in split else ""
    by_command = f", or train.txt and val.txt by `{split_command(root)}`" if name in ("train", "val") else ""
    raise FileNotFoundError(
        f"{root}: no split {split!r}: neither a folder {split}/images nor a list {name}.txt; "
        f"lists found: {', '.join(known) or 'none'}. Write {name}.txt with a frame's name on each line{by_command}"
        f"{bundled}"
    )


def split_list(root: Path, split: str) -> list[str]:
    """Names of a bundled split, such as `"sirst:val"`, or of the list called `split`; raises as `find_list`."""
    if split in available_splits():
        dataset, _, part = split.partition(":")
        return list(split_names(dataset, part))
    return read_list(find_list(root, split))


def split_command(root: Path) -> str:
    """The command that writes `train.txt` and `val.txt` for a folder, over those that are there."""
    there = any((root / name).exists() for name in ("train.txt", "val.txt"))
    return f"serank split {root}" + (" --overwrite" if there else "")


def read_list(file: Path) -> list[str]:
    """Names in a list, as written but for folders and image suffixes.

    Raises:
        FileNotFoundError: no such file, or no name in it.
        ValueError: it is not UTF-8 text.
    """
    names = [bare_name(line) for line in (line.strip() for line in text_file(file).splitlines()) if line]
    if not names:
        raise FileNotFoundError(f"{file}: the list is empty")
    return names


def write_list(file: Path, names: Iterable[str]) -> None:
    """Writes a list, a name on each line."""
    file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def named_files(folder: Path | None) -> dict[str, Path]:
    """Frames or masks in a folder by what lists call them, of two with one name the last; none where it is `None`."""
    return {file_name(file): file for file in frame_files(folder)} if folder else {}


def by_name(files: Iterable[Path]) -> dict[str, Path]:
    """Files by what lists call them; raises ValueError where two have one name."""
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(file_name(file), file)
        if other is not file:
            raise ValueError(f"{file.parent}: {other.name} and {file.name} have one name; keep one of them")
    return found


def role(split: str) -> tuple[str, str] | None:
    """What a split is for (`train`, `trainval`, `val` or `test`) and the set it belongs to.

    Lists of one set stand in one folder and have one ending: `img_idx/train_X` belongs with `img_idx/test_X`, not
    with `img_idx/test_Y` or `idx_427/test`.
    """
    folder, _, name = split.rpartition("/")
    found = _ROLE.fullmatch(name)
    return None if found is None else (found[1], f"{folder}/{found[2] or ''}")


def disjoint_pairs(splits: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of splits that should share no frame: train or trainval with test, and val with train or test."""
    named = {role(split): split for split in splits}
    for group in sorted({known[1] for known in named if known is not None}):
        for a, b in _DISJOINT:
            if (a, group) in named and (b, group) in named:
                yield named[a, group], named[b, group]


def same_frame(name: str, first: Path, second: Path) -> bool:
    """Whether two files of one name are one frame.

    Names tell, but for bare numbers: sets in split folders count from 0 in each of them, so that for these the
    files must be equal byte by byte.
    """
    return first == second or not name.isdecimal() or filecmp.cmp(first, second, shallow=False)


def list_overlaps(root: Path) -> list[Overlap]:
    """Shared names between those splits of a folder that should be disjoint; unreadable lists are passed over."""
    lists: dict[str, dict[str, None]] = {}
    for key, file in find_lists(root).items():
        with suppress(OSError, ValueError):
            lists[key] = dict.fromkeys(read_list(file))
    overlaps = [Overlap(a, b, tuple(n for n in lists[a] if n in lists[b])) for a, b in disjoint_pairs(lists)]
    folders = {f.name: named_files(frame_folder(f)) for f in split_folders(root)}
    for a, b in disjoint_pairs(folders):
        shared = sorted(folders[a].keys() & folders[b].keys())
        same = (n for n in shared if same_frame(n, folders[a][n], folders[b][n]))
        overlaps.append(Overlap(a, b, tuple(same)))
    return [overlap for overlap in overlaps if overlap.names]
