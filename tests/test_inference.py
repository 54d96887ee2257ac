"""The inference copy: outputs of the network for any arguments, sizes, batches and precisions; what it refuses."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network import VARIANTS
from test_released_graph import released as released  # a fixture
from torch import Tensor, nn

from serank import SeRankDet
from serank.evaluation import evaluate
from serank.frames import FrameSpec
from serank.inference import InferenceNetwork, fused_network, predict
from serank.inference.fused_conv import FusedConv, can_fold
from serank.inference.fused_network import FusedDDC, FusedStep
from serank.layers.ddc import BRANCHES
from serank.synthetic import SyntheticScenes


def random_network(seed: int = 0, **arguments: Any) -> SeRankDet:
    """A narrow network in eval mode; its batch norms are not the identity, and no gamma is 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SeRankDet(**{"width": 4, **arguments})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("running_mean", "bias", "gamma")):
                value.normal_(0, 0.1, generator=generator)
            elif value.is_floating_point() and value.ndim == 1:
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.ndim == 4:  # signals keep their size, so that deep blocks count
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
    return model.eval()


@torch.no_grad()
def difference(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Largest difference of two networks' logits, over the largest logit."""
    expected, found = model(x), other(x)
    assert found.shape == expected.shape
    return float((expected - found).abs().max() / expected.abs().max())


arguments_ = st.fixed_dictionaries(
    {
        "in_channels": st.integers(1, 3),
        "width": st.integers(1, 9),
        "stem_channels": st.one_of(st.none(), st.integers(1, 4)),
        "rank_offset": st.integers(1, 5),
        "encoder": st.sampled_from(["ddc", "ddc", "plain"]),
        "branches": st.lists(st.sampled_from(BRANCHES), min_size=1, max_size=3, unique=True),
        "merge_kernel": st.sampled_from([1, 3, 5]),
        "theta": st.floats(0, 1),
        "attention": st.sampled_from(["serank", "serank", "after", "none"]),
        "table_size": st.one_of(st.none(), st.integers(1, 64)),
        "fusion": st.sampled_from(["select", "gated", "concat"]),
        "per_channel_fusion": st.booleans(),
        "bias": st.booleans(),
    }
)


@pytest.mark.parametrize("packed", [True, False], ids=["oneDNN", "without"])
@given(arguments_, st.integers(1, 3), st.integers(1, 50), st.integers(1, 50), st.integers(0, 100))
@settings(max_examples=30)
def test_any_arguments_and_sizes(
    packed: bool, arguments: dict[str, Any], batch: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = random_network(seed, **arguments)
    if arguments["attention"] != "none":  # where a frame is padded, points of equal value are ranked by rounding
        height, width = (max(1, side // 16) * 16 for side in (height, width))
    x = torch.randn(batch, model.in_channels, height, width)
    with pytest.MonkeyPatch.context() as patch:
        if not packed:
            patch.setattr(fused_network, "can_pack", lambda device, dtype: False)
        assert difference(model, model.optimize(), x) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_with_the_positional_encoding(name: str) -> None:
    model = random_network(**VARIANTS[name])
    fast = model.optimize()
    for shape in ((1, 64, 80), (2, 48, 32)):
        x = torch.randn(shape[0], model.in_channels, *shape[1:])
        assert difference(model, fast, x) < 1e-5
    # all blocks are known, so that none is left as it was
    assert all(isinstance(step, FusedStep) for step in fast.decoder)
    if VARIANTS[name].get("encoder") != "plain":
        assert all(isinstance(block, FusedDDC) for block in fast.encoder)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


@pytest.mark.usefixtures("topk_ties")
def test_released_graph(released: SeRankDet, shared: Path) -> None:
    expected = np.load(shared / "fixtures" / "released_graph.npz")
    frames = torch.from_numpy(expected["input"])
    found = released.optimize()(frames)
    assert found.std() > 0.01
    for frame in range(2):
        np.testing.assert_allclose(found[frame, 0], expected[f"final_{frame}"], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_same_pixels(dtype: torch.dtype) -> None:
    samples = list(SyntheticScenes(4, 96, 96, targets=(2, 3), size=(3, 8), scr=(20, 40), seed=2))
    model = SeRankDet.from_pretrained("sirst").reconfigured(working_size=None)
    fast = model.optimize(dtype)
    assert fast(torch.randn(1, 1, 32, 32)).dtype == dtype
    masks = [np.stack([network.detect(s.frame).mask for s in samples]) for network in (model, fast)]
    assert masks[0].sum() > 100
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.95


def test_detects_and_evaluates_as_the_network() -> None:
    model = SeRankDet.from_pretrained("sirst").reconfigured(working_size=64, threshold=0.4)
    fast = model.optimize()
    assert (fast.threshold, fast.in_channels, fast.frame_spec) == (0.4, 1, model.frame_spec)
    samples = list(SyntheticScenes(3, 50, 64, targets=(1, 2), size=(3, 8), scr=(10, 30), seed=2))
    np.testing.assert_allclose(
        fast.detect(samples[0].frame).probability, model.detect(samples[0].frame).probability, atol=1e-5
    )
    assert evaluate(fast, samples, curves=False).metrics == pytest.approx(
        evaluate(model, samples, curves=False).metrics, nan_ok=True
    )


def test_input_of_any_layout_and_dtype() -> None:
    model = random_network(in_channels=3)
    fast = model.optimize()
    x = torch.randn(2, 48, 64, 3, dtype=torch.float64).permute(0, 3, 1, 2)[..., ::2]
    expected = fast(x.float().contiguous())
    assert torch.equal(fast(x), expected)
    assert torch.equal(fast(x.float().requires_grad_()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), expected)
    assert not expected.is_inference()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made_here = model.optimize()
    assert torch.equal(made_here(x), expected)


def test_same_result_each_time_and_from_several_threads() -> None:
    fast = random_network().optimize()
    x = torch.randn(4, 1, 64, 64)
    expected = fast(x)
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.extend(fast(x) for _ in range(3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert all(torch.equal(y, expected) for y in found)


def test_the_network_is_left_as_it_is() -> None:
    model = random_network().train()
    model.head.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    fast = model.optimize()
    x = torch.randn(1, 1, 32, 32)
    expected = fast(x)
    assert model.training
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.weight", "head.bias"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(fast(x), expected)


def test_from_other_precisions() -> None:
    model = random_network()
    x = torch.randn(1, 1, 32, 32)
    assert difference(model, copy.deepcopy(model).double().optimize(), x) < 1e-5
    assert difference(model, copy.deepcopy(model).bfloat16().optimize(), x) < 0.2


def test_memory_is_freed_at_once() -> None:
    model = random_network()
    gc.disable()
    try:
        fast = model.optimize()
        gone = weakref.ref(fast)
        fast(torch.randn(1, 1, 16, 16))
        del fast
        assert gone() is None
    finally:
        gc.enable()


class Doubled(nn.Module):
    """A module that is not the library's."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def edit(model: SeRankDet, name: str) -> None:
    """Changes the network in a way that is not its constructor's."""
    block: Any = model.encoder[1]
    step: Any = model.decoder[1]
    if name == "attention":
        model.attention[0] = Doubled()
    elif name == "head":
        model.head = nn.Sequential(model.head, Doubled())  # type: ignore[assignment]
        model.head.weight = model.head[0].weight  # type: ignore[index]
    elif name == "encoder block":
        model.encoder[1] = nn.Sequential(block, Doubled())
    elif name == "branch":
        block.branches["vanilla"].append(Doubled())
    elif name == "activation":
        block.merge[2] = nn.LeakyReLU()
    elif name == "no norm":
        block.branches["difference"][1] = nn.Identity()
    elif name == "norm without statistics":
        norm = nn.BatchNorm2d(8, track_running_stats=False)
        step.reduce[1] = norm
    elif name == "norm without parameters":
        step.refine[1][1] = nn.BatchNorm2d(8, affine=False)
    elif name == "convolution by groups":
        step.refine[2][0] = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    elif name == "padding by reflection":
        step.refine[2][0] = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    elif name == "padding by name":
        step.refine[2][0] = nn.Conv2d(8, 8, 3, padding="same")
    elif name == "longer refinement":
        step.refine.append(Doubled())
    elif name == "hook":
        step.refine[2][0].register_forward_hook(lambda _, __, y: y * 2)
    elif name == "hook inside a chain":
        block.branches["vanilla"][1].register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    elif name == "weight norm":
        nn.utils.parametrizations.weight_norm(step.refine[0][0])
    else:
        layer = block.branches["dilated"][0][0]
        layer.forward = lambda x: nn.Conv2d.forward(layer, x) * 2


EDITS = [
    *("attention", "head", "encoder block", "branch", "activation", "no norm", "norm without statistics"),
    *("norm without parameters", "convolution by groups", "padding by reflection", "padding by name"),
    *("longer refinement", "hook", "hook inside a chain", "weight norm", "forward pass of one module"),
]


@pytest.mark.parametrize("name", EDITS)
def test_what_is_unknown_runs_as_it_is(name: str) -> None:
    model = random_network()
    edit(model, name)
    model.eval()
    x = torch.randn(2, 1, 32, 48)
    assert difference(model, model.optimize(), x) < 1e-5
    if name != "weight norm":  # another form of the same weights
        assert difference(random_network(), model.optimize(), x) > 1e-4


def test_a_subclass_without_a_forward_pass_is_known() -> None:
    class Narrow(SeRankDet):
        def __init__(self) -> None:
            super().__init__(width=2)

    model = Narrow().eval()
    assert difference(model, model.optimize(), torch.randn(1, 1, 32, 32)) < 1e-5


def test_a_subclass_with_a_forward_pass_is_refused() -> None:
    class Other(SeRankDet):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    with pytest.raises(ValueError, match="Other has a forward pass or hooks of its own"):
        Other(width=2).optimize()


@pytest.mark.parametrize("how", ["hook", "pre-hook", "instance"])
def test_what_changes_a_network_s_own_pass_is_refused(how: str) -> None:
    model = SeRankDet(width=2)
    if how == "hook":
        model.register_forward_hook(lambda _, __, y: 2 * y)
    elif how == "pre-hook":
        model.register_forward_pre_hook(lambda _, x: (2 * x[0],))
    else:
        model.forward = torch.zeros_like  # type: ignore[assignment,method-assign]
    with pytest.raises(ValueError, match="SeRankDet has a forward pass or hooks of its own"):
        model.optimize()


def test_refusals() -> None:
    fast = random_network().optimize()
    with pytest.raises(
        ValueError, match=r"dtype must be torch.float32, torch.bfloat16 or torch.float16; got torch.flo"
    ):
        random_network().optimize(torch.float64)
    for shape in ((1, 32, 32), (1, 3, 32, 32), (1, 1, 0, 32)):
        with pytest.raises(ValueError, match="x must have"):
            fast(torch.zeros(shape))
    for refused in (
        *(fast.train, fast.double, fast.state_dict, lambda: fast.to("cpu"), lambda: fast.load_state_dict({})),
        *(lambda: copy.deepcopy(fast), lambda: pickle.dumps(fast)),
    ):
        with pytest.raises(TypeError, match="an inference network can't be trained, moved"):
            refused()
    assert fast.eval() is fast


def test_chains_of_three_are_no_convolution() -> None:
    assert can_fold(random_network().head) is False
    assert can_fold(nn.Sequential()) is False


def test_a_sum_of_parts_is_the_convolution_of_all() -> None:
    weight, bias = torch.randn(5, 6, 3, 3), torch.randn(5)
    parts = torch.randn(2, 3, 2, 9, 7)
    expected = nn.functional.conv2d(parts.flatten(1, 2), weight, bias, padding=2, dilation=2).relu()
    for packed in (True, False):
        conv = FusedConv(weight, bias, padding=(2, 2), dilation=(2, 2), dtype=torch.float32, packed=packed, parts=3)
        total = None
        for part in range(3):
            total = conv.add(parts[:, part].to(memory_format=torch.channels_last), part, total)
        torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # raised inside PyTorch 2.13's inductor
def test_compiled() -> None:
    model = random_network()
    fast = model.optimize(compile=True)
    for shape in ((1, 1, 32, 48), (2, 1, 48, 64)):
        assert difference(model, fast, torch.randn(shape)) < 1e-5


def test_is_a_detector_like_any() -> None:
    fast = random_network().optimize()
    assert isinstance(fast, InferenceNetwork)
    frames = [np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30), np.arange(63, dtype=np.uint8).reshape(7, 9)]
    assert len(fast.detect(frames)) == 2


class Given(nn.Module):
    """Maps its input by a function; has no weights."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "error", "got"),
    [
        (lambda x: x.expand(-1, 2, -1, -1), ValueError, "(1, 2, 6, 9)"),  # a background and a target map
        (lambda x: x[:, :, ::2, ::2], ValueError, "(1, 1, 3, 5)"),
        (lambda x: x[:, 0], ValueError, "(1, 6, 9)"),
        (lambda x: [x], TypeError, "list"),
        (lambda x: {"out": x}, TypeError, "dict"),
    ],
    ids=["two channels", "half the size", "no channels", "list", "dict"],
)
def test_networks_that_give_other_than_logits_of_every_pixel(function: Any, error: type[Exception], got: str) -> None:
    frame = np.zeros((6, 9), np.float32)
    with pytest.raises(error, match=rf"model must map \(1, 1, 6, 9\) to logits \(1, 1, 6, 9\); got {re.escape(got)}"):
        predict(Given(function), [frame], FrameSpec())


def test_a_network_without_weights() -> None:
    frame = np.linspace(0, 1, 54, dtype=np.float32).reshape(6, 9)
    spec = FrameSpec(mean=0.5, std=0.25)
    (probability,) = predict(Given(lambda x: x), [frame], spec)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp((0.5 - frame) / 0.25)), rtol=1e-5)


def test_a_network_that_evaluate_does_not_take() -> None:
    scenes = SyntheticScenes(2, 32, 32, targets=(1, 1))
    with pytest.raises(TypeError, match="got Given without frame_spec, in_channels, threshold, tta"):
        evaluate(Given(lambda x: x), scenes)  # type: ignore[arg-type]


def test_a_compiled_network_is_evaluated_too() -> None:
    model: Any = SeRankDet(width=2).eval()
    scenes = SyntheticScenes(2, 32, 32, targets=(1, 1))
    compiled: Any = torch.compile(model, backend="eager")
    assert evaluate(compiled, scenes, curves=False).metrics == evaluate(model, scenes, curves=False).metrics
