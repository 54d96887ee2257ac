"""`serank convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from serank._version import __version__
from serank.checkpoints.card import short_card
from serank.checkpoints.folder import CONFIG
from serank.serankdet import SeRankDet
from serank.utils.digest import sha256

DETAILS = "Writes safetensors, config and card. The file is read as weights alone: nothing in it is run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="file of the released code, such as best.pth.tar")
    parser.add_argument("output", metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--working-size",
        type=int,
        default=512,
        metavar="PX",
        help="longest side to which frames are scaled: 512 for SIRST and IRSTD-1k, 256 for SIRST-AUG and NUDT-SIRST",
    )
    parser.add_argument("--half", action="store_true", help="store weights in float16, half the size")
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint in OUT")


def run(options: argparse.Namespace) -> int:
    folder = Path(options.output)
    _check_output(folder, options.overwrite)
    model = SeRankDet.from_released(options.path, working_size=options.working_size)
    model.save_pretrained(folder, card=_card(Path(options.path), options), half=options.half)
    print(f"checkpoint {folder}: width {model.config['width']}, frames scaled to {options.working_size} px")
    print(f"Licence and metrics are yours to fill in before publishing: {folder / 'README.md'}")
    return 0


def _check_output(folder: Path, overwrite: bool) -> None:
    """Refuses a folder with something in it that isn't a checkpoint to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        raise FileExistsError(f"{folder}: is not empty and holds no checkpoint; name a new or empty folder")
    if not overwrite:
        raise FileExistsError(f"{folder}: holds a checkpoint; name a new folder, or replace it with --overwrite")


def _card(file: Path, options: argparse.Namespace) -> str:
    """Card with the origin of the weights, and the entries that the user has to add."""
    stored = ", stored in float16" if options.half else ""
    return (
        f"{short_card()}\n"
        "## Origin\n\n"
        f"Weights of the released code of SeRankDet (Dai et al., IEEE TGRS 2024), from the file `{file.name}`, SHA-256 "
        f"`{sha256(file)}`, converted by serank {__version__}{stored}. They were trained with that code, not with "
        "serank.\n\n"
        "## To fill in before publishing\n\n"
        "Converting gives no right to publish. `serank publish` asks for these in the first lines of this card:\n\n"
        "- `license`: what the weights' makers gave them.\n"
        "- `datasets`: what they were trained on; name the split in this text too.\n"
        "- `model-index`: metrics. Converting measures none, and the paper's are not this network's. "
        "`serank evaluate DATA --split SPLIT --checkpoint THIS` measures them; with `--protocol released --resolution "
        f"{options.working_size}` it does so as the released code.\n"
    )
