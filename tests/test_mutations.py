"""Thousands of damaged files: each is refused as documented or gives what it says it holds, in bounded time.

`IMAGES` and `CHECKPOINTS` are tried on every run; those marked `slow` try 10,000 images and 3,000 checkpoints, and
print what came of each kind of damage (`pytest -m slow -s tests/test_mutations.py`).
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import Array, checkpoint_mutation, image_files, image_mutations, networks, table
from PIL import Image

from serank import SeRankDet
from serank.checkpoints.config_file import FREE
from serank.checkpoints.folder import WEIGHTS
from serank.errors import CheckpointError, FrameError
from serank.frames.preparation import unit_frame
from serank.frames.reading import decode_pages

IMAGES, CHECKPOINTS = 340, 100
SECONDS = 2.0
"""Of the processor, for any file; real frames of this size take about a millisecond."""


def declared_sides(content: bytes) -> list[int] | None:
    """The sides of the first frame by another reader, shorter first; `None` where it gives up."""
    try:
        if content.startswith(b"\x93NUMPY"):
            shape = np.load(io.BytesIO(content)).shape
            return sorted(shape[:2] if len(shape) == 2 or shape[2] in (1, 3) else shape[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                return sorted(image.size)
    except Exception:  # of any kind: Pillow and NumPy give up in many ways
        return None


def pages_of(file: Path, content: bytes) -> list[Array]:
    file.write_bytes(content)
    return [pixels for _, pixels in decode_pages(file)]


def equal(pages: list[Array], others: list[Array]) -> bool:
    return len(pages) == len(others) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(pages, others, strict=True)
    )


def try_images(folder: Path, count: int) -> Counter[tuple[str, str]]:
    """Reads damaged images; fails where one is read as what it doesn't hold."""
    originals = {name: pages_of(folder / name, content) for name, content in image_files().items()}
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    for number, (name, mutation) in enumerate(image_mutations(count)):
        file, what = folder / name, f"image {number}, {name}, {mutation.kind}"
        start = time.process_time()
        try:
            pages = pages_of(file, mutation.content)
            frames = [unit_frame(pixels, str(file)) for pixels in pages]
        except FrameError as error:
            outcomes[mutation.kind, "refused" if str(error).startswith(f"{file}: ") else "unnamed"] += 1
            continue
        finally:
            seconds = time.process_time() - start
            slowest = max(slowest, seconds)
            assert seconds < SECONDS, f"{what}: {seconds:.1f} s"
        assert frames, what
        for pixels, frame in zip(pages, frames, strict=True):
            assert frame.dtype == np.float32, what
            assert frame.shape == pixels.shape[:2], what
            assert np.isfinite(frame).all(), what
            assert 0 <= frame.min() <= frame.max() <= 1, what
        sides = declared_sides(mutation.content)
        assert sides is None or sides == sorted(frames[0].shape), what
        same = equal(pages, originals[name])
        assert same or mutation.kind != "cut", f"{what}: cut to {len(mutation.content)} bytes and read as another frame"
        outcomes[mutation.kind, "same" if same else "other"] += 1
    print("\n" + table(outcomes), f"\nslowest {slowest:.3f} s")
    return outcomes


def try_checkpoints(folder: Path, count: int) -> Counter[tuple[str, str]]:
    """Loads damaged checkpoints; fails where one loads as another network than was saved."""
    torch.manual_seed(0)
    saved = networks()
    files = []
    for i, model in enumerate(saved):
        model.save_pretrained(folder / str(i))
        files.append(((folder / str(i) / "config.json").read_bytes(), (folder / str(i) / WEIGHTS).read_bytes()))
    rng = np.random.default_rng(1)
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    for number in range(count):
        which = number % len(saved)
        model, target = saved[which], folder / str(which)
        kind, config, weights = checkpoint_mutation(*files[which], rng)
        (target / "config.json").write_bytes(config)
        (target / WEIGHTS).write_bytes(weights)
        what = f"checkpoint {number}, {kind}"
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*lacks entries, whose defaults are taken", UserWarning)
                loaded = SeRankDet.from_pretrained(target)
        except CheckpointError as error:
            outcomes[kind, "refused" if str(target) in str(error) else "unnamed"] += 1
            continue
        finally:
            seconds = time.process_time() - start
            slowest = max(slowest, seconds)
            assert seconds < SECONDS, f"{what}: {seconds:.1f} s"
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), f"{what}: other values in {name}"
        other = {name for name, value in model.config.items() if loaded.config[name] != value}
        assert other <= FREE, f"{what}: another config, {other}"
        assert "threshold" not in other or loaded.config["threshold"] == json.loads(config).get("threshold", 0.5), what
        outcomes[kind, "same"] += 1
    print("\n" + table(outcomes), f"\nslowest {slowest:.3f} s")
    return outcomes


def results(outcomes: Counter[tuple[str, str]]) -> Counter[str]:
    """Counts of all kinds of damage together; fails where an error doesn't name its file."""
    found: Counter[str] = Counter()
    for (_, result), count in outcomes.items():
        found[result] += count
    assert not found["unnamed"], dict(outcomes)
    return found


def test_damaged_images(tmp_path: Path) -> None:
    assert results(try_images(tmp_path, IMAGES))["refused"] > IMAGES / 2


def test_damaged_checkpoints(tmp_path: Path) -> None:
    assert results(try_checkpoints(tmp_path, CHECKPOINTS))["refused"] > 0.9 * CHECKPOINTS


@pytest.mark.slow
def test_ten_thousand_damaged_images(tmp_path: Path) -> None:
    assert results(try_images(tmp_path, 10_000))["refused"] > 5000


@pytest.mark.slow
def test_every_truncation(tmp_path: Path) -> None:
    """A file that lacks any number of bytes at its end is refused, or they were none of its pixels."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for name, content in image_files().items():
        original = pages_of(tmp_path / name, content)
        for size in range(len(content)):
            try:
                pages = pages_of(tmp_path / name, content[:size])
            except FrameError:
                outcomes[name, "refused"] += 1
                continue
            assert equal(pages, original), f"{name}: cut to {size} of {len(content)} bytes"
            outcomes[name, "same"] += 1
    print("\n" + table(outcomes))
    assert sum(outcomes.values()) > 50_000


@pytest.mark.slow
def test_three_thousand_damaged_checkpoints(tmp_path: Path) -> None:
    assert results(try_checkpoints(tmp_path, 3000))["refused"] > 2700
