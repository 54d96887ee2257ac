"""The drivers that measure time run at tiny sizes: the reference agrees with serank, and results are written."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import checkpoints
import gpu
import measure
import speed
import throughput
import topk
import training_step
import unfused
import where_time_goes

from serank import SeRankDet
from serank.checkpoints.folder import bundled


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in this process, where a new one would take seconds to start."""
    for module in (speed, throughput, training_step):
        monkeypatch.setattr(module, "apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(speed, "peak", lambda dtype, device: 1e9)


@torch.no_grad()
@pytest.mark.parametrize("name", measure.NETWORKS)
@pytest.mark.usefixtures("topk_ties")
def test_the_reference_gives_serank_s_outputs(name: str) -> None:
    model = measure.serank_network(name, width=4)
    reference = unfused.unfused_form(model)
    x = torch.randn(2, model.in_channels, 64, 96)
    for found, expected in zip(reference(x), model.forward_deep(x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in reference.parameters()) == sum(p.numel() for p in model.parameters())
    if name == "released":
        torch.testing.assert_close(measure.reference_network(4)(x)[-1], reference(x)[-1])


def test_the_released_graph_has_its_parameters_and_arithmetic() -> None:
    with torch.device("meta"):
        reference = unfused.UnfusedSeRankDet()
        assert sum(p.numel() for p in reference.parameters()) == pytest.approx(109e6, rel=0.01)
        x = torch.empty(1, 3, 512, 512)
        assert measure.flops(reference.eval(), x) == pytest.approx(1147e9, rel=0.02)


@pytest.mark.skipif(
    not measure.STATUS.exists(), reason="the system doesn't count a process's peak memory as Linux does"
)
def test_rows_are_added_and_not_measured_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--output", str(tmp_path), "--width", "2", "--sizes", "32", "--batches", "1", "--repeats", "2"]
    speed.main([*command, "--networks", "released", "--dtypes", "bfloat16"])
    first = json.loads((tmp_path / "speed.json").read_text())
    assert len(first["rows"]) == 1
    speed.main([*command, "--networks", "released", "paper", "--dtypes", "float32"])
    out = capsys.readouterr().out
    assert "paper: outputs agree to" in out
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["about"]["torch"] == torch.__version__
    assert first["rows"][0] in found["rows"]
    cases = [(r["network"], r["reference"], r["dtype"]) for r in found["rows"]]
    assert cases == [("released", "released", d) for d in ("bfloat16", "float32")] + [
        ("paper", reference, "float32") for reference in ("own", "released")
    ]
    row = found["rows"][0]
    assert len(row["seconds"]) == len(row["reference_seconds"]) == 2
    assert row["reference_flops"] > row["flops"] > 0
    text = (tmp_path / "speed.md").read_text()
    assert text.count("\n| released |") == 2
    assert text.strip() in out
    changed = found | {"about": {"processor": "another"}}
    (tmp_path / "speed.json").write_text(json.dumps(changed))
    with pytest.raises(SystemExit, match="use another --output"):
        speed.main(command)


def test_another_result_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SeRankDet.forward
    monkeypatch.setattr(SeRankDet, "forward", lambda self, x: forward(self, x) * 1.001)
    monkeypatch.setattr(SeRankDet, "optimize", lambda self, *_, **__: self)
    with pytest.raises(SystemExit, match="outputs differ by"):
        speed.main(["--output", str(tmp_path), "--width", "2", "--networks", "paper"])
    assert not list(tmp_path.iterdir())


def test_where_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    where_time_goes.main(["--width", "2", "--size", "32", "--repeats", "1", "--network", "paper"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [row[0].strip("| ") for row in rows[1:]]
    assert names == [*where_time_goes.KINDS, where_time_goes.OTHER, "all"]
    for column in range(1, 4):
        shares = [float(row[column].split("%")[0]) for row in rows[1:-1]]
        assert sum(shares) == pytest.approx(100, abs=0.5)
        assert shares[0] > 0
    assert rows[names.index("batch norm") + 1][2].startswith("0.0%")  # folded


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("mkldnn::_convolution_pointwise_", "convolutions"),
        ("aten::topk", "top-k, sort and gather"),
        ("aten::bmm", "attention products"),
        ("aten::native_batch_norm", "batch norm"),
        ("aten::upsample_bilinear2d", "resampling"),
        ("aten::cat", "copies and concatenations"),
        ("aten::add_", "element-wise and reductions"),
        ("aten::mean", "element-wise and reductions"),
        ("aten::clamp_min_", "element-wise and reductions"),
    ],
)
def test_operators_have_their_kind(operator: str, kind: str) -> None:
    assert where_time_goes.kind(operator) == kind


def test_every_way_of_ranking_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps: list[tuple[Tensor, int]] = [
        (torch.randn(2, 3, 64, 64, generator=generator), 8),
        (torch.randn(1, 2, 64, 64, generator=generator).relu(), 40),
        (torch.randint(0, 5, (1, 4, 64, 128), generator=generator).float(), 100),
        (torch.zeros(1, 2, 16, 32), 7),
        (torch.randn(1, 2, 4, 5, generator=generator), 20),
    ]
    for x, k in maps:
        for name, way in topk.WAYS.items():
            assert topk.is_exact(way(x, k), x, k), name
    assert not topk.is_exact(torch.zeros(1, 2, 7, dtype=torch.int64), torch.zeros(1, 2, 16, 32), 7)
    assert not topk.is_exact(maps[0][0].flatten(2).topk(8, dim=2, largest=False).indices, *maps[0])
    topk.main(["--sizes", "32", "--widths", "2", "--repeats", "1"])
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 |")]) == 5


@pytest.mark.skipif(
    not measure.STATUS.exists(), reason="the system doesn't count a process's peak memory as Linux does"
)
def test_training_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training_step.main(["--output", str(tmp_path), "--width", "2", "--size", "32", "--batch", "2", "--repeats", "2"])
    found: dict[str, Any] = json.loads((tmp_path / "training_step.json").read_text())
    steps = ["reference", "float32", "float32, checkpointing", "bfloat16", "bfloat16, checkpointing"]
    assert [row["step"] for row in found["rows"]] == steps
    assert all(len(row["seconds"]) == 2 for row in found["rows"])
    text = (tmp_path / "training_step.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert text.count("\n| ") == 6


@pytest.mark.skipif(
    not measure.STATUS.exists(), reason="the system doesn't count a process's peak memory as Linux does"
)
def test_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--frames", "5", "--side", "48", "--batch", "2", "--many", "100", "--small", "32", "--large", "64", "96"]
    sizes += ["--processes", "1"]
    SeRankDet(width=2).save_pretrained(tmp_path / "tiny")
    throughput.main(["--output", str(tmp_path), "--checkpoint", str(tmp_path / "tiny"), "--repeats", "1", *sizes])
    text = (tmp_path / "throughput.md").read_text()
    assert text.strip() in capsys.readouterr().out
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:4]] == ["| the network alone", "| files to table", "| with pictures"]
    assert rows[5][:2] == ["| 1", str(os.cpu_count())]
    assert [row[0] for row in rows[7:11]] == ["| 1", "| 10", "| 50", "| 100"]
    assert [row[0] for row in rows[12:]] == ["| 64 x 64", "| 96 x 96"]


CHECKS = ["parity", "batch", "detect", "training, float32", "training, bfloat16", "training, float16", "torchrun"]
CHECKS += ["speed", "training speed", "export"]


@pytest.mark.parametrize(
    "names",
    [
        ["parity", "batch", "detect", "training, bfloat16", "speed", "training speed"],
        pytest.param(CHECKS, marks=pytest.mark.slow),
    ],
    ids=["most", "all"],
)
def test_checks_of_a_device(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--output", str(tmp_path), "--device", "cpu", "--size", "32", "--width", "2", "--repeats", "1"]
    assert gpu.main([*command, "--only", *names]) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["check"] for row in found["rows"]] == names
    found = {row["check"]: row["found"] for row in found["rows"]}
    assert "bfloat16 with graphs" in found["speed"]
    assert "resumed within 0.0e+00" in found["training, bfloat16"]
    forward = SeRankDet.forward
    monkeypatch.setattr(SeRankDet, "forward", lambda self, x: forward(self, x) * len(x))
    assert gpu.main([*command, "--only", "batch"]) == 1
    assert "| batch | NO |" in capsys.readouterr().out


def test_checkpoints_table(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        checkpoints.main(["--side", "32", "--frames", "2", "--repeats", "2", "--threads", "1", "--dtypes", "float32"])
    finally:
        torch.set_num_threads(threads)
    about, _, head, _, *rows = capsys.readouterr().out.splitlines()
    assert "1 of" in about
    assert head.split(" | ")[-1] == "float32, frames/s |"
    names = [row.split("|")[1].strip(" `") for row in rows]
    assert names == sorted(bundled())
    for row in rows:
        median, low, high = (float(number) for number in re.findall(r"[\d.]+", row.split("|")[4]))
        assert 0 < low <= median <= high
