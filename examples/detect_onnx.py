"""Detects targets with a file of `serank export --format onnx`, where neither PyTorch nor serank is installed.

    pip install numpy pillow scipy onnxruntime
    python detect_onnx.py general.onnx frame.png another.tif --output detections.json

Reads how frames are prepared from the file's metadata and gives what `SeRankDet.detect` gives, but that it neither
repairs dead pixels nor heeds an Orientation tag, and of a file with pages takes the first.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.special import expit, logit

Float = NDArray[np.float32]


class Network:
    """The exported network and what its metadata say of frames."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise SystemExit(f"{path}: no such file")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "serank" not in metadata:
            raise SystemExit(f"{path}: has no metadata of serank; write it with `serank export`")
        self.spec: dict[str, Any] = json.loads(metadata["serank"])

    def probability(self, frame: Float, tta: int = 1) -> Float:
        """Target probability of each pixel of a frame as `read_frame` gives it, `(H, W) -> (H, W)`.

        It is the mean over `tta` orientations.
        """
        total = np.zeros(frame.shape)
        for transpose, rows, columns in list(product((False, True), repeat=3))[:tta]:
            steps = slice(None, None, -1 if rows else 1), slice(None, None, -1 if columns else 1)
            turned = self.one_pass((frame.T if transpose else frame)[steps])[steps]
            total += turned.T if transpose else turned
        return (total / tta).astype(np.float32)

    def one_pass(self, frame: Float) -> Float:
        """Target probability of each pixel of a frame as it is."""
        height, width = frame.shape
        scaled = resize(frame, *self.working_shape(height, width))
        return np.asarray(expit(resize(self.tiled_logits(scaled), height, width)))

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a frame is scaled."""
        low, high = self.spec["scale_range"]
        size = self.spec["working_size"]
        scale = min(max(size / max(height, width), low), high) if size else 1.0
        return max(1, round(height * scale)), max(1, round(width * scale))

    def tiled_logits(self, frame: Float) -> Float:
        """Logits, tile by tile where the frame is larger than one, blended where tiles overlap."""
        tile, overlap = self.spec["tile"], self.spec["overlap"]
        if max(frame.shape) <= tile:
            return self.logits(frame)
        total, weights = np.zeros_like(frame), np.zeros_like(frame)
        for top, bottom in tiles(frame.shape[0], tile, overlap):
            for left, right in tiles(frame.shape[1], tile, overlap):
                weight = np.outer(ramp(bottom - top, overlap), ramp(right - left, overlap))
                total[top:bottom, left:right] += weight * self.logits(frame[top:bottom, left:right])
                weights[top:bottom, left:right] += weight
        return total / weights

    def logits(self, frame: Float) -> Float:
        """Grey `(H, W)` to logits `(H, W)`."""
        logits: Float = self.session.run(["logits"], {"x": self.normalise(frame)})[0][0, 0]
        return logits

    def normalise(self, frame: Float) -> Float:
        """Grey `(H, W)` in [0, 1] to the network's input `(1, C, H, W)`."""
        x = np.repeat(frame[None, None], self.spec["in_channels"], axis=1)
        mean, std = (np.reshape(np.float32(self.spec[key]), (1, -1, 1, 1)) for key in ("mean", "std"))
        return (x - mean) / std


