"""YOLO: a text file for each frame, sides as shares of the frame's; boxes and polygons."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from serank.datasets.labels.box_file import BOX_FILE
from serank.datasets.labels.objects import Box, LabelledFrame, LabelledObject, Outline, Shape
from serank.datasets.labels.places import split_of
from serank.datasets.labels.values import entry, number, shown
from serank.frames.reading import decode
from serank.frames.sources import frame_files
from serank.utils.files import text_file

PARTS = ("train", "val", "test")
SLACK = 0.001
"""Share of a side by which a box may leave the frame: rounding of the tools."""


def find_yaml(root: Path) -> Path | None:
    """The YAML file of a YOLO folder: one with a line for the classes' names or the training frames."""
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if any(line.startswith(("names:", "train:")) for line in lines):
            return file
    return None


def read_yolo(root: Path, yaml: Path | None, images: Path | None) -> list[LabelledFrame]:
    """Frames of a YOLO folder; one without a text file holds no target, as the format has it.

    Errors as for `formats.read_labels`.

    Args:
        root: the folder, with images/ and labels/, each with a sub-folder for a split or none, or with a folder for
            each split that holds both.
        yaml: the file with the splits' folders and the classes' names, if there is one; it needs PyYAML.
        images: folder of the frames, `None` to look for it.
    """
    names, folders = (_classes(root), []) if yaml is None else _from_yaml(yaml, root)
    if images is not None:
        folders = [(split_of(p.relative_to(images)), p) for p in _with_frames(images)]
    elif not folders:
        # what an import wrote below it is no part of it
        bases = [p for p in root.rglob("images") if p.is_dir()]
        own = [base for base in bases if base.parent == root or not (base.parent / BOX_FILE).is_file()]
        found = {p for base in own for p in _with_frames(base)}
        folders = [(split_of(p.relative_to(root)), p) for p in sorted(found)]
    if not folders:
        raise FileNotFoundError(f"{root}: no frames in images/; name their folder (--images)")
    frames = []
    read: set[Path] = set()
    seen: dict[Path, list[Path]] = {}
    for split, folder in folders:
        labels = _labels_folder(folder, root)
        seen.setdefault(labels, []).append(folder)
        for file in frame_files(folder):
            text = labels / f"{file.stem}.txt"
            frame = LabelledFrame(file, str(text), split)
            if text.is_file():
                read.add(text)
                frame.objects = _objects(text, file, names)
            frames.append(frame)
    for labels, looked in seen.items():
        if lost := [p for p in sorted(labels.glob("*.txt")) if p not in read and p.name != "classes.txt"]:
            where = ", ".join(map(str, looked))
            raise FileNotFoundError(f"{lost[0]}: no frame {lost[0].stem!r} in {where}; add it or remove the labels")
    return frames


def _with_frames(base: Path) -> list[Path]:
    folders = [base, *sorted(p for p in base.rglob("*") if p.is_dir())]
    return [folder for folder in folders if frame_files(folder)]


def _labels_folder(folder: Path, root: Path) -> Path:
    """Where the text files of a folder of frames are: `images` in its path becomes `labels`, the last one."""
    parts = list(folder.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    candidates = [Path(*parts), folder.parent / "labels", root / "labels", folder]
    for candidate in candidates:
        if candidate.is_dir() and any(candidate.glob("*.txt")):
            return candidate
    if candidates[0].is_dir() and candidates[0] != folder:
        return candidates[0]  # none of these frames holds a target
    raise FileNotFoundError(f"{folder}: no labels for its frames; expected text files in {candidates[0]}")


def _classes(root: Path) -> dict[int, str]:
    file = next((p for p in (root / "classes.txt", root / "labels" / "classes.txt") if p.is_file()), None)
    return (
        {} if file is None else dict(enumerate(line.strip() for line in text_file(file).splitlines() if line.strip()))
    )


def _from_yaml(file: Path, root: Path) -> tuple[dict[int, str], list[tuple[str | None, Path]]]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"{file}: YOLO's YAML file needs PyYAML; pip install 'serank[labels]'") from error
    text = text_file(file)
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that is none, a huge number
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{file}{line}: is not YAML; correct it or export it again") from None
    content = entry(content, dict, str(file), "the file")
    base = root / entry(content.get("path") or "", str, str(file), "'path'")
    folders: list[tuple[str | None, Path]] = []
    for part in PARTS:
        given = content.get(part)
        for value in given if isinstance(given, list) else [given] if given else []:
            text = entry(value, str, str(file), f"{part!r}")
            for folder in _split_folder(text, base, root, f"{file}, {part!r}"):
                if other := next((split for split, known in folders if known.samefile(folder)), None):
                    raise ValueError(
                        f"{file}: {other!r} and {part!r} both name {folder}; leave one of them out (`serank split` "
                        "chooses validation frames)"
                    )
                folders.append((part, folder))
    return _names(content.get("names"), str(file)), folders


