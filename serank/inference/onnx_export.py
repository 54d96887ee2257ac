"""Networks as files for other runtimes: ONNX, and PyTorch's exported programs.

Both hold the network alone, `(B, C, H, W)` normalised frames to `(B, 1, H, W)` logits, and beside it, as JSON under
`METADATA`, the numbers that turn a frame into its input and its logits into detections.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from serank._version import __version__
from serank.frames import scaling
from serank.inference.detector import Detector
from serank.layers.ddc import DifferenceConv2d
from serank.models.config import to_json
from serank.models.network import SeRankNet
from serank.utils.files import replacing

if TYPE_CHECKING:
    from onnx import ModelProto

METADATA = "serank"
"""Key of the JSON in an ONNX file's metadata; in an exported program the file `serank.json`."""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
OPSETS = (18, 23)
"""Least and latest that PyTorch's exporter writes."""
SMALLEST_SIDE = {"onnx": 1, "torch": 17}
"""Of frames; below 17 the deepest map is one pixel wide, for which torch.export wants a graph of its own."""
EXPORTER = (2, 7)
"""Least PyTorch; the exporter of 2.6 can't hold a range of sizes."""
TOLERANCE = 1e-4
"""Largest difference from PyTorch's logits, relative where these exceed 1."""


def export(
    network: SeRankNet,
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    *,
    format: str = "onnx",
    opset: int | None = None,
) -> None:
    """Writes a network for another runtime; arguments and errors are those of `SeRankDet.export`, but for

    Args:
        network: left as it is; a copy is exported, in eval mode and float32.
        path: file to write.
        metadata: JSON-able, kept in the file under `METADATA`; see `preprocessing`.
        format: `"onnx"` or `"torch"`.
        opset: of the ONNX file.
    """
    target = Path(path)
    if format not in SUFFIXES:
        raise ValueError(f'format must be "onnx" or "torch"; got {format!r}')
    if target.suffix != SUFFIXES[format]:
        raise ValueError(f"path must end in {SUFFIXES[format]} for format={format!r}; got {target}")
    if format == "torch" and opset is not None:
        raise ValueError(f'opset is for format="onnx"; leave it out; got {opset}')
    if opset is not None and not OPSETS[0] <= opset <= OPSETS[1]:
        raise ValueError(f"opset must be {OPSETS[0]} to {OPSETS[1]}; got {opset}")
    if tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) < EXPORTER:
        least = ".".join(map(str, EXPORTER))
        raise RuntimeError(
            f"export needs PyTorch {least} or newer, for frames of any size; this is {torch.__version__}"
        )
    description = json.dumps(dict(metadata))
    if format == "torch":
        with replacing(target) as temporary:
            _write_program(network, temporary, description)
        return
    require_onnx()  # before the network is traced, which takes seconds
    with replacing(target) as temporary, _quiet():
        _write_onnx(network, temporary, description, opset)


def preprocessing(detector: Detector, name: str | None = None) -> dict[str, Any]:
    """What a program needs beside the network to detect as `SeRankDet.detect` does, JSON-able.

    Args:
        detector: says how frames are prepared.
        name: what to call it.

    Returns:
        `name`, `serank` (the version that wrote it), `in_channels`, the attributes of `serank.frames.FrameSpec`,
        `grey` (the constants of `serank.frames.scaling`, by which values become grey), `threshold`, `tta` and
        `score_calibration`.
    """
    spec = {key: to_json(value) for key, value in asdict(detector.frame_spec).items()}
    about = {"name": name, "serank": __version__, "in_channels": detector.in_channels}
    grey = {
        "unit_median": scaling.UNIT_MEDIAN,
        "unit_contrast": scaling.UNIT_CONTRAST,
        "noise_steps": scaling.NOISE_STEPS,
        "noise_spreads": list(scaling.NOISE_SPREADS),
        "mean_difference": scaling.MEAN_DIFFERENCE,
        "clipped_quantile": scaling.CLIPPED_QUANTILE,
        "step_quantiles": list(scaling.STEP_QUANTILES),
        "most_pixels": scaling.MOST_PIXELS,
        "stray": scaling.STRAY,
        "tolerance": scaling.TOLERANCE,
    }
    found = {"threshold": detector.threshold, "tta": detector.tta}
    return {**about, "grey": grey, **spec, **found, "score_calibration": to_json(detector.score_calibration)}


