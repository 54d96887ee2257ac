"""Detection: scaling, batching, tiling, components and bad input."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from serank import Detections, SeRankDet
from serank.errors import FrameError
from serank.frames.preparation import FrameSpec
from serank.inference import Detector, find_detections, predict

Float = NDArray[np.float32]


class Brightness(nn.Module):
    """Logits that grow with the pixel's own value, so that what comes out is known; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return self.gain * x[:, :1]


def spots(height: int, width: int, *places: tuple[int, int, int]) -> Float:
    """Black with white squares at (row, column, side)."""
    frame = np.zeros((height, width), np.float32)
    for row, column, side in places:
        frame[row : row + side, column : column + side] = 1
    return frame


def small(**arguments: Any) -> SeRankDet:
    return SeRankDet(**{"width": 4, **arguments}).eval()


def test_detections_of_known_components() -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[2:4, 5:8] = 0.6
    probability[3, 6] = 0.9
    probability[10, 10] = probability[11, 11] = 0.95  # 8-connected: one component
    probability[19, 29] = 0.7
    found = find_detections(probability, probability, threshold=0.5)
    assert len(found) == 3
    np.testing.assert_allclose(found.scores, [0.95, 0.9, 0.7], rtol=1e-6)
    np.testing.assert_array_equal(found.boxes, [[10, 10, 12, 12], [5, 2, 8, 4], [29, 19, 30, 20]])
    np.testing.assert_allclose(found.centroids, [[10.5, 10.5], [6.0, 2.5], [29.0, 19.0]])
    np.testing.assert_array_equal(found.areas, [2, 6, 1])
    np.testing.assert_array_equal(found.mask, probability > 0.5)
    assert [a.dtype.name for a in (found.boxes, found.areas, found.mask)] == ["float32", "int64", "bool"]


def test_minimum_area_leaves_small_ones_out_of_the_mask_too() -> None:
    frame = spots(20, 20, (2, 2, 1), (10, 10, 3))
    found = find_detections(frame, frame, min_area=2)
    assert found.areas.tolist() == [9]
    assert found.mask.sum() == 9


def test_nothing_found() -> None:
    frame = np.zeros((7, 9), np.float32)
    found = find_detections(frame, frame)
    assert (len(found), found.boxes.shape, found.centroids.shape) == (0, (0, 4), (0, 2))
    assert not found.mask.any()
    assert found.to_dict()["detections"] == []


def test_it_prints_on_one_line() -> None:
    frame = spots(12, 16, (2, 3, 2))
    assert repr(find_detections(frame, frame)) == "Detections(1 in a frame of 12x16, threshold=0.5)"


