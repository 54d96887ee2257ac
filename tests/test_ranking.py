"""The K largest values of each channel in spatial order, of equal ones the first, against a plain Python oracle."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from serank.layers import SeRankAttention

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# (B, C, H, W) and K: few points for each one taken, which are ranked at once, and many, of which blocks are looked at
# first, of 8 points and of 16, with points left over that fill no block; few channels and many; K above H * W
SHAPES = [
    ((2, 4, 6, 8), 5),
    ((1, 3, 5, 7), 34),
    ((2, 5, 2, 3), 9),
    ((2, 3, 16, 8), 8),
    ((1, 2, 13, 11), 5),
    ((2, 5, 40, 37), 4),
    ((1, 8, 1, 300), 1),
    ((1, 1, 64, 9), 9),
    ((1, 40, 24, 16), 12),
]


def oracle(x: Tensor, k: int) -> list[list[list[int]]]:
    """Flat positions of each channel of each frame, by Python's own comparisons."""

    def size(value: float) -> tuple[bool, float]:
        return (True, 0.0) if math.isnan(value) else (False, value)

    found = []
    for frame in x.double().flatten(2).tolist():
        ranked = []
        for points in frame:
            order = sorted(range(len(points)), key=lambda i: size(points[i]), reverse=True)  # equal ones stay in order
            ranked.append(sorted(order[:k]))
        found.append(ranked)
    return found


