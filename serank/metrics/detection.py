"""All metrics of a set of frames, accumulated call by call."""

from __future__ import annotations

from serank.metrics.checks import Frames, Protocol, check_distance, check_protocol, check_same_settings, checked_frames
from serank.metrics.counting import Counts, count_frame, summary
from serank.utils.checks import check_threshold


class DetectionMetrics:
    """All metrics at one threshold, accumulated over calls.

    It keeps a few integers, whatever the number of frames. They are exact, so neither the order of frames nor
    their split into calls or instances changes the result.

    `threshold`, `max_distance` and `protocol` are as for `pd_fa`; outside their ranges they raise ValueError.

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
        """Adds frames, as for `iou`; all of them or, when one is invalid (ValueError), none."""
        added = Counts()
        for scores, truth in checked_frames(probability, target):
            added += count_frame(scores, truth, [self.threshold], self.protocol, self.max_distance)[0]
        self._counts += added

    def merge(self, other: DetectionMetrics) -> None:
        """Adds what another instance has counted, for example one received from another process.

        Raises:
            ValueError: its threshold, distance or protocol differs.
        """
        check_same_settings(self, other)
        self._counts += other._counts

    def compute(self) -> dict[str, float]:
        """The metrics of all frames since the last reset; raises ValueError where there is none.

        - `iou`, `niou`, `pd` in [0, 1] and `fa` in false pixels per pixel, as from the functions of these
          names; `pd` is NaN without targets
        - `precision`, `recall`, `f1` of pixels over the whole set, in [0, 1]. Standard: precision is NaN
          without predicted pixels, recall NaN without target pixels, f1 1 without both. Released:
          precision and recall have 0.001 added to their denominators and f1 1e-5, so all are 0 there
        - `false_components`, unmatched predicted components per frame, whatever their areas
        - `frames` and `targets`, how many there were
        """
        return summary(self._counts, self.protocol)
