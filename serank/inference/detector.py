"""From frames to detections, with any network that maps `(B, C, H, W)` to `(B, 1, H, W)` logits."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serank.frames.preparation import FrameSpec, resize, tiles
from serank.frames.reading import FrameLike, read_frame
from serank.metrics.components import component_table, label_components
from serank.utils.checks import check_threshold

__all__ = ["Detections", "Detector", "find_detections", "predict"]

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)  # arrays have no single truth value and print at length
class Detections:
    """What was found in one frame; the N detections are sorted by score, highest first.

    Attributes:
        probability: `(H, W)` float32, target probability of each pixel at the frame's own size.
        mask: `(H, W)` bool, pixels above the threshold, components below the minimum area left out.
        boxes: `(N, 4)` float32, x0, y0, x1, y1 in pixels; x1 and y1 are exclusive, so a single pixel has sides of 1.
        centroids: `(N, 2)` float32, mean x and y of a component's pixels; (0, 0) is the first pixel's centre.
        scores: `(N,)` float32 in [0, 1], peak probability of each component.
        areas: `(N,)` int64, pixels of each component.
        threshold: probability above which a pixel counts as target.
        frame: `(H, W)` float32 in [0, 1], the frame as read, for drawing.
    """

    probability: Float
    mask: NDArray[np.bool_]
    boxes: Float
    centroids: Float
    scores: Float
    areas: NDArray[np.int64]
    threshold: float
    frame: Float

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Detections({len(self)} in a frame of {height}x{width}, threshold={self.threshold})"

    def to_dict(self) -> dict[str, Any]:
        """Size, threshold and the detections as plain numbers, ready for `json.dumps`."""
        height, width = self.mask.shape
        rows = zip(self.boxes, self.centroids, self.scores, self.areas, strict=True)
        return {
            "height": height,
            "width": width,
            "threshold": self.threshold,
            "detections": [
                {
                    "box": [int(v) for v in box],
                    "centroid": [round(float(v), 2) for v in centroid],
                    "score": round(float(score), 4),
                    "area": int(area),
                }
                for box, centroid, score, area in rows
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draws the boxes and scores over the frame into an image file, whole or not at all.

        Args:
            path: its suffix sets the format, such as `.png`.

        Raises:
            ValueError: a suffix that is no image format.
            OSError: the file can't be written.
        """
        from serank.inference.drawing import save_overlay

        save_overlay(path, self.frame, self.boxes, self.scores)


