"""From frames to detections, with any network that maps `(B, C, H, W)` to `(B, 1, H, W)` logits."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast, overload
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from torch import Tensor, nn

from serank.frames.frame import Frame, FramePreparer
from serank.frames.options import FrameOptions, Ignore, Polarity
from serank.frames.preparation import FrameSpec, resize, tiles
from serank.frames.reading import FrameLike
from serank.inference.detections import Detections, FrameSource, find_detections
from serank.inference.scores import Calibration
from serank.inference.tta import ORIENTATIONS, Orientation, check_tta
from serank.utils.checks import check_count, check_threshold

Float = NDArray[np.float32]


_LOCK = threading.Lock()
_RUNNING: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()
"""Of each model that runs: in how many threads, and its modules that were training before the first of them."""


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module's former mode comes back when the last thread has left."""
    with _LOCK:
        users, training = _RUNNING.get(model, (0, []))
        _RUNNING[model] = users + 1, training + [module for module in model.modules() if module.training]
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        with _LOCK:
            users, training = _RUNNING.pop(model)
            if users > 1:
                _RUNNING[model] = users - 1, training
            else:
                for module in training:  # not model.train(), which would wake frozen parts too
                    module.training = True


def predict(
    model: nn.Module,
    frames: Sequence[Float | Frame],
    spec: FrameSpec,
    *,
    channels: int = 1,
    batch_size: int = 8,
    tta: int = 1,
) -> list[Float]:
    """Target probability of each frame, at the frame's own size.

    Frames are scaled as `spec` says and run in batches of equal size or, where larger than a tile, tile by tile; the
    logits are scaled back. The result of a frame does not depend on the others.

    Args:
        model: maps `(B, channels, H, W)` to `(B, 1, H, W)` logits; run in eval mode on its own device.
        frames: each `(H, W)` float32 in [0, 1], of any sizes, or a prepared `serank.frames.Frame`.
        spec: what the model was trained on.
        channels: channels that the model takes; grey is repeated.
        batch_size: most frames run at once; fewer where together they would exceed a tile, which runs alone. With `tta`
            the orientations of a frame count as frames.
        tta: test-time augmentation: 1 runs a frame as it is; 4 gives the mean probability over it and its flips, 8
            over all rotations and flips, each scaled and tiled on its own.

    Returns:
        One `(H, W)` float32 in [0, 1] for each frame.

    Raises:
        TypeError: the model gives no tensor.
        ValueError: another `tta`, or a model that gives other than a logit for each pixel.
        FloatingPointError: the model's output holds NaN or infinity.
    """
    orientations = ORIENTATIONS[check_tta(tta)]
    weights = (t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point())
    weight = next(weights, torch.empty(0))  # whose device and dtype the input takes
    scaled_frames = [f.grey if isinstance(f, Frame) else f.astype(np.float32, copy=False) for f in frames]

    def run(batch: Sequence[Float]) -> Float:
        x = spec.normalise(torch.from_numpy(np.stack(batch)[:, None]).to(weight.device), channels)
        logits = model(x.to(weight.dtype, memory_format=torch.channels_last))
        _check_logits(logits, x)
        values: Float = logits[:, 0].float().cpu().numpy()
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"the network's output holds NaN or infinity for frames of {values.shape[1]}x{values.shape[2]} px: its "
                f"weights hold some, or its values leave the range of {weight.dtype}"
            )
        return values

    groups: dict[tuple[int, int], list[tuple[int, Orientation]]] = defaultdict(list)
    for i, frame in enumerate(scaled_frames):
        height, width = frame.shape
        for orientation in orientations:
            groups[spec.working_shape(*orientation.shape(height, width))].append((i, orientation))
    # summed in float64, where the order hardly matters: a turned frame gives the turned result
    outputs: dict[int, NDArray[Any]] = {}
    with _evaluating(model):
        for (height, width), members in groups.items():
            whole = max(height, width) <= spec.tile
            # a batch takes no more memory than a tile would, and what is tiled runs alone
            size = max(1, min(batch_size, spec.tile**2 // (height * width))) if whole else 1
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                scaled = [resize(o.apply(scaled_frames[i]), height, width) for i, o in chosen]
                logits = run(scaled) if whole else _tiled(run, scaled[0], spec)
                for (i, o), logit in zip(chosen, logits, strict=True):
                    probability = o.undo(_sigmoid(resize(logit, *o.shape(*scaled_frames[i].shape))))
                    if tta == 1:
                        outputs[i] = probability
                    else:
                        outputs[i] = outputs[i] + probability if i in outputs else probability.astype(np.float64)
    return [outputs[i] if tta == 1 else (outputs[i] / tta).astype(np.float32) for i in range(len(frames))]


def _check_logits(logits: Any, x: Tensor) -> None:
    """Raises unless a network has given logits of every pixel of its input."""
    count, _, height, width = x.shape
    expected = f"model must map {tuple(x.shape)} to logits ({count}, 1, {height}, {width})"
    if not isinstance(logits, Tensor):
        raise TypeError(f"{expected}; got {type(logits).__name__}; wrap it so that it gives one tensor")
    if logits.shape != (count, 1, height, width):
        raise ValueError(f"{expected}; got {tuple(logits.shape)}")


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


def _source(image: Any) -> FrameSource | None:
    """The file of a frame that was given as a path, or that Pillow opened from one."""
    name = image.filename if isinstance(image, ImageFile) else image
    return FrameSource(Path(os.fsdecode(name))) if isinstance(name, (str, os.PathLike)) and name else None


class Detector:
    """Gives a network the method `detect`; the network has `frame_spec`, `in_channels` and `threshold`.

    `tta` is how many rotations and flips of a frame `detect` averages over by default, see `predict`;
    `score_calibration` gives the scores of detections, see `serank.inference.scores.calibrated_scores`.
    """

    frame_spec: FrameSpec
    in_channels: int
    threshold: float
    tta: int = 1
    score_calibration: Calibration | None = None

    def check_options(
        self,
        threshold: float | None = None,
        *,
        tta: int | None = None,
        min_area: int = 1,
        min_score: float = 0.0,
        batch_size: int = 1,
    ) -> tuple[float, int]:
        """The threshold and the number of orientations that `detect` will use; raises ValueError as `detect` would."""
        check_count(min_area, "min_area")
        chosen = check_threshold(self.threshold if threshold is None else threshold)
        check_threshold(min_score, "min_score")
        orientations = check_tta(self.tta if tta is None else tta)
        check_count(batch_size, "batch_size")
        return chosen, orientations

    @overload
    def detect(
        self,
        image: FrameLike | Frame,
        threshold: float | None = None,
        *,
        tta: int | None = None,
        min_area: int = 1,
        min_score: float = 0.0,
        batch_size: int = 8,
        polarity: Polarity = "white-hot",
        palette: str | None = None,
        value_range: Sequence[float] | None = None,
        no_data: float | Sequence[float] | None = None,
        ignore: Ignore | None = None,
        repair: bool | None = None,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        image: list[Any] | tuple[Any, ...],
        threshold: float | None = None,
        *,
        tta: int | None = None,
        min_area: int = 1,
        min_score: float = 0.0,
        batch_size: int = 8,
        polarity: Polarity = "white-hot",
        palette: str | None = None,
        value_range: Sequence[float] | None = None,
        no_data: float | Sequence[float] | None = None,
        ignore: Ignore | None = None,
        repair: bool | None = None,
    ) -> list[Detections]: ...

    def detect(
        self,
        image: FrameLike | Frame | list[Any] | tuple[Any, ...],
        threshold: float | None = None,
        *,
        tta: int | None = None,
        min_area: int = 1,
        min_score: float = 0.0,
        batch_size: int = 8,
        polarity: Polarity = "white-hot",
        palette: str | None = None,
        value_range: Sequence[float] | None = None,
        no_data: float | Sequence[float] | None = None,
        ignore: Ignore | None = None,
        repair: bool | None = None,
    ) -> Detections | list[Detections]:
        """Finds targets in a frame or in each of a list of frames.

        Frames are prepared as the checkpoint was trained: scaled to its working size, large ones tiled. A frame's
        result does not depend on the others in the list. This very network runs, in eval mode; for many frames
        `SeRankDet.optimize` makes a faster one with the same results to rounding.

        Args:
            image: path, PIL image, array or tensor as `serank.frames.read_frame` takes them, a prepared
                `serank.frames.Frame`, or a list of these.
            threshold: probability in [0, 1] above which a pixel is target; `None` takes the checkpoint's, 0.5 unless
                it says another.
            tta: test-time augmentation: 1 runs each frame once, 4 averages its probabilities over its flips, 8 over
                all its rotations and flips, at 4 and 8 times the cost; `None` takes the checkpoint's, 1 unless it says
                another.
            min_area: smallest detection kept, in pixels of the frame.
            min_score: least score kept, in [0, 1]; of use where the checkpoint's scores are calibrated.
            batch_size: most frames of equal size run at once.
            polarity: `"black-hot"` where hot things are dark.
            palette: of frames in false colour: `"auto"`, or its name in matplotlib, such as `"inferno"`.
            value_range: values (low, high) of black and white, instead of what the values tell.
            no_data: value or values of pixels without data, such as -9999 or NaN. They are filled from their
                neighbours, as those of masked arrays, and nothing is found there.
            ignore: where nothing is to be found: a mask `(H, W)` bool or the path of a mask file, or boxes `(N, 4)`.
            repair: whether dead pixels and lines are replaced from their neighbours first; `None` takes the
                checkpoint's, true unless it says otherwise. The last six are those of `serank.frames.FrameOptions`,
                which says more.

        Returns:
            `Detections`, or a list of them for a list.

        Raises:
            FileNotFoundError: no such file.
            serank.errors.FrameError: a frame that can't be read or used; names it and the reason.
            ImportError: `palette` without matplotlib; names the extra.
            TypeError: an `image` of another type.
            ValueError: `threshold` or `min_score` outside [0, 1], `tta` none of the three, `min_area` or `batch_size`
                below 1, or a bad option of the frames.
            FloatingPointError: the network's output holds NaN or infinity.

        Warns:
            UserWarning: once for each kind of frame in which targets are likely to be lost: constant ones, contrasts in
                a small part of the range, false colour, 16-bit channels that differ, previews that a thermal camera
                rendered.
        """
        chosen, orientations = self.check_options(
            threshold, tta=tta, min_area=min_area, min_score=min_score, batch_size=batch_size
        )
        sources = image if isinstance(image, (list, tuple)) else [image]
        options = FrameOptions(value_range, no_data, polarity, palette, ignore, repair)
        prepare = FramePreparer(self.frame_spec, options)
        frames = [prepare(source) for source in sources]
        probabilities = predict(
            cast(nn.Module, self),
            frames,
            self.frame_spec,
            channels=self.in_channels,
            batch_size=batch_size,
            tta=orientations,
        )
        found = [
            find_detections(
                p,
                f.grey,
                hidden=f.hidden,
                threshold=chosen,
                min_area=min_area,
                min_score=min_score,
                calibration=self.score_calibration,
                source=_source(s),
            )
            for p, f, s in zip(probabilities, frames, sources, strict=True)
        ]
        return found if sources is image else found[0]
