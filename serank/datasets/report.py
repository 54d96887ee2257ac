"""The report on a folder of frames and masks: what is there, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serank.datasets.layouts import IMAGE_FOLDERS, MASK_FOLDERS, Layout, Overlap
from serank.datasets.masks import POLARITY, Shape, SizeMismatch
from serank.utils.text import listing


@dataclass
class FolderReport:
    """What `describe_folder` found; `str` gives it as text, `problems` what should be looked at.

    Frames of split folders are named `FOLDER/NAME`, others by their bare name.
    """

    root: Path
    layout: Layout | None = None
    """`None` when no folder of frames with one of masks was found."""
    hint: str = ""
    """Where there is no layout, what to do with labels of another format that are there."""
    frames: int = 0
    """Frame files."""
    pairs: int = 0
    """Frames that have a mask."""
    splits: dict[str, int] = field(default_factory=dict)
    """Lists and split folders, and how many entries each has, repeats included."""
    known: dict[str, str] = field(default_factory=dict)
    """Those of them that are a known split, see `identify_split`."""
    frames_without_mask: list[str] = field(default_factory=list)
    masks_without_frame: list[str] = field(default_factory=list)
    two_masks: list[str] = field(default_factory=list)
    """Frames with masks of two names, such as `NAME.png` and `NAME_pixels0.png`."""
    same_stem: list[str] = field(default_factory=list)
    """Files that share folder and name and differ in their suffix."""
    unreadable: list[str] = field(default_factory=list)
    """Files and lists that can't be read, each with the reason."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """For each list, its names that lack a frame or a mask."""
    repeated: dict[str, list[str]] = field(default_factory=dict)
    """For each list, the names it has more than once."""
    mismatches: list[SizeMismatch] = field(default_factory=list)
    empty_masks: list[str] = field(default_factory=list)
    """Frames without a target: no defect, but good to know."""
    inverted_masks: list[str] = field(default_factory=list)
    """Frames whose mask is target in more than half of its pixels."""
    grey_masks: list[str] = field(default_factory=list)
    """Frames whose mask has grey values (`serank.datasets.masks.target_mask`), cut at half of the largest when read."""
    touching_masks: list[str] = field(default_factory=list)
    """Frames whose mask has instances that touch: each group of them is one target."""
    sizes: Counter[Shape] = field(default_factory=Counter)
    """How many frames have each height and width in px."""
    modes: Counter[str] = field(default_factory=Counter)
    """How many frames are grey or colour of each type, such as `grey uint8` or `colour uint8` (palettes too)."""
    coloured: list[str] = field(default_factory=list)
    """Frames in false colour."""
    passed_over: list[str] = field(default_factory=list)
    """Files among the frames and masks that are no images."""
    broken_links: list[str] = field(default_factory=list)
    deep: int = 0
    """Frames of more than 8 bits."""
    name_overlaps: list[Overlap] = field(default_factory=list)
    """Names shared between splits that should be disjoint."""
    content_overlaps: list[Overlap] = field(default_factory=list)
    """Frames of the first split whose file equals one of the second, by SHA-256, under whatever name."""
    sirst_test: dict[str, int] = field(default_factory=dict)
    """Training splits that hold test frames of SIRST's 341/86 split, and how many."""

    @property
    def problems(self) -> list[str]:
        """What should be looked at, a sentence each; empty for a sound folder."""
        if self.layout is None:
            expected = f"({' or '.join(IMAGE_FOLDERS)}) with one of masks ({' or '.join(MASK_FOLDERS)})"
            return [f"no folder of frames {expected}{f'; {self.hint}' if self.hint else ''}", *self.unreadable]
        found = [] if self.frames else [f"{self.layout.images}/ holds no frames"]
        found += [_listed("frames without a mask", self.frames_without_mask)]
        found += [_listed("masks without a frame", self.masks_without_frame)]
        found += [
            _listed("frames with two masks, of which the first is read (NAME, NAME_pixels0, NAME_mask)", self.two_masks)
        ]
        found += [_listed("files that differ only in their suffix", self.same_stem)]
        found += [f"can't be read: {reason}" for reason in self.unreadable]
        found += [_listed(f"list {key}: names without a frame or mask", names) for key, names in self.missing.items()]
        found += [_listed(f"list {key}: repeated names", names) for key, names in self.repeated.items()]
        found += [str(mismatch) for mismatch in self.mismatches]
        if self.pairs and len(self.empty_masks) == self.pairs:
            found += [f"no mask holds a target; {POLARITY}"]
        found += [_listed("masks of which more than half is target (inverted?)", self.inverted_masks)]
        found += [_listed("masks with grey values, cut at half when read", self.grey_masks)]
        found += [_listed("masks whose instances touch, each group of which is one target", self.touching_masks)]
        advice = "raw counts, or palette=, --palette"
        found += [_listed(f"frames in false colour, where targets may be dark ({advice})", self.coloured)]
        found += [_listed("broken links", self.broken_links)]
        found += [f"by name, {overlap}" for overlap in self.name_overlaps]
        found += [f"by content, {overlap}" for overlap in self.content_overlaps]
        found += [
            f"{split} holds {count} of the 86 test frames of SIRST's 341/86 split: never report metrics on that test "
            "split from a network trained on it"
            for split, count in self.sirst_test.items()
        ]
        return [text for text in found if text]

    def __str__(self) -> str:
        lines = [f"{self.root}: {self.layout or 'no known layout'}"]
        if self.layout is not None:
            lines += [f"  frames  {self.frames}, {self.pairs} with a mask, {len(self.empty_masks)} without a target"]
            lines += [f"  sizes   {_sizes(self.sizes)}"] if self.sizes else []
            deep = f"; {self.deep} of more than 8 bits" if self.deep else ""
            modes = ", ".join(f"{mode} {count}" for mode, count in self.modes.most_common())
            lines += [f"  modes   {modes}{deep}"] if self.modes else []
            lines += [f"  others  {_listed('passed over, no images', self.passed_over)}"] if self.passed_over else []
            splits = (f"{k} {n}" + (f" = {self.known[k]}" if k in self.known else "") for k, n in self.splits.items())
            advice = f"none; `serank split {self.root}` writes train.txt and val.txt"
            lines += [f"  splits  {', '.join(splits) or advice}"]
        problems = self.problems
        lines += ["  problems:", *(f"  - {text}" for text in problems)] if problems else ["  no problems found"]
        return "\n".join(lines)


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {len(names)} ({listing(names, 5)})" if names else ""


def _sizes(sizes: Mapping[Shape, int]) -> str:
    if len(sizes) == 1:
        return "{} x {} px (height x width)".format(*next(iter(sizes)))
    heights, widths = zip(*sizes, strict=True)
    return f"{min(heights)} to {max(heights)} px high, {min(widths)} to {max(widths)} px wide, {len(sizes)} sizes"
