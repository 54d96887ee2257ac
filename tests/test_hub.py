"""Loading from a Hub: the real client against a server of its protocol on the loopback interface."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from hub_server import Hub, Repository, lone_client, use  # noqa: F401 - a fixture for every test here
from huggingface_hub import constants, get_session

from serank import SeRankDet
from serank.checkpoints.config_file import read_config
from serank.errors import CheckpointError

NAME = "owner/net"


def checkpoint(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """Files of a small checkpoint with random weights."""
    torch.manual_seed(seed)
    SeRankDet(width=1, threshold=0.25).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub with one checkpoint."""
    with Hub() as server:
        server.repositories[NAME] = Repository()
        server.repositories[NAME].commit(checkpoint(tmp_path / "pushed"))
        use(monkeypatch, server.endpoint)
        yield server


def same(model: SeRankDet, folder: Path) -> bool:
    other = SeRankDet.from_pretrained(folder).state_dict()
    return all(torch.equal(value, other[name]) for name, value in model.state_dict().items())


def test_first_download_takes_two_files_and_no_more(hub: Hub, tmp_path: Path) -> None:
    model = SeRankDet.from_pretrained(NAME)
    assert same(model, tmp_path / "pushed")
    assert model.config["threshold"] == 0.25
    assert "serank_version" not in model.config
    assert len(hub.asked("GET", "config.json")) == len(hub.asked("GET", "model.safetensors")) == 1
    assert not hub.asked("GET", "README.md")
    assert not any("authorization" in request.headers for request in hub.requests)


def test_cached_load_of_a_branch_asks_for_its_commit_alone(hub: Hub) -> None:
    SeRankDet.from_pretrained(NAME)
    hub.requests.clear()
    SeRankDet.from_pretrained(NAME)
    assert [(r.method, r.path) for r in hub.requests] == [("GET", f"/api/models/{NAME}/revision/main?blobs=true")]


def test_cached_load_of_a_commit_asks_for_nothing(hub: Hub) -> None:
    commit = hub.repositories[NAME].branches["main"]
    SeRankDet.from_pretrained(NAME, revision=commit)
    hub.requests.clear()
    SeRankDet.from_pretrained(NAME, revision=commit)
    assert hub.requests == []