def test_to_dict_is_json() -> None:
    frame = spots(12, 16, (2, 3, 2))
    found = find_detections(frame, frame, threshold=0.25)
    assert json.loads(json.dumps(found.to_dict())) == {
        "height": 12,
        "width": 16,
        "threshold": 0.25,
        "detections": [{"box": [3, 2, 5, 4], "centroid": [3.5, 2.5], "score": 1.0, "area": 4}],
    }


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_save_draws_boxes_and_keeps_an_old_file_on_error(tmp_path: Path, suffix: str) -> None:
    frame = spots(600, 500, (300, 200, 4))
    found = find_detections(frame, frame)
    path = tmp_path / f"picture{suffix}"
    found.save(path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (600, 500, 3)
    lossy = suffix == ".jpg"
    coloured = (pixels.max(axis=2) - pixels.min(axis=2) > 30 * lossy).nonzero()
    assert len(coloured[0]) > 10
    assert coloured[0].min() < 300 < coloured[0].max()
    assert (pixels[300:304, 200:204] >= (200 if lossy else 254)).all()  # the target itself stays visible
    with pytest.raises(ValueError, match="no known image suffix"):
        found.save(tmp_path / "picture.txt")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saved_greys_are_those_of_the_frame(tmp_path: Path) -> None:
    frame = np.linspace(0, 1, 500 * 480, dtype=np.float32).reshape(500, 480)
    find_detections(np.zeros_like(frame), frame).save(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        grey = np.asarray(picture.convert("RGB"))
    assert (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(grey[..., 0], np.minimum(np.rint(255 * frame), 254))


def test_save_enlarges_small_frames(tmp_path: Path) -> None:
    frame = spots(40, 100, (0, 0, 1), (39, 99, 1))
    find_detections(frame, frame).save(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (500, 200)


def test_frames_are_normalised_scaled_and_scaled_back() -> None:
    model = Brightness()
    spec = FrameSpec(mean=0.5, std=0.25, working_size=40)
    frame = spots(60, 80, (20, 30, 12))
    probability = predict(model, [frame], spec)[0]
    assert model.shapes == [(1, 1, 30, 40)]
    assert probability.shape == (60, 80)
    np.testing.assert_allclose(probability[24, 36], 1 / (1 + np.exp(-20.0)), rtol=1e-5)
    np.testing.assert_allclose(probability[0, 0], 1 / (1 + np.exp(20.0)), rtol=1e-5)
    found = find_detections(probability, frame)
    np.testing.assert_allclose(found.centroids, [[35.5, 25.5]], atol=0.5)


def test_equal_sizes_run_as_batches_and_the_order_is_kept() -> None:
    model = Brightness()
    frames = [spots(16 + 16 * (i % 2), 24, (i, i, 2)) for i in range(7)]
    together = predict(model, frames, FrameSpec(), batch_size=3)
    assert sorted(model.shapes) == [(1, 1, 16, 24), (3, 1, 16, 24), (3, 1, 32, 24)]
    for frame, probability in zip(frames, together, strict=True):
        np.testing.assert_array_equal(probability > 0.5, frame > 0.5)


def test_large_frames_are_tiled_and_blend_to_the_same() -> None:
    model = Brightness()
    rng = np.random.default_rng(0)
    frame = rng.random((150, 333), dtype=np.float32)
    whole = predict(model, [frame], FrameSpec(mean=0.4))[0]
    tiled = predict(model, [frame], FrameSpec(mean=0.4, tile=64, overlap=16))[0]
    assert set(model.shapes[1:]) == {(1, 1, 64, 64)}
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    model.shapes.clear()
    smaller = predict(model, [frame], FrameSpec(mean=0.4, tile=100, overlap=10))[0]
    assert set(model.shapes) == {(1, 1, 80, 96)}  # 2 and 4 of them, rounded up to 16
    np.testing.assert_allclose(smaller, whole, atol=1e-6)


def test_strips_narrower_than_a_tile() -> None:
    frames = list(np.random.default_rng(0).random((3, 20, 200), dtype=np.float32))
    tiled = predict(Brightness(), frames, FrameSpec(tile=64, overlap=0))
    np.testing.assert_allclose(tiled, predict(Brightness(), frames, FrameSpec()), atol=1e-6)


def test_lists_give_what_single_frames_give() -> None:
    model = small()
    rng = np.random.default_rng(1)
    frames = [rng.random(shape, dtype=np.float32) for shape in ((40, 50), (33, 47), (40, 50), (16, 16))]
    together = model.detect(frames)
    assert isinstance(together, list)
    for frame, found in zip(frames, together, strict=True):
        np.testing.assert_allclose(found.probability, model.detect(frame).probability, atol=1e-5)
    assert model.detect([]) == []


def test_kinds_of_image_agree(tmp_path: Path) -> None:
    model = small()
    pixels = np.random.default_rng(2).integers(0, 256, (40, 48), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    expected = model.detect(pixels).probability
    assert expected.shape == (40, 48)
    sources: list[Any] = [
        tmp_path / "frame.png",
        str(tmp_path / "frame.png"),
        Image.fromarray(pixels),
        pixels[..., None],
        np.repeat(pixels[..., None], 3, axis=2),
        pixels.astype(np.float64) / 255,
        torch.from_numpy(pixels),
    ]
    for source in sources:
        np.testing.assert_allclose(model.detect(source).probability, expected, atol=1e-5)


def test_three_channel_networks_take_grey_frames() -> None:
    model = small(in_channels=3, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert model.detect((np.arange(400) % 256).reshape(20, 20).astype(np.uint8)).probability.shape == (20, 20)


def test_threshold_of_the_checkpoint_is_the_default() -> None:
    frame = np.random.default_rng(3).random((32, 32), dtype=np.float32)
    model = small(threshold=0.0)
    assert model.detect(frame).mask.all()
    assert not model.detect(frame, threshold=1.0).mask.any()


def test_training_mode_comes_back() -> None:
    model = small().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.detect(np.arange(256).reshape(16, 16).astype(np.uint8))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_outside_its_range(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\]"):
        small().detect(np.zeros((16, 16), np.uint8), threshold=threshold)


@pytest.mark.parametrize("name", ["min_area", "batch_size"])
def test_counts_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1; got 0"):
        small().detect(np.zeros((16, 16), np.uint8), **{name: 0})  # type: ignore[call-overload]


def test_bad_frames_are_refused(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        model.detect(tmp_path / "nowhere.png")
    with pytest.raises(FrameError, match="NaN"):
        model.detect(np.full((8, 8), np.nan))
    with pytest.raises(FrameError, match="empty side"):
        model.detect(np.zeros((0, 8)))
    with pytest.raises(TypeError, match="got dict"):
        model.detect({})  # type: ignore[call-overload]


def test_detections_are_what_the_package_exports() -> None:
    assert isinstance(small().detect(np.arange(64).reshape(8, 8).astype(np.uint8)), Detections)


def test_frozen_parts_stay_frozen() -> None:
    model = small().train()
    model.encoder.eval()
    model.detect(np.arange(256).reshape(16, 16).astype(np.uint8))
    assert model.decoder.training
    assert not any(module.training for module in model.encoder.modules())


def test_a_batch_takes_no_more_than_a_tile() -> None:
    model = Brightness()
    predict(model, [np.zeros((40, 40), np.float32)] * 5, FrameSpec(tile=64, overlap=16), batch_size=8)
    assert [shape[0] for shape in model.shapes] == [2, 2, 1]
    with pytest.raises(ValueError, match=r"psd' has no known image suffix"):
        find_detections(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)).save("x.psd")


def test_16_bit_frames_are_found_like_8_bit_ones() -> None:
    model = SeRankDet.from_pretrained("sirst")
    for file in ("cloud_320x240.png", "sea_640x512.png"):
        with Image.open(Path(__file__).parents[1] / "examples" / "frames" / file) as image:
            eight = np.asarray(image)
        deep = (7000 + 4 * eight.astype(np.int64)).astype(np.uint16)
        few, many = model.detect(eight), model.detect(deep)
        for x, y in few.centroids:
            assert np.hypot(*(many.centroids - (x, y)).T).min() < 1


def probability(model: Detector, frame: Float) -> Tensor:
    return torch.from_numpy(model.detect(frame).probability)


NOISE = np.random.default_rng(0).random((32, 48), np.float32)


def test_detect_runs_the_very_network() -> None:
    model = small()
    before = probability(model, NOISE)
    x = model.frame_spec.normalise(torch.from_numpy(NOISE)[None, None], 1)
    with torch.no_grad():
        torch.testing.assert_close(before, model(x).sigmoid()[0, 0], atol=1e-6, rtol=0)
    handle = model.head.register_forward_hook(lambda _, __, output: output * 2)
    assert (probability(model, NOISE) - before).abs().max() > 1e-3
    handle.remove()
    assert torch.equal(probability(model, NOISE), before)
    model.head.weight.data.mul_(-100)
    assert (probability(model, NOISE) - before).abs().max() > 1e-3


def test_maps_are_channels_last() -> None:
    model = small(in_channels=3)
    expected = model.detect(NOISE).probability
    formats: list[bool] = []
    for module in (model.encoder[0], model.attention[1], model.head):
        module.register_forward_hook(
            lambda _, inputs, __: formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    assert np.array_equal(model.detect(NOISE).probability, expected)
    assert formats == [True] * 3


def test_a_subclass_s_own_forward_pass_is_run() -> None:
    class Inverted(SeRankDet):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    model = small()
    other = Inverted(width=4)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(probability(other, NOISE), 1 - probability(model, NOISE), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = small()
    expected = probability(model, NOISE)
    seen = []
    model.head.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    tolerance = 1e-5 if dtype == torch.float64 else 0.05  # bfloat16 keeps 8 bits
    torch.testing.assert_close(probability(model.to(dtype), NOISE), expected, atol=tolerance, rtol=0)
    assert seen == [dtype]


def test_training_mode_stays_and_the_result_is_that_of_eval_mode() -> None:
    model = small()
    expected = probability(model, NOISE)
    model.train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    assert torch.equal(probability(model, NOISE), expected)
    assert [module.training for module in model.modules()] == modes


def test_threads_share_a_network_in_training_mode() -> None:
    model = small()
    expected = probability(model, NOISE)
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    first_is_in, second_has_left = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        if not first_is_in.is_set():
            first_is_in.set()
            assert second_has_left.wait(60)

    hook = model.encoder[0].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(probability, model, NOISE)
        assert first_is_in.wait(60)
        second = probability(model, NOISE)
        assert not model.training
        second_has_left.set()
        assert torch.equal(first.result(), expected)
    assert torch.equal(second, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.training
    hook.remove()


def test_weights_made_in_inference_mode_work() -> None:
    torch.manual_seed(0)
    expected = probability(small(), NOISE)
    torch.manual_seed(0)
    with torch.inference_mode():
        model = small()
    assert torch.equal(probability(model, NOISE), expected)