def _names(given: Any, file: str) -> dict[int, str]:
    if given is None:
        return {}
    if isinstance(given, list):
        given = dict(enumerate(given))
    given = entry(given, dict, file, "'names'")
    return {
        entry(key, int, file, "a key of 'names'"): value if isinstance(value, str) else shown(value)
        for key, value in given.items()
    }


def _split_folder(text: str, base: Path, root: Path, where: str) -> list[Path]:
    """Folders with frames that an entry names; exports often write `../train/images` for `train/images`."""
    bare = PurePosixPath(*[part for part in PurePosixPath(text.replace("\\", "/")).parts if part not in ("..", ".")])
    for folder in (base / text, root / text, root / bare, root / bare / "images"):
        if folder.is_dir() and (found := _with_frames(folder)):
            return found
    raise FileNotFoundError(
        f"{where}: {text!r} is no folder with frames, looked for in {root}; correct the entry (a list of files can't "
        "be read)"
    )


def _objects(text: Path, frame: Path, names: dict[int, str]) -> list[LabelledObject]:
    lines = [(i, line.split()) for i, line in enumerate(text_file(text).splitlines(), 1) if line.strip()]
    if not lines:
        return []
    height, width = decode(frame).shape[:2]
    found = []
    for i, words in lines:
        where = f"{text}, line {i}"
        label = _label(words[0], names, where)
        found.append(LabelledObject(_shape(words[1:], width, height, where), label, where))
    return found


def _label(word: str, names: dict[int, str], where: str) -> str:
    value = number(word, where, "class")
    if value != int(value) or value < 0:
        raise ValueError(f"{where}: class is {word!r}, expected a whole number >= 0; correct the line")
    if names and int(value) not in names:
        raise ValueError(f"{where}: class {int(value)} has no name; expected one of {sorted(names)[:9]}")
    return names.get(int(value), str(int(value)))


def _shape(words: list[str], width: int, height: int, where: str) -> Shape:
    if len(words) in (4, 5):  # a fifth number is a confidence
        x, y, w, h = (
            number(word, where, name) for word, name in zip(words[:4], ("x", "y", "width", "height"), strict=True)
        )
        if w <= 0 or h <= 0:
            raise ValueError(f"{where}: width {w:g} and height {h:g} must be above 0; correct or remove the line")
        sides = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        _check_shares(sides, where)
        return Box(sides[0] * width, sides[1] * height, sides[2] * width, sides[3] * height)
    if len(words) < 6 or len(words) % 2:
        raise ValueError(
            f"{where}: {len(words)} numbers after the class, expected 4 (a box: x, y, width, height) or x and y of "
            "three or more corners; correct the line"
        )
    values = [number(word, where, f"coordinate {i}") for i, word in enumerate(words, 1)]
    _check_shares(values, where)
    points = zip(values[::2], values[1::2], strict=True)
    return Outline((tuple((x * width, y * height) for x, y in points),))


def _check_shares(values: list[float] | tuple[float, ...], where: str) -> None:
    low, high = min(values), max(values)
    if low < -SLACK or high > 1 + SLACK:
        raise ValueError(
            f"{where}: reaches from {low:g} to {high:g}, expected shares of the frame's sides in [0, 1], not pixels; "
            "correct the line"
        )