def find_detections(probability: Float, frame: Float, *, threshold: float = 0.5, min_area: int = 1) -> Detections:
    """Connected components of `probability > threshold` as detections.

    Args:
        probability: `(H, W)` float32 in [0, 1].
        frame: `(H, W)` float32 in [0, 1], kept for drawing.
        threshold: in [0, 1].
        min_area: smallest component kept, in pixels.

    Raises:
        ValueError: `threshold` outside [0, 1] or `min_area` below 1.
    """
    check_threshold(threshold)
    if min_area < 1:
        raise ValueError(f"min_area must be >= 1; got {min_area}")
    labels, count = label_components(probability > threshold)
    table = component_table(labels, count)
    scores = np.zeros(count + 1, np.float32)
    np.maximum.at(scores, labels.ravel(), probability.ravel())
    scores = scores[1:]
    order = np.argsort(-scores, kind="stable")
    kept = order[table.areas[order] >= min_area]
    return Detections(
        probability=probability,
        mask=np.isin(labels, kept + 1),
        boxes=table.boxes[kept].astype(np.float32),
        centroids=table.centroids[kept].astype(np.float32),
        scores=scores[kept],
        areas=table.areas[kept].astype(np.int64),
        threshold=threshold,
        frame=frame,
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module's former mode comes back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:  # not model.train(), which would wake frozen parts too
            module.training = True


def predict(
    model: nn.Module,
    frames: Sequence[Float],
    spec: FrameSpec,
    *,
    channels: int = 1,
    batch_size: int = 8,
) -> list[Float]:
    """Target probability of each frame, at the frame's own size.

    Frames are scaled as `spec` says and run in batches of equal size or, where larger than a tile, tile by tile; the
    logits are scaled back. The result of a frame does not depend on the others.

    Args:
        model: maps `(B, channels, H, W)` to `(B, 1, H, W)` logits; run in eval mode on its own device. Of a `Detector`
            its `inference_form` is run.
        frames: each `(H, W)` float32 in [0, 1], of any sizes.
        spec: what the model was trained on.
        channels: channels that the model takes; grey is repeated.
        batch_size: most frames run at once; fewer where together they would exceed a tile, which runs alone.

    Returns:
        One `(H, W)` float32 in [0, 1] for each frame.
    """
    parameter = next(model.parameters())

    def run(batch: Sequence[Float]) -> Float:
        x = torch.from_numpy(np.stack(batch)[:, None]).to(parameter.device)
        logits: Tensor = network(spec.normalise(x, channels).to(parameter.dtype))
        return logits[:, 0].float().cpu().numpy()

    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, frame in enumerate(frames):
        height, width = frame.shape
        groups[spec.working_shape(height, width)].append(i)
    outputs: dict[int, Float] = {}
    with _evaluating(model):
        network = model.inference_form() if isinstance(model, Detector) else model
        for (height, width), members in groups.items():
            whole = max(height, width) <= spec.tile
            # a batch takes no more memory than a tile would, and what is tiled runs alone
            size = max(1, min(batch_size, spec.tile**2 // (height * width))) if whole else 1
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                scaled = [resize(frames[i], height, width) for i in chosen]
                logits = run(scaled) if whole else _tiled(run, scaled[0], spec)
                for i, logit in zip(chosen, logits, strict=True):
                    outputs[i] = _sigmoid(resize(logit, *frames[i].shape))
    return [outputs[i] for i in range(len(frames))]


def _tiled(run: Callable[[Sequence[Float]], Float], frame: Float, spec: FrameSpec) -> Float:
    """Logits `(1, H, W)` of a large frame, tile by tile, blended linearly where tiles overlap."""
    height, width = frame.shape
    total = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for top, bottom in tiles(height, spec.tile, spec.overlap):
        for left, right in tiles(width, spec.tile, spec.overlap):
            weight = np.outer(_ramp(bottom - top, spec.overlap), _ramp(right - left, spec.overlap))
            logits = run([frame[top:bottom, left:right]])[0]
            total[top:bottom, left:right] += logits * weight
            weights[top:bottom, left:right] += weight
    return (total / weights)[None]


def _ramp(length: int, overlap: int) -> Float:
    """Weights that rise from a tile's edges to 1 across the overlap."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.minimum(distance / max(overlap, 1), 1).astype(np.float32)


def _sigmoid(logits: Float) -> Float:
    return torch.from_numpy(np.array(logits)).sigmoid().numpy()


class Detector:
    """Gives a network the method `detect`; the network has `frame_spec`, `in_channels` and `threshold`."""

    frame_spec: FrameSpec
    in_channels: int
    threshold: float

    def inference_form(self) -> nn.Module:
        """What `detect` runs: this network, or one with the same outputs."""
        return cast(nn.Module, self)

    def check_options(self, threshold: float | None, min_area: int) -> float:
        """The threshold that `detect` will use; raises ValueError as `detect` would."""
        if min_area < 1:
            raise ValueError(f"min_area must be >= 1; got {min_area}")
        return check_threshold(self.threshold if threshold is None else threshold)

    @overload
    def detect(
        self,
        image: FrameLike,
        threshold: float | None = None,
        *,
        min_area: int = 1,
        batch_size: int = 8,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        image: list[Any] | tuple[Any, ...],
        threshold: float | None = None,
        *,
        min_area: int = 1,
        batch_size: int = 8,
    ) -> list[Detections]: ...

    def detect(
        self,
        image: FrameLike | list[Any] | tuple[Any, ...],
        threshold: float | None = None,
        *,
        min_area: int = 1,
        batch_size: int = 8,
    ) -> Detections | list[Detections]:
        """Finds targets in a frame or in each of a list of frames.

        Frames are prepared as the checkpoint was trained: scaled to its working size, large ones tiled. A frame's
        result does not depend on the others in the list.

        Args:
            image: path, PIL image, array or tensor as `serank.frames.read_frame` takes them, or a list of these.
            threshold: probability in [0, 1] above which a pixel is target; `None` takes the checkpoint's, 0.5 unless
                it says another.
            min_area: smallest detection kept, in pixels of the frame.
            batch_size: most frames of equal size run at once.

        Returns:
            `Detections`, or a list of them for a list.

        Raises:
            FileNotFoundError: no such file.
            serank.errors.FrameError: a frame that can't be read or used; names it and the reason.
            TypeError: an `image` of another type.
            ValueError: `threshold` outside [0, 1], `min_area` or `batch_size` below 1.
        """
        chosen = self.check_options(threshold, min_area)
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1; got {batch_size}")
        sources = image if isinstance(image, (list, tuple)) else [image]
        frames = [read_frame(source) for source in sources]
        probabilities = predict(
            cast(nn.Module, self), frames, self.frame_spec, channels=self.in_channels, batch_size=batch_size
        )
        found = [
            find_detections(p, f, threshold=chosen, min_area=min_area)
            for p, f in zip(probabilities, frames, strict=True)
        ]
        return found if sources is image else found[0]
