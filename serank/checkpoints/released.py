"""Checkpoints of the authors' released code (`.pth.tar`): reading them, and the names of their entries here.

The code released with Dai et al., "Pick of the Bunch", IEEE TGRS 2024, differs from the paper's text; `SeRankDet` takes
its graph as arguments. Its files are pickles, which can run any code while they are read. Here they are read with
`torch.load(weights_only=True)` alone, which refuses everything but tensors and
built-in containers; before that, the size of its pickle is bounded.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from serank.checkpoints.weights import non_finite
from serank.errors import CheckpointError
from serank.frames.held import MAX_PIXELS
from serank.layers.attention import positional_values
from serank.utils.checks import check_device
from serank.utils.text import listing

Model = TypeVar("Model", bound=nn.Module)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]: the released code normalises its frames so."""
MAX_BYTES = 2**32
"""Largest file that is read, packed or unpacked: three times 0.44 GB of weights with AdamW's moments, and to spare."""
MAX_PICKLE = 2**24
"""Largest pickle in a file, in bytes, without the tensors' numbers; those of the released code have less than 1 MB."""
MAX_OPERATIONS = 1_000_000
"""Largest number of a pickle's operations, each of which may make an object; the released code's have about 50,000."""

LEVELS = 5
FIRST = "Conv1.cdc_layer.0.conv.weight"
TABLE = "max_channel{}.pos_enc.pos_enc"
TABLE_TOLERANCE = 1e-3
"""Between float32 tables: one rounding of a frequency shifts an angle of up to 511 by 3e-5."""

# names here -> released, {0} the level or step from 0; released ones count levels from 1, and decoder steps from 2
ENCODER = {
    "encoder.{0}.branches.vanilla.": "Conv{1}.conv_layer.",
    "encoder.{0}.branches.difference.0.": "Conv{1}.cdc_layer.0.conv.",
    "encoder.{0}.branches.difference.": "Conv{1}.cdc_layer.",
    "encoder.{0}.branches.dilated.": "Conv{1}.dconv_layer.",
    "encoder.{0}.merge.": "Conv{1}.final_layer.",
    "attention.{0}.query.": "max_channel{1}.fc1.",
    "attention.{0}.key.": "max_channel{1}.fc2.",
    "side_heads.{0}.": "conv{1}.",
}
DECODER = {
    "decoder.{0}.reduce.0.": "Up{1}.up.1.",
    "decoder.{0}.reduce.1.": "Up{1}.up.2.",
    "decoder.{0}.fuse.squeeze.": "neck{1}.conv_squeeze.",
    "decoder.{0}.fuse.expand.": "neck{1}.conv.",
    "decoder.{0}.fuse.": "neck{1}.",
    # one flat list there: convolution, norm, ReLU, three times
    "decoder.{0}.refine.0.0.": "Up_conv{1}.conv.0.",
    "decoder.{0}.refine.0.1.": "Up_conv{1}.conv.1.",
    "decoder.{0}.refine.1.0.": "Up_conv{1}.conv.3.conv.",
    "decoder.{0}.refine.1.1.": "Up_conv{1}.conv.4.",
    "decoder.{0}.refine.2.0.": "Up_conv{1}.conv.6.",
    "decoder.{0}.refine.2.1.": "Up_conv{1}.conv.7.",
}
PREFIXES = {
    "head.": "Conv.",
    **{k.format(i): v.format(i, i + 1) for i in range(LEVELS) for k, v in ENCODER.items()},
    **{k.format(i): v.format(i, i + 2) for i in range(LEVELS - 1) for k, v in DECODER.items()},
}

NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
"""Callables in pickles of NumPy numbers and arrays, as which the released code stores its losses in every file."""
READING = Lock()
"""Held while reading: the stand-ins for `NUMPY` are in a list of PyTorch's that all threads share."""


