"""Large selective feature fusion (LSFF), the skip connection of SeRankDet.

Dai et al., "Pick of the Bunch", IEEE TGRS 2024, equations 9 to 12.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serank.utils.checks import check_count, check_map


class LSFF(nn.Module):
    """Large selective feature fusion: a 7x7 spatial gate chooses between the encoder's and the decoder's features.

    With U the concatenation of both, its mean and maximum over channels `(2, H, W)` pass a 7x7 convolution and a
    sigmoid to give s, and the output depends on `mode`:

    - `"select"` (equation 12): `skip * s + decoded * (1 - s)`, `channels` out. `maps` is N, one gate for all
      channels or one for each.
    - `"gated"` (released code): two gates, `a = conv1x1(skip * s0 + decoded * s1)`, `U + gamma * U * a`,
      `2 * channels` out, gamma a learned scalar that starts at 0.
    - `"concat"` (ablation): U itself, `2 * channels` out, no parameters.

    Args:
        channels: channels of `skip` and of `decoded`.
        mode: see above.
        maps: gates N of the 7x7 convolution in mode `"select"`; the other modes fix it.

    Attributes:
        out_channels: channels of the output.

    Shape: `(B, channels, H, W), (B, channels, H, W) -> (B, out_channels, H, W)`, any floating dtype.

    Raises:
        ValueError: `channels` below 1, an unknown `mode`, or `maps` other than 1 or `channels` in mode `"select"`; on
            use, maps of different shapes.
    """

    channels: int | None = None
    """Of networks pickled before it was kept."""

    def __init__(self, channels: int, *, mode: str = "select", maps: int = 1) -> None:
        super().__init__()
        self.channels = channels = check_count(channels, "channels")
        if mode not in ("select", "gated", "concat"):
            raise ValueError(f'mode must be "select", "gated" or "concat"; got {mode!r}')
        if mode == "select" and maps not in (1, channels):
            raise ValueError(f"maps must be 1 or channels={channels}, so that each channel has a gate; got {maps}")
        self.mode = mode
        self.out_channels = channels if mode == "select" else 2 * channels
        if mode == "select":
            self.squeeze = nn.Conv2d(2, maps, 7, padding=3)
        elif mode == "gated":
            self.squeeze = nn.Conv2d(2, 2, 7, padding=3)
            self.expand = nn.Conv2d(channels, 2 * channels, 1)
            self.gamma = nn.Parameter(torch.zeros(1))

    def extra_repr(self) -> str:
        """Arguments shown by `print(module)`."""
        return f"mode={self.mode!r}"

    def forward(self, skip: Tensor, decoded: Tensor) -> Tensor:
        """Two `(B, channels, H, W)` maps of one size -> `(B, out_channels, H, W)`.

        Raises:
            TypeError: one of them is no tensor.
            ValueError: they differ in shape, have other axes or channels, are not floating, or are sparse.
        """
        check_map(skip, self.channels, name="skip")
        check_map(decoded, self.channels, name="decoded")
        if not torch.compiler.is_compiling() and skip.shape != decoded.shape:
            raise ValueError(
                f"skip and decoded must have one shape; got {tuple(skip.shape)} and {tuple(decoded.shape)}. "
                "Resize the decoded map first"
            )
        if self.mode == "concat":
            return torch.cat((skip, decoded), dim=1)
        gate = self.gate(skip, decoded)
        if self.mode == "select":
            # under autocast the two may come in different dtypes
            dtype = torch.promote_types(skip.dtype, decoded.dtype)
            decoded = decoded.to(dtype)
            return decoded + (skip.to(dtype) - decoded) * gate.to(dtype)
        weighted: Tensor = self.expand(skip * gate[:, :1] + decoded * gate[:, 1:])
        both = torch.cat((skip, decoded), dim=1)
        fused: Tensor = both + self.gamma * (both * weighted)
        return fused

    def gate(self, skip: Tensor, decoded: Tensor) -> Tensor:
        """The gates s in [0, 1], `(B, N, H, W)`; not in mode `"concat"`, which has none."""
        # mean and maximum of the concatenation, without building it
        mean = (skip.mean(1, keepdim=True) + decoded.mean(1, keepdim=True)) / 2
        peak = torch.maximum(skip.amax(1, keepdim=True), decoded.amax(1, keepdim=True))
        gates: Tensor = self.squeeze(torch.cat((mean, peak), dim=1)).sigmoid()
        return gates