def maps(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Maps with many equal values, and one with hardly any."""
    noise = torch.randn(shape)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 1e-40, -1e-40, 1.0])
    return {
        "noise": noise,
        "after a ReLU": noise.relu(),
        "mostly zeros": (noise - 2).relu(),
        "8 bits": (noise * 30).round() / 30,
        "four values": torch.randint(0, 4, shape) - 2.0,
        "zeros": torch.zeros(shape),
        "constant": torch.full(shape, -0.37),
        "signs of zero": torch.where(noise > 0, 0.0, -0.0),
        "special values": special[torch.randint(0, len(special), shape)],
        "rising": torch.arange(noise.numel()).reshape(shape) / 7 - 9,
    }


def assert_first_largest(x: Tensor, k: int, values: Tensor, index: Tensor) -> None:
    assert index.dtype == torch.int64
    assert values.dtype == x.dtype
    assert index.tolist() == oracle(x, k)
    torch.testing.assert_close(values, x.flatten(2).gather(2, index), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), SHAPES, ids=str)
def test_of_equal_values_the_first(
    shape: tuple[int, ...], k: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    for x in maps(shape).values():
        x = x.to(dtype).to(memory_format=layout)
        assert_first_largest(x, k, *SeRankAttention(k).top_k(x))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), [((1, 2, 256, 264), 2000), ((1, 2, 256, 264), 16)])
def test_more_points_than_16_bits_count(
    shape: tuple[int, ...], k: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = (torch.randn(shape) - 1.8).relu().to(dtype).to(memory_format=layout)
    assert_first_largest(x, k, *SeRankAttention(k).top_k(x))


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    k=st.integers(1, 30),
    levels=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_size(shape: tuple[int, ...], k: int, levels: int, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.randint(0, levels, shape).to(dtype).to(memory_format=layout)
    assert_first_largest(x, k, *SeRankAttention(k).top_k(x))


@pytest.mark.parametrize(("shape", "k"), SHAPES, ids=str)
def test_positions_are_those_of_the_reference(shape: tuple[int, ...], k: int) -> None:
    count = int(np.prod(shape))
    x = torch.randperm(count).double().reshape(shape) / count  # no two equal
    values, index = SeRankAttention(k).top_k(x)
    assert values.shape == index.shape == (*shape[:2], min(k, shape[2] * shape[3]))
    for b in range(shape[0]):
        for c in range(shape[1]):
            positions = reference.ranked_positions(x[b, c].numpy(), k)
            assert index[b, c].tolist() == [row * shape[3] + column for row, column in positions]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), [((5, 8, 12, 10), 20), ((5, 8, 48, 40), 20), ((5, 40, 32, 32), 40)])
def test_batch_and_memory_format_change_nothing(shape: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
    layer = SeRankAttention(k)
    x = (torch.randn(shape) - 1.5).relu().to(dtype)
    batch = layer.top_k(x)
    alone = [layer.top_k(frame[None]) for frame in x]
    last = layer.top_k(x.contiguous(memory_format=torch.channels_last))
    strided = layer.top_k(torch.stack((x, -x), dim=-1)[..., 0])
    for i, expected in enumerate(batch):
        assert torch.equal(torch.cat([one[i] for one in alone]), expected)
        assert torch.equal(last[i], expected)
        assert torch.equal(strided[i], expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("shape", "k"), [((2, 3, 4, 5), 7), ((2, 3, 16, 9), 7)])
def test_gradients_go_to_the_points_taken(shape: tuple[int, ...], k: int, layout: torch.memory_format) -> None:
    x = (torch.randn(shape, dtype=torch.float64) - 1).relu().to(memory_format=layout).requires_grad_()
    values, index = SeRankAttention(k).top_k(x)
    weights = torch.randn_like(values)
    (values * weights).sum().backward()  # type: ignore[no-untyped-call]
    expected = torch.zeros(*shape[:2], shape[2] * shape[3], dtype=x.dtype).scatter(2, index, weights)
    assert x.grad is not None
    assert torch.equal(x.grad.flatten(2), expected)


class TopK(nn.Module):
    """Positions alone, as a network of their own."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.layer = SeRankAttention(k)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.top_k(x)[1]


SIZES = [(1, 2, 24, 20), (3, 2, 17, 33), (2, 2, 40, 40)]


def test_the_same_positions_in_onnx_runtime(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra serank[export]")
    pytest.importorskip("onnxscript", reason="needs the extra serank[export]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised inside PyTorch 2.13, by its own use of an old name
        torch.onnx.export(
            TopK(12).eval(),
            (torch.randn(2, 2, 16, 12),),
            tmp_path / "top_k.onnx",
            input_names=["x"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}},
            external_data=False,
            dynamo=True,  # PyTorch before 2.9 asks for it
            verbose=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "top_k.onnx", providers=["CPUExecutionProvider"])
    for shape in SIZES:
        for name, x in maps(shape).items():
            if name != "special values":  # ONNX says nothing of NaN
                assert session.run(None, {"x": x.numpy()})[0].tolist() == oracle(x, 12), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_positions_in_an_exported_program(dtype: torch.dtype) -> None:
    height, width = (torch.export.Dim(name, min=4) for name in ("height", "width"))
    sizes = {"x": {0: torch.export.Dim.DYNAMIC, 2: height, 3: width}}
    program = torch.export.export(TopK(12), (torch.randn(2, 2, 16, 12).to(dtype),), dynamic_shapes=sizes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    run = torch.export.load(file).module()
    for shape in SIZES:
        for name, x in maps(shape).items():
            assert run(x.to(dtype)).tolist() == oracle(x.to(dtype), 12), name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_positions_compiled(dtype: torch.dtype) -> None:
    run = torch.compile(TopK(12))
    for shape in SIZES[:2]:
        for name, x in maps(shape).items():
            assert run(x.to(dtype)).tolist() == oracle(x.to(dtype), 12), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "k"), [*SHAPES, ((2, 8, 512, 512), 64)], ids=str)
def test_the_same_positions_on_cuda(
    shape: tuple[int, ...], k: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    layer = SeRankAttention(k)
    for name, x in maps(shape).items():
        x = x.to(dtype).to(memory_format=layout)
        values, index = layer.top_k(x.cuda())
        expected = layer.top_k(x)
        assert torch.equal(index.cpu(), expected[1]), name
        torch.testing.assert_close(values.cpu(), expected[0], rtol=0, atol=0, equal_nan=True)
