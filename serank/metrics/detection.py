"""All metrics of a set of frames, accumulated call by call."""

from __future__ import annotations

from serank.metrics.checks import (
    Frames,
    Protocol,
    check_distance,
    check_protocol,
    check_same_settings,
    checked_frames,
)
from serank.metrics.components import find_components
from serank.metrics.counting import Counts, count_components, count_pixels, summary
from serank.utils.checks import check_threshold

__all__ = ["DetectionMetrics"]


class DetectionMetrics:
    """All metrics at one threshold, accumulated over calls.

    It keeps a few integers, whatever the number of frames. They are exact, so neither the order of frames nor
    their split into calls or instances changes the result.

    Args:
        threshold: as for `iou`.
        max_distance: as for `pd_fa`, in pixels.
        protocol: as for `iou`, `niou` and `pd_fa`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import numpy as np
        >>> metrics = DetectionMetrics()
        >>> metrics.update(np.array([[0.9, 0.1]]), np.array([[1, 0]]))
        >>> metrics.compute()["pd"]
        1.0
    """

    def __init__(self, threshold: float = 0.5, max_distance: float = 3.0, protocol: Protocol = "standard") -> None:
        check_protocol(protocol)
        self.threshold = check_threshold(threshold)
        self.max_distance = check_distance(max_distance)
        self.protocol = protocol
        self._counts = Counts()

    def __repr__(self) -> str:
        return (
            f"DetectionMetrics(threshold={self.threshold}, max_distance={self.max_distance}, "
            f"protocol={self.protocol!r})"
        )

    def reset(self) -> None:
        """Forgets all frames."""
        self._counts = Counts()

    def update(self, probability: Frames, target: Frames) -> None:
        """Adds frames; all of them or, when one is invalid, none.

        Args:
            probability: as for `iou`.
            target: as for `iou`.

        Raises:
            ValueError: shapes differ or probability is not in [0, 1].
        """
        added = Counts()
        for frame, truth in checked_frames(probability, target):
            predicted = frame > self.threshold
            added += count_pixels(predicted, truth, self.protocol)
            added += count_components(predicted, find_components(truth), self.max_distance, self.protocol)
        self._counts += added

    def merge(self, other: DetectionMetrics) -> None:
        """Adds what another instance has counted, for example one received from another process.

        Args:
            other: an instance of the same threshold, distance and protocol; left as it is.

        Raises:
            ValueError: the settings differ.
        """
        check_same_settings(self, other)
        self._counts += other._counts

    def compute(self) -> dict[str, float]:
        """The metrics of all frames since the last reset.

        Returns:
            A dict of

            - `iou`, `niou`, `pd` in [0, 1] and `fa` in false pixels per pixel, as from the functions of these
              names; `pd` is NaN without targets
            - `precision`, `recall`, `f1` of pixels over the whole set, in [0, 1]. Standard: precision is NaN
              without predicted pixels, recall NaN without target pixels, f1 1 without both. Released:
              precision and recall have 0.001 added to their denominators and f1 1e-5, so all are 0 there
            - `false_components`, unmatched predicted components per frame, whatever their areas
            - `frames` and `targets`, how many there were

        Raises:
            ValueError: no frame was added.
        """
        return summary(self._counts, self.protocol)
