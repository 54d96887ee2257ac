"""Pushing to a Hub, and the checks of `serank publish` before it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import Hub, Repository, lone_client, use  # noqa: F401 - a fixture for every test here
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file

from serank import SeRankDet
from serank.checkpoints import read_metadata
from serank.cli.entry import main
from serank.cli.publish_checks import problems
from serank.errors import CheckpointError
from serank.train import Recipe
from serank.train.card import training_card

# the client's own use of its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "owner/net"
ROW = {
    "epoch": 3.0,
    "frames": 85.0,
    "targets": 97.0,
    "iou": 0.75421234567,
    "niou": 0.769,
    "pd": 0.9691,
    "fa": 1.09e-5,
    "false_components": 0.059,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub without repositories, and its token."""
    server = Hub()
    monkeypatch.setenv("HF_TOKEN", server.token)
    return server


@pytest.fixture
def model() -> SeRankDet:
    return SeRankDet(width=1, threshold=0.25).eval()


@pytest.fixture
def folder(model: SeRankDet, tmp_path: Path) -> Path:
    """What `serank train` leaves, with what the user has to fill in."""
    card = training_card(model.config, Recipe(epochs=5), ROW)
    card = card.replace("---\n", "---\nlicense: apache-2.0\ndatasets: [my-frames]\n", 1).replace("unknown", "my-frames")
    model.save_pretrained(tmp_path / "best", card=card)
    return tmp_path / "best"


