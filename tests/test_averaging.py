"""The mean of several networks' weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serank import SeRankDet
from serank.cli.entry import main
from serank.train.averaging import average, graft


@pytest.fixture
def models() -> list[SeRankDet]:
    made = [SeRankDet(width=2, working_size=size) for size in (64, 96, 128)]
    for model in made:
        for value in model.buffers():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return made


def test_every_weight_and_statistic_is_the_mean(models: list[SeRankDet]) -> None:
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in models]
    result = average(models)
    assert not result.training
    for name, value in result.state_dict().items():
        if value.is_floating_point():
            expected = sum(state[name].double() for state in before) / 3
            torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-7)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_frames_are_prepared_as_by_the_first(models: list[SeRankDet]) -> None:
    assert average(models[1:]).config == models[1].config


def test_one_is_its_own_mean(models: list[SeRankDet]) -> None:
    result = average(models[:1])
    assert all(torch.equal(v, models[0].state_dict()[k]) for k, v in result.state_dict().items())
    assert result.head.weight.data_ptr() != models[0].head.weight.data_ptr()


def test_what_has_no_mean(models: list[SeRankDet]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        average([])
    with pytest.raises(ValueError, match=r"network 2 differs from the first in \['width'\]"):
        average([models[0], SeRankDet(width=3)])
    with pytest.raises(ValueError, match=r"network 3 differs from the first in \['theta'\]"):
        average([*models[:2], SeRankDet(width=2, theta=0.5)])
    # weights learnt on frames that were normalised otherwise
    with pytest.raises(ValueError, match=r"network 2 differs from the first in \['mean'\]"):
        average([models[0], models[0].reconfigured(mean=0.1)])


def test_the_command(models: list[SeRankDet], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, model in enumerate(models):
        model.save_pretrained(tmp_path / str(number))
    folders = [str(tmp_path / str(number)) for number in range(3)]
    settings = ["--working-size", "640", "--scale-range", "0.75", "3", "--tile", "256", "--overlap", "32"]
    assert main(["average", *folders, *settings, "--output", str(tmp_path / "mean")]) == 0
    assert "the mean of 3" in capsys.readouterr().out
    again, expected = SeRankDet.from_pretrained(tmp_path / "mean"), average(models)
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in again.state_dict().items())
    prepared = {"working_size": 640, "scale_range": [0.75, 3.0], "tile": 256, "overlap": 32}
    assert again.config == expected.config | prepared
    SeRankDet(width=3).save_pretrained(tmp_path / "other")
    assert main(["average", folders[0], str(tmp_path / "other"), "--output", str(tmp_path / "none")]) == 1
    assert "differs from the first" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_graft_takes_the_named_parts_alone(models: list[SeRankDet]) -> None:
    model, donor = models[0], models[1]
    own, given = ({k: v.clone() for k, v in m.state_dict().items()} for m in (model, donor))
    result = graft(model, donor, ["encoder.0", "decoder.1", "head"])
    assert not result.training
    assert result.config == model.config
    for name, value in result.state_dict().items():
        taken = name.startswith(("encoder.0.", "decoder.1.", "head."))
        assert torch.equal(value, (given if taken else own)[name]), name
    assert all(torch.equal(v, own[k]) for k, v in model.state_dict().items())
    assert not torch.equal(own["head.weight"], given["head.weight"])


def test_parts_that_are_none(models: list[SeRankDet]) -> None:
    with pytest.raises(ValueError, match=r"must name modules, .*; unknown are decoder.9, head.weight"):
        graft(models[0], models[1], ["head.weight", "head", "decoder.9"])
    with pytest.raises(ValueError, match="none is given"):
        graft(models[0], models[1], [])
    with pytest.raises(ValueError, match=r"differs from the first in \['width'\]"):
        graft(models[0], SeRankDet(width=3), ["head"])


def test_the_command_for_grafts(models: list[SeRankDet], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, model in enumerate(models[:2]):
        model.save_pretrained(tmp_path / str(number))
    command = ["graft", str(tmp_path / "0"), str(tmp_path / "1"), "--output", str(tmp_path / "new"), "--parts"]
    assert main([*command, "tail"]) == 1
    assert "unknown are tail" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main([*command, "encoder.2", "--threshold", "0.65", "--tile", "256"]) == 0
    assert "with encoder.2 of" in capsys.readouterr().out
    again, expected = SeRankDet.from_pretrained(tmp_path / "new"), graft(models[0], models[1], ["encoder.2"])
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in again.state_dict().items())
    assert again.config == models[0].config | {"threshold": 0.65, "tile": 256}
