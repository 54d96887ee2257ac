"""The layers' equations written out in NumPy, slowly, to check the fast ones against.

Dai et al., "Pick of the Bunch", IEEE TGRS 2024, section III. Each step is one function with explicit loops
and everything is float64. Maps are `(B, C, H, W)`. A layer's weights come as a mapping from the names of its
`state_dict` to arrays, see `weights_of`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

__all__ = [
    "Array",
    "Weights",
    "attention_after",
    "conv2d",
    "ddc",
    "difference_conv2d",
    "lsff",
    "positional_table",
    "rank_size",
    "ranked_positions",
    "serank_attention",
    "weights_of",
]

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]


def weights_of(module: nn.Module) -> dict[str, Array]:
    """Copies of a module's parameters and buffers as float64 arrays."""
    return {name: value.detach().double().numpy().copy() for name, value in module.state_dict().items()}


def conv2d(x: Array, weight: Array, bias: Array | None, dilation: int = 1) -> Array:
    """Convolution of odd kernel `(out, in, s, s)` that keeps H and W, zeros outside the map."""
    batch, _, height, width = x.shape
    outputs, inputs, side, _ = weight.shape
    result = np.zeros((batch, outputs, height, width))
    for row in range(height):
        for column in range(width):
            for i in range(side):
                for j in range(side):
                    y = row + dilation * (i - side // 2)
                    z = column + dilation * (j - side // 2)
                    if not (0 <= y < height and 0 <= z < width):
                        continue
                    for c in range(inputs):
                        for o in range(outputs):
                            result[:, o, row, column] += weight[o, c, i, j] * x[:, c, y, z]
    if bias is not None:
        result += bias[None, :, None, None]
    return result


def difference_conv2d(x: Array, weight: Array, bias: Array | None, theta: float) -> Array:
    """The definition with its two convolutions; the bias is in both terms."""
    summed = np.zeros((*weight.shape[:2], 1, 1))
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            summed[:, :, 0, 0] += weight[:, :, i, j]
    return conv2d(x, weight, bias) - theta * conv2d(x, summed, bias)


def batch_norm(x: Array, weights: Weights, name: str, training: bool, eps: float = 1e-5) -> Array:
    """Per channel, by the batch's mean and biased variance in training and the running ones otherwise."""
    result = np.zeros_like(x)
    for c in range(x.shape[1]):
        if training:
            values = x[:, c].ravel()
            mean = values.sum() / values.size
            variance = ((values - mean) ** 2).sum() / values.size
        else:
            mean = weights[f"{name}.running_mean"][c]
            variance = weights[f"{name}.running_var"][c]
        scaled = (x[:, c] - mean) / math.sqrt(variance + eps)
        result[:, c] = scaled * weights[f"{name}.weight"][c] + weights[f"{name}.bias"][c]
    return result


def ddc(x: Array, weights: Weights, *, branches: Sequence[str], theta: float = 0.7, training: bool = False) -> Array:
    """Dilated difference convolution; `branches` in the order vanilla, difference, dilated."""

    def step(x: Array, name: str, dilation: int = 1) -> Array:
        weight, bias = weights[f"{name}.0.weight"], weights.get(f"{name}.0.bias")
        if name == "branches.difference":
            x = difference_conv2d(x, weight, bias, theta)
        else:
            x = conv2d(x, weight, bias, dilation)
        return np.maximum(batch_norm(x, weights, f"{name}.1", training), 0.0)

    results = []
    for branch in branches:
        y = x
        if branch == "difference":
            y = step(y, "branches.difference")
        else:
            for number, dilation in enumerate({"vanilla": (1, 1, 1), "dilated": (2, 4, 2)}[branch]):
                y = step(y, f"branches.{branch}.{number}", dilation)
        results.append(y)
    return step(np.concatenate(results, axis=1), "merge")


def rank_size(channels: int, level: int, offset: int = 3) -> int:
    """Equation 2, with the logarithm found by doubling."""
    logarithm = 0
    while 2 ** (logarithm + 1) <= channels:
        logarithm += 1
    exponent = logarithm + offset - 2 * (level - 1)
    return 2**exponent if exponent >= 0 else 1


def positional_table(height: int, width: int, table_width: int) -> Array:
    """The part of a sinusoidal table of `table_width` columns that a map of height x width reads."""
    table = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            pair = column // 2  # columns 2j and 2j + 1 share d[j]
            d = math.exp(-math.log(10000.0) * (2 * pair) / table_width)
            table[row, column] = math.sin(row * d) if column % 2 == 0 else math.cos(row * d)
    return table


def ranked_positions(channel: Array, k: int) -> list[tuple[int, int]]:
    """(row, column) of the k largest values of one channel `(H, W)`, in spatial order."""
    height, width = channel.shape
    positions = [(row, column) for row in range(height) for column in range(width)]
    strongest = sorted(positions, key=lambda position: -channel[position])[:k]
    return sorted(strongest)


def standardise(scores: Array) -> Array:
    """Minus the mean of all entries, over their unbiased standard deviation; one entry becomes 0."""
    if scores.size == 1:
        return np.zeros_like(scores)
    mean = scores.sum() / scores.size
    deviation = math.sqrt(((scores - mean) ** 2).sum() / (scores.size - 1))
    result: Array = (scores - mean) / (deviation + 1e-5)
    return result


def softmax(row: Array) -> Array:
    """Softmax of a vector; minus infinity gives 0."""
    powers = np.exp(row - row.max())
    result: Array = powers / powers.sum()
    return result


def _mix(attention: Array, frame: Array) -> Array:
    """`(1 + A) X` with X one row per channel."""
    channels = frame.shape[0]
    result = np.zeros_like(frame)
    for i in range(channels):
        result[i] = frame[i]
        for j in range(channels):
            result[i] += attention[i, j] * frame[j]
    return result


def serank_attention(
    x: Array,
    query: Array,
    key: Array,
    k: int,
    *,
    positional_encoding: bool = True,
    table_width: int | None = None,
) -> Array:
    """Selective rank-aware attention, frame by frame.

    `query` and `key` are `(K, 2K)`, so that Q = T Wq.
    """
    batch, channels, height, width = x.shape
    result = np.zeros_like(x)
    table = positional_table(height, width, width if table_width is None else table_width)
    for b in range(batch):
        tokens = np.zeros((channels, k))  # stays zero past the map's last point
        for c in range(channels):
            for place, position in enumerate(ranked_positions(x[b, c], k)):
                tokens[c, place] = x[b, c][position]
                if positional_encoding:
                    tokens[c, place] += table[position]
        queries, keys = tokens @ query, tokens @ key
        scores = np.zeros((channels, channels))
        for i in range(channels):
            for j in range(channels):
                scores[i, j] = (queries[i] * keys[j]).sum()
        scores = standardise(scores)
        result[b] = _mix(np.stack([softmax(row) for row in scores]), x[b])
    return result


def attention_after(x: Array, k: int) -> Array:
    """The ablation that ranks after the attention map: A = X X^T, the k largest of each row kept."""
    batch, channels, _, _ = x.shape
    result = np.zeros_like(x)
    for b in range(batch):
        scores = np.zeros((channels, channels))
        for i in range(channels):
            for j in range(channels):
                scores[i, j] = (x[b, i] * x[b, j]).sum()
        scores = standardise(scores)
        for i in range(channels):
            for j in sorted(range(channels), key=lambda j: -scores[i, j])[k:]:
                scores[i, j] = -math.inf
        result[b] = _mix(np.stack([softmax(row) for row in scores]), x[b])
    return result


def lsff(skip: Array, decoded: Array, weights: Weights, *, mode: str) -> Array:
    """Large selective feature fusion in each of its modes."""
    both = np.concatenate((skip, decoded), axis=1)
    if mode == "concat":
        return both
    pooled = np.stack((both.mean(axis=1), both.max(axis=1)), axis=1)
    gates = 1.0 / (1.0 + np.exp(-conv2d(pooled, weights["squeeze.weight"], weights["squeeze.bias"])))
    channels = skip.shape[1]
    if mode == "select":
        result = np.zeros_like(skip)
        for c in range(channels):
            gate = gates[:, c if gates.shape[1] > 1 else 0]
            result[:, c] = skip[:, c] * gate + decoded[:, c] * (1.0 - gate)
        return result
    weighted = np.zeros_like(skip)
    for c in range(channels):
        weighted[:, c] = skip[:, c] * gates[:, 0] + decoded[:, c] * gates[:, 1]
    attention = conv2d(weighted, weights["expand.weight"], weights["expand.bias"])
    gated: Array = both + weights["gamma"][0] * (both * attention)
    return gated