def resize(frame: Float, height: int, width: int) -> Float:
    if frame.shape == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def tiles(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Start and end of evenly spread tiles, no larger than so many need to be, up to a multiple of 16."""
    if length <= tile:
        yield 0, length
        return
    count = -(-(length - overlap) // (tile - overlap))
    side = min(tile, -(-(-(-(length - overlap) // count) + overlap) // 16) * 16)
    for i in range(count):
        start = round(i * (length - side) / (count - 1))
        yield start, start + side


def ramp(length: int, overlap: int) -> Float:
    """Weights that rise from a tile's edges to 1 across the overlap."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.minimum(distance / max(overlap, 1), 1).astype(np.float32)


def read_frame(path: str, rules: dict[str, Any]) -> Float:
    """An image or .npy file as grey `(H, W)` in [0, 1]; raises OSError or ValueError for what can't be read."""
    if path.endswith(".npy"):
        return to_unit(checked(np.load(path, allow_pickle=False)), rules)
    with Image.open(path, formats=("PNG", "TIFF", "BMP", "JPEG")) as image:
        mode = image.mode
        if mode in ("RGB", "RGBA", "LA") and any(";16" in str(part[-1]) for part in getattr(image, "tile", ())):
            raise ValueError("16-bit colour can't be read without loss; save it as 16-bit grey")
        if mode in ("1", "LA"):
            mode = "L"
        elif mode not in ("L", "F", "I") and not mode.startswith("I;16"):
            mode = "RGB"
        values = np.asarray(image if mode == image.mode else image.convert(mode))
    if values.ndim == 3:
        grey = values.astype(np.float64) @ (0.299, 0.587, 0.114)
        values = np.rint(grey).astype(values.dtype)
    return to_unit(checked(values), rules)


def checked(values: NDArray[Any]) -> NDArray[Any]:
    """The pixels of a frame, unless they aren't grey `(H, W)` or not finite."""
    if values.ndim != 2 or values.dtype.kind not in "uif" or not values.size:
        raise ValueError(f"holds {values.dtype} of shape {values.shape}; expected grey (H, W)")
    if not np.isfinite(values).all():
        raise ValueError("has pixels that are NaN or infinite")
    return values


def to_unit(values: NDArray[Any], rules: dict[str, Any]) -> Float:
    """Grey in [0, 1]: 8-bit values over 255, floats in [0, 1] as they are, others by their median and contrast."""
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    most, tolerance = 1 - rules["stray"], rules["tolerance"]
    if values.dtype.kind == "f" and np.mean((values >= -tolerance) & (values <= 1 + tolerance)) > most:
        return np.asarray(np.clip(values.astype(np.float32), 0, 1))
    if values.dtype.itemsize > 2:
        near = (values >= -tolerance * 255) & (values <= 255 * (1 + tolerance))
        if np.mean(near & (np.abs(values - np.rint(values)) <= tolerance * 255)) > most:
            return np.asarray(np.clip(values.astype(np.float32) / np.float32(255), 0, 1))
    if values.min() == values.max():
        return np.zeros(values.shape, np.float32)
    median, contrast = location_contrast(values, rules)
    unit = rules["unit_median"] + rules["unit_contrast"] * (values - median) / contrast
    return np.asarray(np.clip(unit, 0, 1), np.float32)


def location_contrast(values: NDArray[Any], rules: dict[str, Any]) -> tuple[np.float64, np.float64]:
    """Median, and the geometric mean of spread and noise.

    The spread is the mean distance from the median, large ones clipped at a quantile, and at least the median step
    between neighbouring values; the noise is in proportion to the mean mixed difference of 2x2 pixels, clipped alike.
    """
    x = values.ravel()
    stride = -(-x.size // rules["most_pixels"])
    every = stride
    while stride > 1 and math.gcd(stride, values.shape[-1]) > 1:
        stride += 1
    x = np.sort(x[::stride].astype(np.float64))
    median = np.median(x)
    mean = clipped_mean(np.abs(x - median), rules)
    low, high = np.quantile(x, rules["step_quantiles"])
    distinct = np.unique(x[(x >= low) & (x <= high)])
    if distinct.size < 2:
        distinct = np.unique(x)
    step = np.median(np.diff(distinct)) if distinct.size > 1 else 1.0
    spread = max(mean, step)
    noise = 0.0
    if min(values.shape) > 1:
        rows = np.arange(0, len(values) - 1, every)
        slopes = np.diff(values.astype(np.float64), axis=1)
        noise = float(clipped_mean(np.abs(slopes[rows + 1] - slopes[rows]), rules)) / rules["mean_difference"]
    least, most = rules["noise_spreads"]
    noise = min(max(noise, rules["noise_steps"] * step, least * spread), most * spread)
    return median, np.sqrt(spread) * np.sqrt(noise)


def clipped_mean(distance: NDArray[np.float64], rules: dict[str, Any]) -> np.float64:
    """Mean of distances, those above a quantile of theirs as that quantile."""
    return np.minimum(distance, np.quantile(distance, rules["clipped_quantile"])).mean()  # type: ignore[no-any-return]


def find(probability: Float, threshold: float, calibration: Sequence[float] | None) -> list[dict[str, Any]]:
    """Groups of pixels above the threshold that touch by a side or a corner, highest score first.

    The score is the peak probability, or what the calibration (intercept and weight of its log-odds) makes of it.
    """
    labels, count = ndimage.label(probability > threshold, structure=np.ones((3, 3)))
    scores = np.asarray(ndimage.maximum(probability, labels, range(1, count + 1)), np.float64)
    if calibration is not None:
        scores = expit(calibration[0] + calibration[1] * logit(np.clip(scores, 2.0**-24, 1 - 2.0**-24)))
    boxes = ndimage.find_objects(labels)
    found = []
    for i in np.argsort(-scores, kind="stable"):
        rows, columns = boxes[i]
        inside = labels[rows, columns] == i + 1
        y, x = np.argwhere(inside).mean(axis=0)
        found.append(
            {
                "box": [columns.start, rows.start, columns.stop, rows.stop],
                "centroid": [round(float(x) + columns.start, 2), round(float(y) + rows.start, 2)],
                "score": round(float(scores[i]), 4),
                "area": int(inside.sum()),
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="file of `serank export --format onnx`")
    parser.add_argument("frames", nargs="+", help="PNG, TIFF, BMP, JPEG or NPY files")
    parser.add_argument("--threshold", type=float, help="probability in [0, 1] (default: the network's)")
    parser.add_argument(
        "--tta", type=int, choices=(1, 4, 8), help="mean over the flips (4) or rotations and flips (8) of a frame"
    )
    parser.add_argument("--output", help="JSON file to write (default: standard output)")
    options = parser.parse_args(arguments)
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        parser.error(f"--threshold must be in [0, 1]; got {options.threshold}")
    network = Network(options.network)
    threshold = network.spec["threshold"] if options.threshold is None else options.threshold
    tta = network.spec["tta"] if options.tta is None else options.tta
    results, failed = [], 0
    for path in options.frames:
        try:
            frame = read_frame(path, network.spec["grey"])
        except (OSError, ValueError) as error:
            print(f"{path}: skipped: {error}", file=sys.stderr)
            failed += 1
            continue
        height, width = frame.shape
        # a constant frame holds nothing
        probability = network.probability(frame, tta) if frame.min() < frame.max() else np.zeros_like(frame)
        detections = find(probability, threshold, network.spec["score_calibration"])
        results.append(
            {"frame": path, "height": height, "width": width, "threshold": threshold, "detections": detections}
        )
    text = json.dumps(results, indent=1) + "\n"
    if options.output:
        Path(options.output).write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
