"""When an inference copy may stand for its network, and whether the network is still the one it was made from.

A copy is used in place of a network that the caller may have changed in any way, so a change that can't be noticed
would give results of old weights. PyTorch counts the changes of a tensor, but not those made through `.data`, NumPy or
another process. Therefore the values themselves are compared too, by a checksum, which reads the weights once: far less
work than a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from serank.inference.fused_conv import is_ordinary, is_unhooked
from serank.inference.fused_network import InferenceNetwork, has_own_graph

if TYPE_CHECKING:
    from serank.models.network import SeRankDet

__all__ = ["fast", "fingerprint"]

PLAIN = {bool, int, float, str, tuple, type(None)}
"""Types of a layer's settings; others may change unseen."""


def fast(network: SeRankDet | InferenceNetwork) -> SeRankDet | InferenceNetwork:
    """An inference copy of `network` in float32, or `network` itself where that would not give the same.

    Args:
        network: not changed while the copy is used. An inference copy comes back as it is.

    Returns:
        The network itself if it is edited, hooked, compiled, a subclass with a forward pass of its own, not in float32,
        neither on a CPU nor on CUDA, or under autocast.
    """
    if isinstance(network, InferenceNetwork) or fingerprint(network) is None:
        return network
    return network.optimize()


def fingerprint(network: SeRankDet) -> tuple[object, ...] | None:
    """Equal for a network that has not changed, as far as its outputs in eval mode depend on it.

    Two different sets of weights agree by chance only: 32 bits of each tensor's sum, its address and its count of
    changes must be the same.

    Returns:
        Structure, settings and weights; `None` where `fast` returns the network itself.
    """
    if has_own_graph(network) or not is_unhooked(network) or _has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    if not all(is_ordinary(child) for child in network.children()):
        return None
    tensors = [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
    device = tensors[0].device
    if device.type not in ("cpu", "cuda") or torch.is_autocast_enabled(device.type):
        return None
    if any(type(t) not in (Tensor, nn.Parameter) or t.dtype != torch.float32 or t.device != device for t in tensors):
        return None
    settings = [
        (name, type(module), [(k, v) for k, v in vars(module).items() if k[0] != "_" and k != "training"])
        for name, module in network.named_modules()
        if module is not network  # its own settings prepare frames, which the copy doesn't
    ]
    if any(type(value) not in PLAIN for _, _, values in settings for _, value in values):
        return None
    sums = torch.stack([t.detach().view(torch.int32).sum(dtype=torch.int32) for t in tensors]).tolist()
    places = [(t.data_ptr(), t.shape, 0 if t.is_inference() else t._version) for t in tensors]
    return device, settings, places, sums