class NumPyValue:
    """Placeholder for a NumPy value beside the weights: accepts any arguments and state, and ignores them."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def released_name(name: str) -> str:
    """Name in the released code, such as `"Conv.weight"`, of an entry here, such as `"head.weight"`."""
    ours, theirs = next((o, t) for o, t in PREFIXES.items() if name.startswith(o))
    return theirs + name.removeprefix(ours)


def read_released(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights in a checkpoint of the released code.

    Args:
        path: file in PyTorch's zip format or the one before 1.6, with a state dict under `state_dict` or as a whole.
            Other entries, such as an optimizer's, are ignored.

    Returns:
        Tensors on the CPU by released name, `module.` and `decode_head.` stripped.

    Raises:
        FileNotFoundError: no such file.
        serank.errors.CheckpointError: no regular file, larger than `MAX_BYTES`, no PyTorch checkpoint, damaged, one
            whose pickle wants more than tensors and built-in containers or has too many objects, or one without a
            state dict of tensors.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if not file.is_file():
        raise CheckpointError(
            f"{file}: not a file; expected a .pth.tar of the released code. Folders are for from_pretrained"
        )
    content = _unpickle(file)
    # dict's own methods, since a pickle may give its OrderedDicts attributes of these names
    state = dict.get(content, "state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{file}: holds no state dict, neither under 'state_dict' nor as a whole")
    weights: dict[str, Tensor] = {}
    for key, value in dict.items(state):
        if not isinstance(key, str) or not _is_dense(value):
            kind = "of an unusual kind" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
            raise CheckpointError(f"{file}: entry {_label(key)} of the state dict is no dense tensor but {kind}")
        name = re.sub(r"^((module|decode_head)\.)+", "", key)
        if name in weights:
            raise CheckpointError(f"{file}: entry {_label(name)} is there twice, with and without a prefix")
        weights[name] = Tensor.detach(value)
    return weights


def _unpickle(file: Path) -> Any:
    """Content of the file, read without running anything in it."""
    size = file.stat().st_size
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                size = max(size, sum(entry.file_size for entry in archive.infolist()))
        if size > MAX_BYTES:
            raise CheckpointError(
                f"{file}: {size / 1e9:.1f} GB, and a checkpoint of the released code has at most "
                f"{MAX_BYTES / 1e9:.1f}; save its state dict alone"
            )
        _check_pickles(file)
        stand_ins: list[Any] = [(NumPyValue, name) for name in NUMPY]
        with READING, file.open("rb") as opened, torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            # of pickle protocols and of TorchScript: where PyTorch can't go on, it raises too
            warnings.simplefilter("ignore")
            return torch.load(opened, map_location="cpu", weights_only=True, mmap=False)
    except CheckpointError:
        raise
    # on damaged files PyTorch's reader raises many kinds, KeyError and IndexError among them
    except Exception as error:
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{file}: refused, since its pickle wants {_label(wanted[1])}, which is no tensor and no "
                "built-in container. A pickle may run what it names, so such a file can do harm by being read. If you "
                "trust it, save its weights alone where it came from: torch.save({'state_dict': model.state_dict()}, "
                "'weights.pth.tar')"
            ) from None
        # PyTorch's own text advises to read the file without protection; the bare reason is its context
        reason = str(error.__context__ or error).strip().partition(". ")[0] or type(error).__name__
        raise CheckpointError(
            f"{file}: can't be read as a PyTorch checkpoint; truncated, damaged or another kind of file "
            f"({_label(reason)})"
        ) from None


def _check_pickles(file: Path) -> None:
    """Refuses pickles that would make very many objects, by counting their operations; none is carried out."""
    with file.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":  # how PyTorch tells its formats apart
            with zipfile.ZipFile(stream) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith(".pkl"):
                        with archive.open(entry) as packed:
                            _count_operations(file, packed.read(MAX_PICKLE + 1), 1)
        else:
            stream.seek(0)
            # five pickles one after another: magic number, protocol, system, content and the tensors' keys
            _count_operations(file, stream.read(MAX_PICKLE + 1), 5)


def _count_operations(file: Path, content: bytes, pickles: int) -> None:
    stream, count = io.BytesIO(content), 0
    try:
        for _ in range(pickles):
            for _ in pickletools.genops(stream):
                count += 1
                if count > MAX_OPERATIONS:
                    raise CheckpointError(
                        f"{file}: refused, its pickle has more than {MAX_OPERATIONS} operations, and those of the "
                        "released code about 50,000; save its state dict alone"
                    )
    except ValueError as error:
        if len(content) <= MAX_PICKLE or isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{file}: refused, its pickle has more than {MAX_PICKLE} bytes, and those of the released code less than "
            "1 MB; save its state dict alone"
        ) from None


def _is_dense(value: object) -> bool:
    """Whether this is a dense tensor whose numbers are all in the file."""
    if type(value) not in (Tensor, nn.Parameter):
        return False
    tensor = Tensor.detach(value)  # type: ignore[arg-type]
    # an expanded tensor claims any size with a single number, and one of PyTorch's meta device with none
    return (
        tensor.layout == torch.strided
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_complex())
        and tensor.device.type == "cpu"
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    )


def _label(text: object) -> str:
    """Text from a file for an error message: short and on one line."""
    return repr(text[:100])[1:-1] if isinstance(text, str) else f"a {type(text).__name__}"


def load_released(
    build: Callable[..., Model],
    path: str | os.PathLike[str],
    *,
    working_size: int = 512,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    device: str | torch.device = "cpu",
) -> Model:
    """Implements `SeRankDet.from_released` for any class `build` with its arguments and entries."""
    target = check_device(device)
    weights = read_released(path)
    for name, dimensions in ((FIRST, 4), (TABLE.format(1), 2)):
        if name not in weights or weights[name].ndim != dimensions:
            held = ", ".join(_label(key) for key in list(weights)[:5]) or "nothing"
            raise CheckpointError(
                f"{path}: no checkpoint of the released SeRankDet, whose state dict has {name} with {dimensions} "
                f"dimensions; this one begins with {held}"
            )
    width, channels = weights[FIRST].shape[:2]
    side = weights[TABLE.format(1)].shape[0]
    if not 1 <= working_size <= side:
        raise ValueError(
            f"working_size must lie in 1 to {side} px, the side of the file's positional table; got {working_size}"
        )
    try:
        with torch.device("meta"):  # which takes no memory while the sizes may be wrong
            model = build(
                in_channels=channels,
                width=width,
                stem_channels=channels,
                merge_kernel=3,
                table_size=side,
                fusion="gated",
                bias=True,
                mean=mean,
                std=std,
                working_size=working_size,
                repair=False,  # the released code has no such step
                # the released code resizes frames of any size
                scale_range=(working_size / MAX_PIXELS, float(working_size)),
            )
    except ValueError as error:
        raise CheckpointError(f"{path}: no network can be built for its weights: {error}") from error
    _fill(model, weights, side, path)
    return model.to(target).eval()


def _fill(model: nn.Module, weights: Mapping[str, Tensor], side: int, path: str | os.PathLike[str]) -> None:
    """Gives a network on the meta device the weights, on the CPU, after all of them were found to fit."""
    state = model.state_dict()
    tables = {TABLE.format(level + 1): _table(max(1, side // 2**level)) for level in range(LEVELS)}
    expected = {released_name(name): (name, value) for name, value in state.items()}
    expected |= {name: ("the positional table", table) for name, table in tables.items()}
    wrong = [f"{k}: missing in file -> {ours} {_form(v)}" for k, (ours, v) in expected.items() if k not in weights]
    wrong += [f"{_label(k)}: {_form(v)} -> not in model" for k, v in weights.items() if k not in expected]
    wrong += [
        f"{k}: {_form(weights[k])} -> {ours} {_form(v)}"
        for k, (ours, v) in expected.items()
        if k in weights and _form(weights[k]) != _form(v)
    ]
    if wrong:
        shown = listing(wrong, 20, "\n  ")
        raise CheckpointError(
            f"{path}: {len(wrong)} entries don't fit the released SeRankDet (file -> here):\n  {shown}"
        )
    for name, table in tables.items():
        difference = (weights[name].float() - table).abs().max().item()
        if not difference <= TABLE_TOLERANCE:  # so that NaN is refused too
            raise CheckpointError(
                f"{path}: {name} differs by {difference:.3g} from the fixed sinusoidal table, which is computed here; "
                "it was trained or changed, so this file's results can't be had"
            )
    if bad := non_finite({name: weights[name] for name in expected if name not in tables}):
        raise CheckpointError(f"{path}: entries hold NaN or infinity: {bad}; take an earlier checkpoint")
    copies = {
        name: weights[released_name(name)].to(value.dtype, memory_format=torch.contiguous_format, copy=True)
        for name, value in state.items()
    }
    model.load_state_dict(copies, assign=True)


def _table(side: int) -> Tensor:
    """The fixed positional table, `(side, side)` float32."""
    return positional_values(torch.arange(side * side), side, side, torch.float32).view(side, side)


def _form(tensor: Tensor) -> str:
    """Shape, and that a weight is no float; the counts of batch norm, which have no dimension, may be anything."""
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() or not tensor.ndim else ' of integers'}"
