"""The drivers in benchmarks/ run, on the smallest budget there is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from serank import SeRankDet
from serank.datasets import write_folder
from serank.synthetic import SyntheticScenes

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import ablations
import box_masks
import busy
import ranges
import symmetry
import video

SMALL = ["--epochs", "1", "--width", "2", "--crop", "32", "--working-size", "64", "--batch-size", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes = SyntheticScenes(6, 64, 64, targets=(1, 2), size=(3, 8), scr=(8, 30), seed=1)
    root = tmp_path / "frames"
    write_folder(scenes, root)
    names = [scene.name for scene in scenes]
    (root / "train.txt").write_text("\n".join(names[:4]))
    (root / "val.txt").write_text("\n".join(names[4:]))
    return root


def test_a_driver_starts_as_a_script() -> None:
    """Its folder comes first on the path: a file named as a module that PyTorch looks for, such as cuda, breaks all."""
    script = Path(__file__).parents[1] / "benchmarks" / "topk.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_every_ablation_builds() -> None:
    sizes = {
        name: sum(p.numel() for p in SeRankDet(width=4, **row.arguments).parameters())
        for name, row in ablations.ROWS.items()
    }
    assert len(set(sizes.values())) > 10
    assert sizes["lsff"] < sizes["baseline"] < sizes["ddc"] < sizes["full"] + 10_000


def test_ablation_driver(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    command = [str(folder), "--output", str(output), "--rows", "full", "after", "--seeds", "0", "1", *SMALL]
    ablations.main(command)
    text = (output / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "1 epochs on `train` of frames" in text
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
    results = json.loads((output / "results.json").read_text())
    assert {name: len(rows) for name, rows in results.items()} == {"full": 2, "after": 2}
    before = (output / "full-0" / "last.pt").stat().st_mtime_ns
    ablations.main(command)  # nothing is trained twice
    assert (output / "full-0" / "last.pt").stat().st_mtime_ns == before
    assert (output / "table.md").read_text() == text
    ablations.main([*command[:3], "--rows", "full", "--seeds", "0", "1", *SMALL])  # the other row stays in the table
    assert (output / "table.md").read_text() == text
    with pytest.raises(SystemExit, match="use another --output"):
        ablations.main([*command, "--epochs", "2"])


def test_busy_driver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--widths", "2", "--workers", "0", "--crop", "32", "--working-size", "64", "--batch", "2"]
    busy.main([str(folder), *sizes])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 |")]
    assert [row[1] for row in rows] == ["in memory", "decoded anew"]
    assert all(0 < float(row[4].rstrip("%")) < 100 for row in rows)


def test_box_masks_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    margins = ["--margins", "0", "--box-fractions", "0.3", "--point-fractions", "0.3"]
    box_masks.main([str(folder), "--split", "train", *margins])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["box", "box + 0 px, 0.3", "point, 0.3"]
    whole, rule = (float(line.split("|")[2].split(",")[0]) for line in lines[2:4])
    assert 0 < whole < rule <= 1  # synthetic targets are blurred discs, which do not fill their boxes


def test_symmetry_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start"
    SeRankDet(width=2, working_size=64).save_pretrained(start)
    output = tmp_path / "out"
    command = [str(folder), "--checkpoint", str(start), "--output", str(output), "--epochs", "1", "--crop", "32"]
    command += ["--batch-size", "2"]
    symmetry.main([*command, "--rows", "soft", "both-axes"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| masks alone",
        "| and soft targets, the row above over eight passes",
        "| attention averaged over both axes",
    ]
    assert len(list((output / "masks" / "maps").glob("*.png"))) == 4
    before = (output / "masks" / "last.pt").stat().st_mtime_ns
    with pytest.raises(SystemExit, match="use another --output"):  # another budget's figures aren't this one's
        symmetry.main([*command, "--rows", "soft", "--seed", "1"])
    symmetry.main(command)  # nothing is trained twice
    assert (output / "masks" / "last.pt").stat().st_mtime_ns == before
    assert len((output / "table.md").read_text().splitlines()) == 4 + len(symmetry.ROWS)


def test_symmetric_attention_is_the_transposed_maps_own() -> None:
    torch.manual_seed(0)
    plain = SeRankDet(width=2).eval()
    model = symmetry.both_axes(copy.deepcopy(plain))
    blocks = [module for module in model.modules() if isinstance(module, symmetry.BothAxes)]
    assert len(blocks) == 5
    x = torch.randn(1, 2, 12, 20)
    assert torch.allclose(blocks[0].attention(x), blocks[0].attention(x.transpose(2, 3)), atol=1e-6)
    frames = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model.optimize()(frames), model(frames), atol=1e-4)
        assert not torch.allclose(plain(frames), model(frames), atol=1e-4)


def test_ranges_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = ranges.main([str(folder), "--split", "train", "--limit", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("`general` on 3 frames")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert len({row[0] for row in rows}) == len(rows) == 13
    assert rows[0][0] == "8 bits"
    assert all(0 <= float(row[3]) <= 1 for row in rows)
    missed = [row for row in rows if row[-1].endswith("missed")]
    assert status == bool(missed)
    assert lines[-1] == f"{len(missed)} of 12 versions miss a bar"
    for row in rows[1:]:
        assert abs(100 * (float(row[3]) - float(rows[0][3])) - float(row[6])) < 0.2


def test_ranges_bars() -> None:
    plain = {"iou": 0.8, "pd": 0.9}
    assert ranges.missed("clean", {"iou": 0.7801, "pd": 0.9}, plain) == []
    assert ranges.missed("clean", {"iou": 0.7799, "pd": 0.8799}, plain) == ["iou", "pd"]
    assert ranges.missed("defect", {"iou": 0.1, "pd": 0.8601}, plain) == []
    assert ranges.missed("defect", {"iou": 0.8, "pd": 0.8599}, plain) == ["pd"]


def test_ranges_versions_are_what_they_say() -> None:
    grey = np.random.default_rng(0).integers(40, 90, (100, 120)).astype(np.uint8)
    mask = np.zeros(grey.shape, bool)
    mask[30, 84] = mask[50, 0] = True  # where the disc and the strip would lie
    versions = {name: pixels for _, name, pixels in ranges.recasts(grey, mask, np.random.default_rng(0))}
    counts = versions["14-bit counts"]
    assert counts.max() < 2**14
    assert versions["12-bit counts"].max() < 2**12
    shares = {name: np.mean(pixels != counts) for name, pixels in versions.items() if name.startswith("counts,")}
    assert shares["counts, 0.2% dead pixels"] == pytest.approx(0.002, rel=0.3)
    assert shares["counts, hot disc of 0.5%"] == pytest.approx(0.005, rel=0.1)
    assert shares["counts, letterbox of 4%"] == pytest.approx(0.04, rel=0.2)
    for name in ("counts, hot disc of 0.5%", "counts, letterbox of 4%"):
        assert (versions[name] == counts)[mask].all()


def test_video_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="reading clips needs the extra `video`")
    video.main(["--output", str(tmp_path), "--clips", "1", "--frames", "8", "--side", "96", "--glints", "2"])
    text = (tmp_path / "video.md").read_text()
    assert text in capsys.readouterr().out
    rows = {cells[0]: cells[1:] for line in text.splitlines() if len(cells := line.strip("| ").split(" | ")) > 1}
    hits, false = ([float(rows[rule][i]) for rule in ("none", "2/3", "3/5", "4/6")] for i in (0, 1))
    assert 1 >= hits[0] >= max(hits[1:]) >= 0  # confirming leaves out, and never adds
    assert false[0] >= max(false[1:])
    assert false[0] > false[3]
    assert all(float(rows[way][0]) > 0 for way in ("table", "--track", "--track --video"))


def test_clips_hold_their_targets() -> None:
    still, places = video.make_clip(0, 6, 48, targets=2, noise=0.0, glints=0.0)
    without, _ = video.make_clip(0, 6, 48, targets=0, noise=0.0, glints=0.0)
    assert places.shape == (6, 2, 2)
    for frame, empty, now in zip(still, without, places, strict=True):
        for x, y in now.round().astype(int):
            assert frame[y, x] - empty[y, x] > 0.05
