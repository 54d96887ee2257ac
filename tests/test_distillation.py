"""Training against a teacher's probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serank import SeRankDet
from serank.cli.entry import main
from serank.datasets import Sample, write_folder
from serank.synthetic import SyntheticScenes
from serank.train import Augmentation, Recipe, fit
from serank.train.distillation import Teacher, distillation_loss

TINY = Recipe(
    epochs=1,
    batch_size=2,
    ema_decay=0.0,
    distil_weight=5.0,
    augmentation=Augmentation(crop=32, scale=(0.8, 1.25)),
)


def scenes() -> list[Sample]:
    return list(SyntheticScenes(6, 40, 48, targets=(1, 2), size=(3, 6), scr=(10, 30), seed=5))


def network(seed: int = 0, width: int = 2, mean: float = 0.5) -> SeRankDet:
    torch.manual_seed(seed)
    return SeRankDet(width=width, mean=mean).eval()


def test_against_the_sum() -> None:
    torch.manual_seed(0)
    outputs = [3 * torch.randn(2, 1, 12, 9) for _ in range(2)]
    wanted = torch.rand(2, 1, 12, 9)
    expected = sum(
        -(wanted * x.sigmoid().log() + (1 - wanted) * (1 - x.sigmoid()).log()).sum() / wanted.numel() for x in outputs
    )
    torch.testing.assert_close(distillation_loss(outputs, wanted), torch.as_tensor(expected))


def test_it_is_least_where_student_and_teacher_agree() -> None:
    logits = torch.randn(1, 1, 8, 8, dtype=torch.float64).requires_grad_()
    distillation_loss([logits], logits.detach().sigmoid()).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


def test_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match="one shape"):
        distillation_loss([torch.zeros(1, 1, 4, 4)], torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match="at least one"):
        distillation_loss([], torch.zeros(1, 1, 4, 5))


def test_a_teacher_sees_frames_as_it_was_trained_to() -> None:
    model = network(mean=0.3)  # not the mean of the networks that it may teach
    before = {k: v.clone() for k, v in model.state_dict().items()}
    frames = torch.rand(2, 1, 32, 32)
    teacher = Teacher(model, torch.device("cpu"))
    given = teacher(frames)
    with torch.no_grad():
        expected = model(model.frame_spec.normalise(frames, 1)).sigmoid()
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)
    assert not given.requires_grad
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_digests_tell_weights_and_preparation_apart() -> None:
    digests = [Teacher(m, torch.device("cpu")).digest for m in (network(), network(), network(1), network(mean=0.3))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_teacher_in_bfloat16() -> None:
    teacher = Teacher(network().to(torch.bfloat16), torch.device("cpu"))
    assert len(teacher.digest) == 16
    given = teacher(torch.rand(1, 1, 32, 32))
    assert given.dtype == torch.float32
    assert given.isfinite().all()


def test_the_loss_in_training_is_the_sum_of_both() -> None:
    # a rate of nearly nothing leaves the network as it was, so that the losses of an epoch are of one network
    teacher, still = network(1, width=3, mean=0.4), replace(TINY, lr=1e-30, freeze_statistics=True)
    losses = [
        fit(network(), scenes(), recipe=replace(still, distil_weight=w), teacher=t, progress=False).rows[0]["loss"]
        for w, t in ((0.0, None), (5.0, teacher), (10.0, teacher))
    ]
    assert losses[1] > losses[0] + 0.5
    assert losses[2] - losses[0] == pytest.approx(2 * (losses[1] - losses[0]), rel=1e-4)


def test_a_student_learns_what_the_masks_do_not_say() -> None:
    teacher = network(1, width=3)
    assert teacher.head.bias is not None
    torch.nn.init.constant_(teacher.head.bias, 4.0)  # target everywhere
    frames = torch.stack([torch.from_numpy(s.frame)[None] for s in scenes()])[..., :32, :32]
    recipe = replace(TINY, epochs=30, lr=1e-2, deep_supervision=False)
    means = []
    for weight, given in ((0.0, None), (200.0, teacher)):
        model = network()
        torch.nn.init.zeros_(model.head.get_parameter("bias"))
        fit(model, scenes(), recipe=replace(recipe, distil_weight=weight), teacher=given, progress=False)
        means.append(float(Teacher(model, torch.device("cpu"))(frames).mean()))
    assert means[0] < 0.5
    assert means[1] > 0.7


def test_a_weight_needs_a_teacher_and_a_teacher_a_weight() -> None:
    with pytest.raises(ValueError, match=r"belong together; got no teacher and distil_weight=5"):
        fit(network(), scenes(), recipe=TINY, progress=False)
    with pytest.raises(ValueError, match=r"belong together; got a teacher and distil_weight=0"):
        fit(network(), scenes(), recipe=replace(TINY, distil_weight=0.0), teacher=network(1), progress=False)
    with pytest.raises(ValueError, match="distil_weight must be >= 0 and finite; got -1"):
        Recipe(distil_weight=-1.0)


def test_a_run_goes_on_with_its_own_teacher_alone(tmp_path: Path) -> None:
    fit(network(), scenes(), recipe=TINY, teacher=network(1), output=tmp_path, progress=False)
    again = {"recipe": TINY, "output": tmp_path, "resume": True, "progress": False}
    assert len(fit(network(), scenes(), teacher=network(1), **again).rows) == 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"another set-up: teacher was \w+, is \w+"):
        fit(network(), scenes(), teacher=network(2), **again)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(scenes(), tmp_path / "data")
    network(1, width=3).save_pretrained(tmp_path / "teacher")
    command = ["train", str(tmp_path / "data"), "--val-split", "", "--width", "2", "--epochs", "1", "--batch-size", "2"]
    crops = ["--crop", "32", "--output"]
    assert main([*command, "--teacher", str(tmp_path / "teacher"), *crops, str(tmp_path / "none")]) == 1
    assert "belong together" in capsys.readouterr().err
    taught = ["--teacher", str(tmp_path / "teacher"), "--distil-weight", "5"]
    assert main([*command, *taught, *crops, str(tmp_path / "run")]) == 0
    config = torch.load(tmp_path / "run" / "last.pt", weights_only=False)["setup"]
    assert config["distil_weight"] == 5
    assert len(config["teacher"]) == 16