def test_push_then_load_gives_the_same_detections(model: SeRankDet, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    frame = np.random.default_rng(0).random((40, 56), np.float32)
    with hub:
        use(monkeypatch, hub.endpoint)
        commit = model.push_to_hub(NAME, commit_message="first")
        repository = hub.repositories[NAME]
        assert commit == f"{hub.endpoint}/{NAME}/commit/{repository.branches['main']}"
        assert not repository.private
        files = {entry.path for entry in HfApi().list_repo_tree(NAME)}
        assert files == {".gitattributes", "README.md", "config.json", "model.safetensors"}
        assert len(hub.asked("POST", f"{NAME}/commit/main")) == 1
        again = SeRankDet.from_pretrained(NAME)
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(again.detect(frame).probability, model.detect(frame).probability)


def test_push_to_a_branch_keeps_the_card_that_is_there(
    model: SeRankDet, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    with hub:
        use(monkeypatch, hub.endpoint)
        model.push_to_hub(NAME, card="---\nlicense: mit\n---\nmine")
        before = hub.repositories[NAME].branches["main"]
        for _ in range(2):  # the second finds the branch
            model.push_to_hub(NAME, revision="half", half=True)
        assert hub.repositories[NAME].branches["main"] == before
        pushed = hub.repositories[NAME].commits[hub.repositories[NAME].branches["half"]]
        assert pushed["README.md"].endswith(b"mine")
        assert len(pushed["model.safetensors"]) < len(hub.repositories[NAME].commits[before]["model.safetensors"])
        assert SeRankDet.from_pretrained(NAME, revision="half").config == model.config
        model.push_to_hub(NAME, card="another")
        assert hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]["README.md"] == b"another"


def test_private_repositories(model: SeRankDet, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    hub.repositories["owner/public"] = Repository()
    hub.repositories["owner/public"].commit({})
    with hub:
        use(monkeypatch, hub.endpoint)
        model.push_to_hub(NAME, private=True)
        assert hub.repositories[NAME].private
        with pytest.raises(CheckpointError, match="owner/public exists and is public"):
            model.push_to_hub("owner/public", private=True)
    assert len(hub.repositories["owner/public"].commits) == 1


@pytest.mark.parametrize("token", [False, "hf_other"])
def test_push_without_the_right_to_write(
    token: str | bool, model: SeRankDet, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    with hub:
        use(monkeypatch, hub.endpoint)
        with pytest.raises(CheckpointError, match=r"owner/net@main: http.* refuses to be written to \(401\).*log in"):
            model.push_to_hub(NAME, token=token)
    assert not hub.repositories


def test_metadata_that_the_hub_refuses(model: SeRankDet, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    hub.complaint = '"license" must be one of the known ones'
    with hub:
        use(monkeypatch, hub.endpoint)
        with pytest.raises(
            CheckpointError, match=r'Invalid metadata in README\.md\.\n- "license" must be one of the known'
        ):
            model.push_to_hub(NAME, card="---\nlicense: mine\n---\n")
    assert len(hub.repositories[NAME].commits) == 1  # the one that made the repository


def test_push_without_a_network(model: SeRankDet, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    with hub:
        use(monkeypatch, hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointError, match="owner/net: can't be pushed while HF_HUB_OFFLINE is set"):
            model.push_to_hub(NAME)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub.down = 500
        with pytest.raises(CheckpointError, match=r"owner/net@main: no answer of http.*500"):
            model.push_to_hub(NAME)
        assert not hub.repositories


@pytest.mark.parametrize("repo_id", ["net", "../net", "a/../b", "owner/net/x", "owner\\net", "owner/n\0", ""])
def test_push_refuses_names_that_are_none(repo_id: str, model: SeRankDet) -> None:
    with pytest.raises(CheckpointError, match="is no Hub id; expected owner/name"):
        model.push_to_hub(repo_id)


def test_command_publishes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "last.pt").write_bytes(b"not to be pushed")
    with hub:
        use(monkeypatch, hub.endpoint)
        assert main(["publish", str(folder), NAME, "--private", "--message", "my net"]) == 0
        repository = hub.repositories[NAME]
        assert repository.private
        pushed = repository.commits[repository.branches["main"]]
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert pushed == {name: files[name] for name in files if name != "last.pt"} | {
            ".gitattributes": pushed[".gitattributes"]
        }
        assert capsys.readouterr().out == f"{hub.endpoint}/{NAME}/commit/{repository.branches['main']}\n"


def test_dry_run_sends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub:
        use(monkeypatch, hub.endpoint)
        assert main(["publish", str(folder), NAME, "--dry-run", "--revision", "v1"]) == 0
        assert hub.requests == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"would push to {hub.endpoint}/{NAME}, branch v1:"
    sizes = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in lines[1:]}
    assert sizes == {name: (folder / name).stat().st_size for name in ("config.json", "model.safetensors", "README.md")}


def test_command_lists_all_that_is_wrong_and_sends_nothing(
    model: SeRankDet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "best", card=training_card(model.config, Recipe(epochs=5), ROW))
    config = json.loads((tmp_path / "best" / "config.json").read_text())
    del config["theta"], config["serank_version"]
    (tmp_path / "best" / "config.json").write_text(json.dumps(config))
    with hub:
        use(monkeypatch, hub.endpoint)
        assert main(["publish", str(tmp_path / "best"), "no-owner"]) == 1
        assert hub.requests == []
    error = capsys.readouterr().err
    assert "nothing was pushed, 6 checks failed:" in error
    for part in (
        "'no-owner' is no Hub id",
        "config.json: lacks serank_version, theta; add them as they were in training, or save the network again",
        "model.safetensors: was saved with another config",
        "README.md: no license in the metadata; between its two lines of dashes add a line such as `license: apache-",
        "README.md: no datasets in the metadata; between its two lines of dashes add a line such as `datasets: [NAME]",
        "README.md: metrics of an unknown data set",
    ):
        assert part in error


def broken_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["head.bias"]
    save_file(weights, folder / "model.safetensors")


def nan_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors")


def huge_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    for value in weights.values():
        value.fill_(3e38 if value.is_floating_point() else 0)
    save_file(weights, folder / "model.safetensors")


def linked_card(folder: Path) -> None:
    secret = folder.parent / "secret.md"
    (folder / "README.md").rename(secret)
    (folder / "README.md").symlink_to(secret)


def card(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "README.md").write_text(text, encoding="utf-8")


def edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert old in text
        (folder / "README.md").write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken_weights, "head.bias: missing in file"),
        (huge_weights, "model.safetensors: .*NaN or infinity.*; train it anew"),
        (nan_weights, "entries hold NaN or infinity: head.bias"),
        (linked_card, "README.md: is a link"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: missing; save_pretrained writes"),
        (card("# no metadata"), "README.md: no library_name in the metadata"),
        (card("# no metadata"), "README.md: no metrics in the metadata; measure them with `serank evaluate`"),
        (card("---\na: [\n---\n"), "README.md: the metadata can't be read"),
        (card("---\n- a\n---\n"), "README.md: the metadata can't be read"),
        (card("---\nmodel-index: 5\n---\n"), "README.md: the metadata can't be read"),
        (card("---\ntags: 5\ndatasets: 7\nlicense: [1]\n---\n"), "README.md: "),
        (card("x" * (2**20 + 1)), "README.md: more than 1048576 bytes"),
        (lambda folder: (folder / "README.md").write_bytes(b"\xff\xfe"), "README.md: "),
        (edited("serank\n", "timm\n"), "no library_name in the metadata; .* `library_name: serank`"),
        (edited("value: 0.7542", "value: 75.42"), "in the metrics on my-frames iou is 75.42.*expected a number in"),
        (edited("type: niou", "type: miou"), "in the metrics on my-frames niou missing"),
    ],
)
def test_each_check(folder: Path, change: Callable[[Path], object], message: str) -> None:
    assert problems(folder, NAME, "main") == []
    change(folder)
    with pytest.raises(AssertionError, match=message):
        assert not problems(folder, NAME, "main"), "\n".join(problems(folder, NAME, "main"))


def test_the_folder_of_a_run_has_the_checkpoint_in_best(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run" / "best")
    assert problems(tmp_path / "run", NAME, "main")[-1] == (
        f"did you mean {tmp_path / 'run' / 'best'}, the checkpoint of this run?"
    )


def test_a_folder_or_branch_that_is_none(tmp_path: Path) -> None:
    found = problems(tmp_path / "nothing", NAME, "../x")
    assert [bool(part in line) for part, line in zip(("revision must be", "no such folder"), found, strict=True)] == [
        True
    ] * 2


def test_the_card_of_a_training(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    metadata = read_metadata(text)
    (result,) = metadata.results
    assert (metadata.library, metadata.task, metadata.licence, metadata.data_sets) == (
        "serank",
        "image-segmentation",
        "apache-2.0",
        ("my-frames",),
    )
    assert (result.data_set, result.split) == ("my-frames", "val")
    assert result.metrics == {"iou": 0.75421235, "niou": 0.769, "pd": 0.9691, "fa": 1.09e-05}
    assert "\nmodel-index:\n- name: SeRankDet\n  results:\n  - task:\n      type: image-segmentation\n" in text
    assert "| 0.7542 | 0.7690 | 0.9691 | 10.90 | 0.059 |" in text


def test_the_card_of_a_training_without_validation(model: SeRankDet) -> None:
    text = training_card(model.config, Recipe(epochs=5), {"epoch": 5.0})
    assert read_metadata(text).results == ()
    assert read_metadata(text).library == "serank"
    assert "Figures" not in text


def test_the_bundled_checkpoint_passes_the_checks() -> None:
    from serank.checkpoints import bundled

    for folder in bundled().values():
        assert problems(folder, NAME, "main") == []