def _write_program(model: SeRankNet, path: Path, description: str) -> None:
    network = _frozen(model)
    example = _noise(network, 64, 80)
    program = torch.export.export(network, (example,), dynamic_shapes=_dynamic("torch"))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(program, path, extra_files={f"{METADATA}.json": description})
    loaded = torch.export.load(path).module()
    x = _noise(network, 49, 83)
    expected = network(x)
    _compare(loaded(x), expected)
    _compare(torch.cat([loaded(frame[None]) for frame in x]), expected)  # the example was a batch of four


def _write_onnx(model: SeRankNet, path: Path, description: str, opset: int | None) -> None:
    import onnx

    network = _frozen(model).cpu()
    program = torch.onnx.export(
        network,
        (_noise(network, 64, 80),),
        input_names=["x"],
        output_names=["logits"],
        opset_version=opset,
        dynamic_shapes=_dynamic("onnx"),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto: ModelProto = program.model_proto
    for thing in (proto.graph, *proto.graph.node, *proto.graph.value_info):
        del thing.metadata_props[:]  # where each operator came from, with paths of this machine
    onnx.helper.set_model_props(proto, {METADATA: description})
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)
    _compare_onnx(path, network)


def require_onnx() -> None:
    """Does nothing where ONNX files can be written and run.

    Raises:
        ImportError: they can't; says how to install what is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"ONNX files need packages that can't be imported ({error}); run: pip install 'serank[export]'"
        ) from error


def _frozen(model: SeRankNet) -> SeRankNet:
    """A copy in eval mode and float32, without gradients, its difference convolutions as `nn.Conv2d`."""
    network: SeRankNet = copy.deepcopy(model).eval().float().requires_grad_(False)
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, DifferenceConv2d):
                setattr(module, name, _ordinary_convolution(child))
    return network


def _ordinary_convolution(difference: DifferenceConv2d) -> nn.Conv2d:
    weight, bias = difference.kernel()
    conv = nn.Conv2d(difference.in_channels, difference.out_channels, 3, padding=1, bias=bias is not None)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def _dynamic(format: str) -> dict[str, Any]:
    """Sizes that may change, and their least values."""
    least = SMALLEST_SIDE[format]
    dimension = torch.export.Dim
    # torch.export takes any batch at run time, but some versions of it find that 1 is below the least that they assume
    # in tracing, and refuse a bound that says so; ONNX's exporter writes the bound's name
    batch = dimension.DYNAMIC if format == "torch" else dimension("batch", min=1)
    return {"x": {0: batch, 2: dimension("height", min=least), 3: dimension("width", min=least)}}


def _noise(network: SeRankNet, height: int, width: int) -> Tensor:
    """Four frames of noise where the network is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, network.in_channels, height, width, generator=generator)
    return x.to(network.head.weight.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes, which say nothing to those who call them through serank."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # raised inside PyTorch 2.13, by its own use of an old name
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
            yield
    finally:
        logging.disable(before)


def _compare_onnx(path: Path, network: SeRankNet) -> None:
    """Runs the file in ONNX Runtime."""
    import onnxruntime

    x = _noise(network, 49, 83)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    _compare(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), network(x))


def _compare(written: Tensor, expected: Tensor) -> None:
    """Refuses a file that gives other logits in more than one of the four frames.

    Not in one: where two values of a channel are equal but for rounding, another point may be ranked.
    """
    difference = (written - expected).abs().flatten(1).amax(1).sort().values[-2]
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise RuntimeError(
            f"the exported file's logits differ from the network's by {difference:.2g}, more than {limit:.2g}"
        )
