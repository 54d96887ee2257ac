"""Keeping the inference copy that `detect` runs, for as long as its network stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import nn

if TYPE_CHECKING:
    from serank.inference.fused_network import InferenceNetwork
    from serank.models.network import SeRankDet

__all__ = ["KeepsCopy"]

Network = TypeVar("Network", bound="KeepsCopy")


class KeepsCopy(nn.Module):
    """A network that keeps one inference copy of itself, and leaves it behind when it is copied or pickled."""

    _kept: tuple[object, InferenceNetwork] | None = None
    """The copy, and the fingerprint of the network that it was made from."""

    def inference_form(self) -> nn.Module:
        """What `detect` runs: a float32 inference copy, made anew when this network has changed, or the network itself.

        See `serank.fast`.
        """
        from serank.inference.fast import fingerprint

        network = cast("SeRankDet", self)
        found, kept = fingerprint(network), self._kept
        if kept is None or kept[0] != found:
            kept = self._kept = None  # the old copy is freed before there is a new one
            if found is not None:
                kept = self._kept = (found, network.optimize())
        return self if kept is None else kept[1]

    def train(self: Network, mode: bool = True) -> Network:
        """Training or eval mode, as of any module; for training, the copy is dropped."""
        if mode:
            self._kept = None
        return super().train(mode)

    def _apply(self: Network, *arguments: Any, **options: Any) -> Network:
        self._kept = None  # a network that is moved should leave nothing where it was
        return cast(Network, super()._apply(*arguments, **options))  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": None}
