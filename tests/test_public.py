"""What users rely on: public names, a quiet and light import, and the README's code."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import serank
from serank import SeRankDet
from serank.synthetic import SyntheticScenes

ROOT = Path(__file__).parents[1]
SNAPSHOT = Path(__file__).parent / "data" / "public_names.json"


def test_public_names_are_still_there() -> None:
    names = {module: sorted(importlib.import_module(module).__all__) for module in json.loads(SNAPSHOT.read_text())}
    assert names == json.loads(SNAPSHOT.read_text()), "a public name came or went: say so in CHANGELOG.md"


@pytest.mark.parametrize("name", serank.__all__)
def test_public_names_are_documented(name: str) -> None:
    assert getattr(serank, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        serank.nothing  # type: ignore[attr-defined]  # noqa: B018


IMPORTS = """
import contextlib, io, sys, time
import serank, serank.cli
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    serank.cli.main(["--help"])
assert "detect" in shown.getvalue()
assert time.process_time() < 0.5, "the command's help is slow"
assert not {"torch", "numpy", "PIL"} & set(sys.modules), "the command's help imports PyTorch"
assert set(serank.__all__) <= set(dir(serank))

import torch
before = set(sys.modules), torch.get_default_dtype(), torch.get_num_threads()
serank.SeRankDet
assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads())
heavy = {"huggingface_hub", "matplotlib", "scipy.ndimage", "scipy.optimize", "tqdm"} & set(sys.modules) - before[0]
assert not heavy, heavy

import builtins, socket
real = builtins.open, socket.socket
def refuse(*a, **k): raise AssertionError("opened something")
socket.socket = builtins.open = refuse
serank.SeRankDet(width=4)
builtins.open, socket.socket = real

serank.metrics.DetectionMetrics, serank.train.fit, serank.datasets.FolderDataset
"""


def test_import_is_quiet_and_light_and_submodules_come_at_first_use() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def code_blocks(page: str) -> list[str]:
    """The Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page)])
def test_code_in_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # what the README's reader has: a frame, a recording, and a folder of frames and masks with two lists
    np.save(tmp_path / "recording.npy", np.arange(30 * 48, dtype=np.uint16).reshape(30, 6, 8))
    shutil.copy(ROOT / "examples" / "frames" / "sky_256x256.png", tmp_path / "frame.png")
    names = []
    for kind in ("images", "masks"):
        (tmp_path / "my_frames" / kind).mkdir(parents=True)
    for sample in SyntheticScenes(10, 96, 128, targets=(1, 2), size=(3, 8), scr=(8, 30)):
        names.append(sample.name)
        for kind, values in (("images", sample.frame), ("masks", sample.mask.astype(np.float32))):
            file = tmp_path / "my_frames" / kind / f"{sample.name}.png"
            Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(file)
    (tmp_path / "my_frames" / "train.txt").write_text("\n".join(names[:8]))
    (tmp_path / "my_frames" / "val.txt").write_text("\n".join(names[8:]))
    monkeypatch.chdir(tmp_path)
    SeRankDet.from_pretrained("sirst").save_pretrained("checkpoints/mine")
    blocks = code_blocks(page)
    runnable = [block for block in blocks if "path/to" not in block]  # those need a data set
    assert len(runnable) >= (4 if page == "README.md" else 0)
    namespace: dict[str, object] = {}
    for block in runnable:
        exec(compile(re.sub(r"epochs=\d+", "epochs=1", block), page, "exec"), namespace)  # enough to see it run
    assert len(blocks) - len(runnable) <= 1
