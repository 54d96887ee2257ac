"""Small files of every container and checkpoints, and ways to damage them, all by seed."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from serank import SeRankDet

Array = NDArray[Any]
HEIGHT, WIDTH = 24, 32


def scene(code: str = "u1", *channels: int) -> Array:
    """A frame with a gradient, noise and a target; no two rows are equal."""
    rng = np.random.default_rng(5)
    frame = np.linspace(20, 120, HEIGHT)[:, None] + rng.normal(0, 6, (HEIGHT, WIDTH))
    frame[10:13, 14:17] += 90
    frame = frame.clip(0, 255)
    if channels:
        frame = frame[..., None] * np.linspace(1, 0.5, channels[0])
    return frame.astype(code) if code[0] != "f" else (frame / 255).astype(code)


def _pillow(array: Array, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(array: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **{"photometric": "minisblack", "metadata": None, **options})
    return buffer.getvalue()


def _numpy(save: Callable[..., None], *arrays: Array) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays)
    return buffer.getvalue()


def _pgm(array: Array, top: int) -> bytes:
    return b"P5\n%d %d\n%d\n" % (WIDTH, HEIGHT, top) + array.tobytes()


def image_files() -> dict[str, bytes]:
    """One file of each kind that is read; the name ends with its suffix."""
    grey, deep, real, colour = scene(), scene("u2") * np.uint16(200), scene("f4"), scene("u1", 3)
    text = b"P2\n%d %d\n255\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % v for v in grey.ravel()) + b"\n"
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    return {
        "grey.png": _pillow(grey, "PNG"),
        "deep.png": _pillow(deep, "PNG"),
        "colour.png": _pillow(colour, "PNG"),
        "palette.png": palette.getvalue(),
        "grey.jpg": _pillow(grey, "JPEG"),
        "colour.jpg": _pillow(colour, "JPEG"),
        "progressive.jpeg": _pillow(colour, "JPEG", progressive=True),
        "restarts.jpg": _pillow(grey, "JPEG", restart_marker_blocks=2),
        "grey.tif": _tiff(grey),
        "deep.tif": _tiff(deep, byteorder=">"),
        "real.tif": _tiff(real),
        "strips.tif": _tiff(deep, rowsperstrip=5),
        "tiles.tif": _tiff(deep, tile=(16, 16)),
        "big.tiff": _tiff(deep, bigtiff=True),
        "deflate.tif": _tiff(deep, compression="zlib", predictor=2),
        "lzw.tif": _pillow(grey, "TIFF", compression="tiff_lzw"),
        "packbits.tif": _pillow(grey, "TIFF", compression="packbits"),
        "jpeg.tif": _pillow(grey, "TIFF", compression="jpeg"),
        "planes.tif": _tiff(colour.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
        "pages.tif": _tiff(np.stack([deep, deep // 2, deep // 3])),
        "imagej.tif": _tiff(np.stack([deep, deep // 2]), imagej=True, metadata={}),
        "grey.bmp": _pillow(grey, "BMP"),
        "colour.bmp": _pillow(colour, "BMP"),
        "lossy.webp": _pillow(grey, "WEBP"),
        "lossless.webp": _pillow(grey, "WEBP", lossless=True),
        "grey.jp2": _pillow(grey, "JPEG2000"),
        "grey.pgm": _pgm(grey, 255),
        "deep.pgm": _pgm(deep.astype(">u2"), 65535),
        "text.pgm": text,
        "deep.npy": _numpy(np.save, deep),
        "real.npy": _numpy(np.save, real.astype("f8")),
        "stack.npy": _numpy(np.save, np.stack([grey, grey // 2])),
        "deep.npz": _numpy(np.savez, deep),
        "packed.npz": _numpy(np.savez_compressed, deep),
    }


FIELDS = [0, 1, 2, 3, 8, 16, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
"""What numbers in headers are set to."""


@dataclass(frozen=True)
class Mutation:
    """What was done to a file, and its content since."""

    kind: str
    content: bytes


def mutated(content: bytes, rng: np.random.Generator) -> Mutation:
    """One of seven kinds of damage."""
    kind = str(rng.choice(["cut", "bits", "header bits", "header field", "block", "dropped", "inserted"]))
    data, size = bytearray(content), len(content)
    head = min(size, 400)
    if kind == "cut":
        return Mutation(kind, content[: int(rng.integers(size))])
    if kind in ("bits", "header bits"):
        for at in rng.integers(0, head if kind == "header bits" else size, rng.integers(1, 6)):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == "header field":
        code = str(rng.choice(["<H", ">H", "<I", ">I"]))
        width = struct.calcsize(code)
        at = int(rng.integers(0, max(1, head - width)))
        value = int(rng.choice(FIELDS)) % 2 ** (8 * width)
        data[at : at + width] = struct.pack(code, value)
    elif kind == "block":
        at = int(rng.integers(0, size))
        data[at : at + 16] = rng.bytes(len(data[at : at + 16]))
    elif kind == "dropped":
        at = int(rng.integers(0, size))
        del data[at : at + int(rng.integers(1, 40))]
    else:
        at = int(rng.integers(0, size))
        data[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return Mutation(kind, bytes(data))


def image_mutations(count: int, seed: int = 0) -> Iterator[tuple[str, Mutation]]:
    """So many damaged images, each with the name of the file that it was."""
    files = list(image_files().items())
    rng = np.random.default_rng(seed)
    for i in range(count):
        name, content = files[i % len(files)]
        yield name, mutated(content, rng)


NUMBERS = [0, -1, 1, 2, 3, 0.5, 0.7, 2**16, 2**31, 2**64, 1e-9, 1e9]
VALUES: list[Any] = [*NUMBERS, None, True, False, "", "ddc", "none", [], [1], [0.5, 2.5], {}]
CONFIG_KINDS = ("config bits", "config cut", "config value", "config entry gone", "config entry new")
WEIGHTS_KINDS = ("cut", "bits", "header bits", "block", "dropped", "inserted")
HEADER_KINDS = ("dtype", "shape", "offsets", "swapped", "renamed", "entry gone", "metadata")


def networks() -> list[SeRankDet]:
    """Small networks of different graphs, with random weights."""
    return [
        SeRankDet(width=1, encoder="plain", attention="none", working_size=64),
        SeRankDet(width=2, threshold=0.25),
        SeRankDet(width=1, merge_kernel=3, fusion="gated", bias=True, table_size=32, in_channels=3),
    ]


def checkpoint_mutation(config: bytes, weights: bytes, rng: np.random.Generator) -> tuple[str, bytes, bytes]:
    """A kind of damage, and config and weights since, of which one is changed."""
    kind = str(rng.choice([*CONFIG_KINDS, *HEADER_KINDS, *WEIGHTS_KINDS, *WEIGHTS_KINDS]))
    if kind in CONFIG_KINDS:
        return kind, _config(config, kind, rng), weights
    if kind in HEADER_KINDS:
        return kind, config, _header(weights, kind, rng)
    data, size = bytearray(weights), len(weights)
    head = 8 + int.from_bytes(weights[:8], "little")
    at = int(rng.integers(size))
    if kind == "cut":
        data = data[:at]
    elif kind in ("bits", "header bits"):
        for place in rng.integers(0, head if kind == "header bits" else size, rng.integers(1, 4)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == "block":
        data[at : at + 8] = rng.bytes(len(data[at : at + 8]))
    elif kind == "dropped":
        del data[at : at + int(rng.integers(1, 40))]
    else:
        data[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return kind, config, bytes(data)


def _config(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    if kind == "config bits":
        data = bytearray(content)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        return bytes(data)
    if kind == "config cut":
        return content[: int(rng.integers(len(content)))]
    entries = json.loads(content)
    name = str(rng.choice(sorted(entries)))
    if kind == "config value":
        entries[name] = VALUES[int(rng.integers(len(VALUES)))]
    elif kind == "config entry gone":
        del entries[name]
    else:
        entries[name + "_"] = 1
    return json.dumps(entries).encode()


def _header(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    names = sorted(name for name in header if name != "__metadata__")
    name, other = (str(n) for n in rng.choice(names, 2, replace=False))
    if kind == "dtype":
        header[name]["dtype"] = str(rng.choice(["F64", "F16", "BF16", "F32", "I32", "I64", "U8", "X"]))
    elif kind == "shape":
        header[name]["shape"] = [int(v) for v in rng.choice([0, 1, 2, 3, 9, 2**31, 2**62], rng.integers(0, 5))]
    elif kind == "offsets":
        header[name]["data_offsets"][int(rng.integers(2))] += int(rng.choice([-8, -4, -1, 1, 4, 8, 2**40]))
    elif kind == "swapped":  # of one shape and type, so that all fits
        same = [n for n in names if n != name and all(header[n][k] == header[name][k] for k in ("dtype", "shape"))]
        other = str(rng.choice(same)) if same else other
        header[name], header[other] = header[other], header[name]
    elif kind == "renamed":
        header[f"{name}x"] = header.pop(name)
    elif kind == "entry gone":
        del header[name]
    else:
        key = str(rng.choice(sorted(header["__metadata__"])))
        header["__metadata__"][key] = str(rng.choice(["", "pt", "0" * 64]))
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def table(outcomes: Counter[tuple[str, str]]) -> str:
    """Counts of each result, by kind, as lines of text."""
    kinds = sorted({kind for kind, _ in outcomes})
    results = sorted({result for _, result in outcomes})
    rows = [f"{k:18}" + "".join(f"{outcomes[k, r]:>12}" for r in results) for k in kinds]
    total = f"{'all':18}" + "".join(f"{sum(outcomes[k, r] for k in kinds):>12}" for r in results)
    return "\n".join([f"{'':18}" + "".join(f"{r:>12}" for r in results), *rows, total])