def test_pinned_revisions_and_a_branch_that_moved(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    first = repository.branches["main"]
    SeRankDet.from_pretrained(NAME)
    repository.commit(checkpoint(tmp_path / "newer", seed=1))
    repository.branches["v1.0"] = first
    assert same(SeRankDet.from_pretrained(NAME), tmp_path / "newer")
    assert same(SeRankDet.from_pretrained(NAME, revision=first), tmp_path / "pushed")
    assert same(SeRankDet.from_pretrained(NAME, revision="v1.0"), tmp_path / "pushed")
    # offline the branch is where it was last seen
    assert same(SeRankDet.from_pretrained(NAME, local_files_only=True), tmp_path / "newer")


def test_files_of_two_commits_never_mix(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch moves between the two files."""
    files = checkpoint(tmp_path / "newer", seed=1)

    def move(*arguments: Any) -> dict[str, Any]:
        hub.repositories[NAME].commit(files)
        return read_config(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("serank.checkpoints.pretrained.read_config", move)
        model = SeRankDet.from_pretrained(NAME)
    assert same(model, tmp_path / "pushed")
    assert same(SeRankDet.from_pretrained(NAME), tmp_path / "newer")


def test_force_download_fetches_what_is_cached(hub: Hub) -> None:
    SeRankDet.from_pretrained(NAME)
    hub.requests.clear()
    SeRankDet.from_pretrained(NAME, force_download=True)
    assert len(hub.asked("GET", "config.json")) == len(hub.asked("GET", "model.safetensors")) == 1


def test_token_is_sent_to_the_hub_and_not_to_its_storage(hub: Hub) -> None:
    hub.repositories[NAME].private = True
    with pytest.raises(
        CheckpointError, match=r"owner/net@main: neither a local folder nor a repository that http:.*401"
    ):
        SeRankDet.from_pretrained(NAME)
    hub.requests.clear()
    SeRankDet.from_pretrained(NAME, token=hub.token)
    sent = {("storage" in r.path): r.headers.get("authorization") for r in hub.requests}
    assert sent == {False: f"Bearer {hub.token}", True: None}


def test_token_of_the_environment(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].private = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    SeRankDet.from_pretrained(NAME)


Change = Callable[[Hub], None]


def gate(hub: Hub) -> None:
    hub.repositories[NAME].gated = True


def without(file: str) -> Change:
    def forget(hub: Hub) -> None:
        for files in hub.repositories[NAME].commits.values():
            del files[file]

    return forget


def sized(file: str, size: int) -> Change:
    return lambda hub: hub.sizes.update({file: size})


def answering(status: int) -> Change:
    return lambda hub: setattr(hub, "down", status)


@pytest.mark.parametrize(
    ("name", "revision", "change", "message"),
    [
        ("owner/missing", None, None, r"owner/missing@main: neither .* \(401\); check the name.*hf auth login"),
        (NAME, None, gate, r"access must be granted; ask for it at http://127\.0\.0\.1:\d+/owner/net"),
        (NAME, "v9", None, r"owner/net@v9: the repository has no such revision"),
        (NAME, "f" * 40, None, r"the repository has no such revision"),
        (NAME, None, without("config.json"), r"owner/net@main: the repository has no config\.json"),
        (NAME, None, without("model.safetensors"), r"owner/net@\w{40}: the repository has no model\.safetensors"),
        (NAME, None, sized("config.json", 2**21), r"config\.json: 2097152 bytes, expected at most 1048576"),
        (NAME, None, sized("model.safetensors", 2**31), r"safetensors: 2147483648 bytes, expected at most 12\d{5}"),
        (NAME, None, answering(503), r"no answer of http://127\.0\.0\.1:\d+ \(.*503.*check the network"),
        (NAME, None, answering(429), r"refused: .*429"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, name: str, revision: str | None, change: Change | None, message: str) -> None:
    if change:
        change(hub)
    with pytest.raises(CheckpointError, match=message):
        SeRankDet.from_pretrained(name, revision=revision)
    assert not hub.asked("GET", "model.safetensors")


def test_a_repository_that_is_not_there_for_a_known_user(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"owner/missing@main: .*\(404\)"):
        SeRankDet.from_pretrained("owner/missing", token=hub.token)


def test_a_token_that_is_not_stored(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="token=True, but no token is stored; log in"):
        SeRankDet.from_pretrained(NAME, token=True)


def test_a_cut_connection_is_resumed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is kept of a cut download is whole chunks
    half = (tmp_path / "pushed" / "model.safetensors").stat().st_size // 2048 * 1024
    hub.cut["model.safetensors"] = half
    try:
        model = SeRankDet.from_pretrained(NAME)
    except CheckpointError:  # some releases of the client go on at the next call alone
        model = SeRankDet.from_pretrained(NAME)
    assert same(model, tmp_path / "pushed")
    ranges = [r.headers.get("range") for r in hub.asked("GET", "model.safetensors") if "storage" in r.path]
    assert ranges == [None, f"bytes={half}-"]


def test_a_slow_server_meets_the_time_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    hub.delay["GET", "main"] = 20
    with pytest.raises(CheckpointError, match=r"http://127.* didn't answer in time; .*HF_HUB_ETAG_TIMEOUT"):
        SeRankDet.from_pretrained(NAME)


def test_a_slow_download_meets_the_time_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.delay["GET", "model.safetensors"] = 20
    with pytest.raises(CheckpointError, match="didn't answer in time"):
        SeRankDet.from_pretrained(NAME)


def test_damaged_on_the_way(hub: Hub, tmp_path: Path) -> None:
    """The bytes of the tensors are others, their number is right: only the hash tells."""
    hub.damage.add("model.safetensors")
    for _ in range(2):  # the second is the cached one
        with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged, .* force_download=True"):
            SeRankDet.from_pretrained(NAME)
    hub.damage.clear()
    assert same(SeRankDet.from_pretrained(NAME, force_download=True), tmp_path / "pushed")


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
def test_truncated_in_the_cache(hub: Hub, tmp_path: Path, linked: bool) -> None:
    SeRankDet.from_pretrained(NAME)
    (file,) = (tmp_path / "cache").rglob("snapshots/*/model.safetensors")
    content = file.read_bytes()
    if not linked:
        file.unlink()  # a cache on a file system without links
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: (damaged|can't be read as safet).*force_download=True"
    ):
        SeRankDet.from_pretrained(NAME)
    assert same(SeRankDet.from_pretrained(NAME, force_download=True), tmp_path / "pushed")


def test_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing there.*local_files_only=True; load it once"):
        SeRankDet.from_pretrained(NAME, local_files_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; load it once with the network"):
            SeRankDet.from_pretrained(NAME)
    assert hub.requests == []
    SeRankDet.from_pretrained(NAME)
    hub.requests.clear()
    assert same(SeRankDet.from_pretrained(NAME, local_files_only=True), tmp_path / "pushed")
    assert hub.requests == []
    with pytest.raises(CheckpointError, match="force_download=True needs the network"):
        SeRankDet.from_pretrained(NAME, local_files_only=True, force_download=True)
    (file,) = (tmp_path / "cache").rglob("snapshots/*/model.safetensors")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing there"):
        SeRankDet.from_pretrained(NAME, local_files_only=True)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_a_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SeRankDet.from_pretrained(NAME)
    use(monkeypatch, f"http://127.0.0.1:{unused_port()}")
    with pytest.warns(UserWarning, match=r"no answer of http.*The cached commit \w{40} is used"):
        model = SeRankDet.from_pretrained(NAME)
    assert same(model, tmp_path / "pushed")
    with pytest.raises(
        CheckpointError, match=r"other/net@main: no local folder, and no answer of .*check the network and HF_ENDPOINT"
    ):
        SeRankDet.from_pretrained("other/net")
    with pytest.raises(CheckpointError, match="no answer of"):
        SeRankDet.from_pretrained(NAME, force_download=True)


def test_a_server_that_is_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    SeRankDet.from_pretrained(NAME)
    hub.down = 200  # as networks do in which one has to log in first
    with pytest.warns(UserWarning, match="doesn't answer as a Hub does.*The cached commit"):
        SeRankDet.from_pretrained(NAME)
    with pytest.raises(CheckpointError, match="doesn't answer as a Hub does; check HF_ENDPOINT and the network"):
        SeRankDet.from_pretrained("other/net")
    hub.down = None
    use(monkeypatch, hub.endpoint + "/elsewhere")
    with pytest.raises(CheckpointError, match="neither a local folder nor a repository"):
        SeRankDet.from_pretrained("other/net")


def load_in_a_process(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a user's program does, with the client's own reading of the environment."""
    code = f"import serank; print(serank.SeRankDet.from_pretrained({NAME!r}).threshold)"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"HF_HOME": str(cache), "NO_PROXY": "127.0.0.1,localhost", "HF_HUB_DISABLE_XET": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_variables(hub: Hub, tmp_path: Path) -> None:
    for offline in ("0", "1"):
        hub.requests.clear()
        done = load_in_a_process(tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE=offline)
        assert (done.returncode, done.stdout) == (0, "0.25\n"), done.stderr
        assert bool(hub.requests) == (offline == "0")


@pytest.mark.parametrize(
    "name",
    [
        "../net", "owner/..", "owner/../net", "a/../../b", "/owner/net", "//net", "owner/", "/net", "owner\\net",
        "owner/net\\..", "owner/n\0t", "owner/-net", "owner/net.", ".owner/net", "owner/a--b", "owner/a..b",
        "owner/net.git", "owner/n%2e%2e", "owner/n?t", "owner/n#t", "owner/n t", "öwner/net", "owner/net\n",
        "o" * 97 + "/net", "owner/" + "n" * 10**6, "~/net", "owner:net/x", "http://x",
    ],
)  # fmt: skip
def test_names_that_could_escape_are_never_asked_for(name: str, hub: Hub, tmp_path: Path) -> None:
    before = {p for p in tmp_path.rglob("*") if "pushed" not in p.parts}
    with pytest.raises(CheckpointError) as error:
        SeRankDet.from_pretrained(name)
    assert len(str(error.value)) < 500
    assert hub.requests == []
    assert {p for p in tmp_path.rglob("*") if "pushed" not in p.parts} == before


@pytest.mark.parametrize(
    "revision",
    ["", "..", "../../x", "a/../b", "/etc", "a\\b", "a\0b", "-x", "a b", "a//b", "a/", "é", "a" * 201, "main\n"],
)  # fmt: skip
def test_revisions_that_could_escape_are_never_asked_for(revision: str, hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="revision must be a branch, tag or commit; got"):
        SeRankDet.from_pretrained(NAME, revision=revision)
    assert hub.requests == []


def test_nothing_but_safetensors_is_loaded(hub: Hub) -> None:
    files = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]
    files["pytorch_model.bin"] = files["model.pt"] = files.pop("model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        SeRankDet.from_pretrained(NAME)
    assert {urlsplit(r.path).path.rpartition("/")[2] for r in hub.requests if "/api/" not in r.path} == {"config.json"}


def test_a_config_is_checked_before_weights_are_downloaded(hub: Hub) -> None:
    files = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]
    files["config.json"] = json.dumps(SeRankDet(width=1).config | {"width": 10**9}).encode()
    with pytest.raises(CheckpointError, match=r"config\.json: width must be <= 1024; got 1000000000"):
        SeRankDet.from_pretrained(NAME)
    assert not [r for r in hub.requests if "safetensors" in r.path]


def test_published_names_on_the_hub_are_pinned(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serank.checkpoints.registry import OTHERS, Published

    repository = hub.repositories[NAME]
    row = Published("sirstaug", ("SIRST-AUG",), repo_id=NAME, revision=repository.branches["main"], width=1)
    monkeypatch.setitem(OTHERS, "sirstaug", row)
    repository.commit(checkpoint(tmp_path / "newer", seed=1))
    shutil.copytree(tmp_path / "newer", tmp_path / "here" / "sirstaug")
    monkeypatch.chdir(tmp_path / "here")
    assert same(SeRankDet.from_pretrained("sirstaug"), tmp_path / "pushed")
    assert same(SeRankDet.from_pretrained("sirstaug", revision="main"), tmp_path / "newer")


def test_loading_prints_nothing_to_standard_output(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    SeRankDet.from_pretrained(NAME, token=False)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("value", ["../../../escaped", "{}/escaped", "A" * 64, "a" * 39])
@pytest.mark.parametrize(
    ("file", "header"),
    [
        ("config.json", "ETag"),
        ("config.json", "X-Linked-Etag"),
        ("config.json", "X-Repo-Commit"),
        ("model.safetensors", "X-Linked-Etag"),
        ("model.safetensors", "X-Repo-Commit"),
    ],
)
def test_headers_that_name_files_are_hashes(hub: Hub, tmp_path: Path, file: str, header: str, value: str) -> None:
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    value = value.format(tmp_path)
    hub.headers["HEAD", file] = {header: f'"{value}"' if header != "X-Repo-Commit" else value}
    for force in (False, True):
        with pytest.raises(CheckpointError, match=rf"{file}: refused, the server sends '.*40 or 64 hexadecimal digits"):
            SeRankDet.from_pretrained(NAME, force_download=force)
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("entry", ["sha", "oid", "blobId", "sha256"])
def test_listings_that_name_files_hold_hashes(hub: Hub, tmp_path: Path, entry: str) -> None:
    hub.listed[entry] = "../../../escaped"
    message = "loaded"
    try:
        SeRankDet.from_pretrained(NAME)
    except CheckpointError as error:
        message = str(error)
    # older clients don't ask for the listing that has `oid`
    unasked = entry == "oid" and not [request for request in hub.requests if "/tree/" in request.path]
    assert "refused, the server sends '../../../escaped' as" in message or unasked
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_without_end(hub: Hub, tmp_path: Path, file: str) -> None:
    hub.endless.add(file)
    with pytest.raises(CheckpointError, match=rf"{file}: more bytes come than the \d+ that it can have; stopped"):
        SeRankDet.from_pretrained(NAME)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 2**20


def test_a_listing_of_any_size(hub: Hub) -> None:
    hub.headers["GET", "main"] = {"Content-Length": str(2**40)}
    with pytest.raises(CheckpointError, match=r"1099511627776 bytes, expected at most 16777216"):
        SeRankDet.from_pretrained(NAME)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_larger_than_it_is_listed(hub: Hub, tmp_path: Path, file: str) -> None:
    hub.sizes[file] = 300
    with pytest.raises(CheckpointError, match=rf"{file}: \d+ bytes, expected at most 300"):
        SeRankDet.from_pretrained(NAME)
    assert not [path for path in (tmp_path / "cache").rglob("blobs/*") if path.stat().st_size > 1000]


def test_a_byte_now_and_then_meets_the_deadline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serank.checkpoints.hub_guard.SECONDS", 1.0)
    monkeypatch.setattr("serank.checkpoints.hub_guard.SLOWEST", 10**9)
    hub.endless.add("model.safetensors")
    hub.pause = 0.05
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not there after 1 s, given up"):
        SeRankDet.from_pretrained(NAME)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("request_", [("GET", "main"), ("HEAD", "config.json"), ("GET", "model.safetensors")])
def test_a_header_without_end_meets_the_deadline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, request_: tuple[str, str]
) -> None:
    """Every byte comes in time for the client, which waits for the next."""
    monkeypatch.setattr("serank.checkpoints.hub_guard.SECONDS", 1.0)
    monkeypatch.setattr("serank.checkpoints.hub_guard.SLOWEST", 10**9)
    hub.dripping.add(request_)
    hub.pause = 0.05
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"not there after 1 s, given up"):
        SeRankDet.from_pretrained(NAME)
    assert time.monotonic() - start < 30


def test_a_server_that_never_answers_meets_the_deadline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client itself waits without a time-out."""
    monkeypatch.setattr("serank.checkpoints.hub_guard.SECONDS", 1.0)
    monkeypatch.setattr("serank.checkpoints.hub_guard.SLOWEST", 10**9)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 600)
    hub.delay["GET", "model.safetensors"] = 20
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not there after 1 s, given up"):
        SeRankDet.from_pretrained(NAME)


@pytest.mark.parametrize("header", [{"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}])
def test_a_server_that_wants_to_be_asked_in_an_hour(hub: Hub, header: dict[str, str]) -> None:
    hub.headers["GET", "main"] = header
    hub.down = 429
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1 answers 429 and wants to be asked again in 3600 s"):
        SeRankDet.from_pretrained(NAME)


def test_compressed_answers_are_refused(hub: Hub) -> None:
    """Few bytes of them can become very many."""
    hub.headers["GET", "config.json"] = {"Content-Encoding": "gzip"}
    with pytest.raises(CheckpointError, match=r"config\.json: refused, the server compresses"):
        SeRankDet.from_pretrained(NAME)


def test_the_client_is_left_as_it_was(hub: Hub) -> None:
    before = {kind: list(hooks) for kind, hooks in get_session().event_hooks.items()}
    SeRankDet.from_pretrained(NAME)
    assert get_session().event_hooks == before
