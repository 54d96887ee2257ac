"""Hubs, mirrors and proxies that answer wrongly: each has its expected end, in bounded time and within the cache.

`pytest -m slow -s tests/test_hub_scenarios.py` tries them all and prints what came of each kind.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hub_server import Files, Hub, Repository, blob_id, lone_client, use  # noqa: F401 - a fixture for every test here
from mutations import table

from serank import SeRankDet
from serank.errors import CheckpointError

NAME = "owner/net"
CONFIG, WEIGHTS, LISTING = "config.json", "model.safetensors", "main"
DEADLINE = 4.0
"""Seconds for a listing or a file; a load has three of them. Loads that succeed take as long as the machine does."""
MOST_SECONDS = 30.0
MOST_BYTES = 2**20
"""That may be left in the cache."""
LOADED = ""
"""As an expected end: the network that was pushed."""

Change = Callable[[Hub], None]
Answer = tuple[str, str]
"""Method and path's end."""

GET_LISTING, HEAD_CONFIG, GET_CONFIG = ("GET", LISTING), ("HEAD", CONFIG), ("GET", CONFIG)
HEAD_WEIGHTS, GET_WEIGHTS = ("HEAD", WEIGHTS), ("GET", WEIGHTS)
ANSWERS = (GET_LISTING, HEAD_CONFIG, GET_CONFIG, HEAD_WEIGHTS, GET_WEIGHTS)
HTML = b"<!DOCTYPE html><html><body>Log in to the network</body></html>"

NO_HASH = "refused, the server sends .* where a Hub sends 40 or 64 hexadecimal digits"
NO_ANSWER = "no local folder, and no answer of http"
NO_HUB = "doesn't answer as a Hub does; check HF_ENDPOINT"
INCOMPLETE = "came incomplete|peer closed connection"
DAMAGED = r"model\.safetensors: damaged, its SHA-256 isn't the Hub's"
TOO_LARGE = r"\d+ bytes, expected at most|more bytes come than the \d+"
LATE = "not there after 4 s, given up"
LATER = r"answers \d+ and wants to be asked again in \d+ s"
NO_JSON = r"config\.json: can't be read as JSON|config\.json: .*must|config\.json: expected an object"


@dataclass(frozen=True)
class Scenario:
    """A server, and what loading from it must end with.

    Attributes:
        kind: of what is wrong.
        name: what exactly.
        change: makes the server so.
        end: `LOADED`, or what the error says, as a pattern.
    """

    kind: str
    name: str
    change: Change
    end: str


def answer(status: str, body: bytes = b"", length: int | None = -1, **headers: str) -> bytes:
    """A whole answer; `length` is the declared one, -1 for the true one and `None` for none."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return start + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def raw(where: Answer, content: bytes | Callable[[Hub], bytes]) -> Change:
    return lambda hub: hub.raw.update({where: content if isinstance(content, bytes) else content(hub)})


def served(where: Answer, content: Callable[[bytes], bytes]) -> Change:
    """A whole answer made from the file that is asked for."""
    return raw(where, lambda hub: content(files(hub)[where[1]]))


def header(where: Answer, **values: str) -> Change:
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return lambda hub: hub.headers.update({where: named})


def files(hub: Hub) -> Files:
    repository = hub.repositories[NAME]
    return repository.commits[repository.branches["main"]]


def replaced(file: str, content: Callable[[Files], bytes]) -> Change:
    """A repository whose file is another; all hashes are right."""
    return lambda hub: files(hub).update({file: content(files(hub))})


def slow(where: Answer) -> Change:
    return lambda hub: hub.delay.update({where: 60.0})


def dripping(where: Answer) -> Change:
    def change(hub: Hub) -> None:
        hub.dripping.add(where)
        hub.pause = 0.05

    return change


def endless(file: str, pause: float) -> Change:
    def change(hub: Hub) -> None:
        hub.endless.add(file)
        hub.pause = pause

    return change


def listing(content: object) -> Change:
    """An answer of the API in place of its own; text as it is."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return raw(("GET", LISTING), answer("200 OK", body, Content_Type="application/json"))


def listed(**entries: object) -> Change:
    """An answer of the API with other entries."""

    def body(hub: Hub) -> bytes:
        held = {CONFIG: len(files(hub)[CONFIG]), WEIGHTS: len(files(hub)[WEIGHTS])}
        siblings = [{"rfilename": name, "size": size} for name, size in held.items()]
        true = {"id": NAME, "sha": hub.repositories[NAME].branches["main"], "siblings": siblings, "tags": []}
        return answer("200 OK", json.dumps(true | entries).encode(), Content_Type="application/json")

    return raw(("GET", LISTING), body)


def hashes() -> Iterator[Scenario]:
    values = (
        "../../../escaped",
        "/tmp/no-escape",
        "..%2f..%2fescaped",
        "a" * 39,
        "a" * 41,
        "A" * 40,
        "a" * 63 + "/",
        "",
    )
    for where, name in ((HEAD_CONFIG, "ETag"), (HEAD_WEIGHTS, "X_Linked_Etag"), (HEAD_WEIGHTS, "X_Repo_Commit")):
        for value in values:
            sent = f'"{value}"' if "tag" in name else value
            yield Scenario("hash", f"{where} {name} {sent}", header(where, **{name: sent}), NO_HASH)
    own = header(HEAD_WEIGHTS, X_Linked_Etag='"' + "b" * 64 + '"')
    yield Scenario("hash", "of other weights", own, DAMAGED)
    yield Scenario("hash", "of another commit", header(HEAD_CONFIG, X_Repo_Commit="b" * 40), "config.json didn't come")
    yield Scenario(
        "hash", "weak", lambda hub: hub.headers.update({HEAD_CONFIG: {"ETag": weak(files(hub)[CONFIG])}}), LOADED
    )


def weak(content: bytes) -> str:
    return f'W/"{blob_id(content)}"'


def sizes() -> Iterator[Scenario]:
    for value, end in (("0", DAMAGED), ("-1", INCOMPLETE), ("9" * 30, "Not enough free disk"), ("300", INCOMPLETE)):
        yield Scenario("size", f"linked {value}", header(HEAD_WEIGHTS, X_Linked_Size=value), end)
    for where in (GET_CONFIG, GET_WEIGHTS, GET_LISTING):
        lengths = {"-1": NO_ANSWER, "x": NO_ANSWER, str(2**40): TOO_LARGE, "9" * 30: NO_ANSWER}
        for value, end in (lengths | {"10": NO_HUB if where == GET_LISTING else INCOMPLETE}).items():
            yield Scenario("size", f"{where} declares {value}", header(where, Content_Length=value), end)
    for file in (CONFIG, WEIGHTS):
        for size in (10, 2**31, 2**63):
            yield Scenario("size", f"{file} listed with {size}", listed_size(file, size), TOO_LARGE)


def listed_size(file: str, size: int) -> Change:
    return lambda hub: hub.sizes.update({file: size})


def bodies() -> Iterator[Scenario]:
    for where in (GET_CONFIG, GET_WEIGHTS):
        for name, content, end in (
            ("cut", lambda c: answer("200 OK", c[: len(c) // 3], len(c)), INCOMPLETE),
            ("cut, no length", lambda c: answer("200 OK", c[: len(c) // 3], None), INCOMPLETE),
            ("no length", lambda c: answer("200 OK", c, None), LOADED),
            ("longer", lambda c: answer("200 OK", c + b" " * 5000), TOO_LARGE),
            ("longer, no length", lambda c: answer("200 OK", c + b" " * 5000, None), TOO_LARGE),
            ("in chunks", chunked, LOADED),
            ("chunks cut", lambda c: chunked(c)[: len(c) // 3], INCOMPLETE),
            ("empty", lambda _: answer("200 OK"), INCOMPLETE),
            ("a page", lambda _: answer("200 OK", HTML, Content_Type="text/html"), INCOMPLETE),
            ("compressed", lambda c: answer("200 OK", gzip.compress(c), Content_Encoding="gzip"), "server compresses"),
            ("a part", lambda c: answer("206 X", c[9:], Content_Range=f"bytes 9-{len(c) - 1}/{len(c)}"), INCOMPLETE),
            ("no range", lambda c: answer("206 X", c[9:], Content_Range="bytes 9-"), "refused: invalid literal"),
            ("no chunks", lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", NO_ANSWER),
        ):
            yield Scenario("body", f"{where} {name}", served(where, content), end)
    yield Scenario("body", "other bytes of the weights", lambda hub: hub.damage.add(WEIGHTS), DAMAGED)
    yield Scenario("body", "other bytes of the config", lambda hub: hub.damage.add(CONFIG), NO_JSON)
    bomb = answer("200 OK", gzip.compress(bytes(10**7)), Content_Encoding="gzip")
    yield Scenario("body", "a bomb as listing", raw(GET_LISTING, bomb), "server compresses")
    for file in (CONFIG, WEIGHTS):
        yield Scenario("body", f"{file} without end", endless(file, 0), TOO_LARGE)


def slow_ones() -> Iterator[Scenario]:
    for file in (CONFIG, WEIGHTS):
        yield Scenario("slow", f"{file}, a byte now and then", endless(file, 0.05), LATE)
    for where in ANSWERS:
        yield Scenario("slow", f"{where} header without end", dripping(where), LATE)
        yield Scenario("slow", f"{where} no answer", slow(where), LATE)


def statuses() -> Iterator[Scenario]:
    for status, end in {
        401: r"neither a local folder nor a repository .*\(401\)",
        403: r"\(403\)",
        418: "refused: Client error",
        429: "refused: 429",
        500: NO_ANSWER,
        502: NO_ANSWER,
        503: NO_ANSWER,
        504: NO_ANSWER,
        999: NO_ANSWER,
    }.items():
        for where in (GET_LISTING, HEAD_CONFIG, GET_WEIGHTS):
            yield Scenario("status", f"{status} for {where}", raw(where, answer(f"{status} X")), end)
    far = "Wed, 21 Oct 2099 07:28:00 GMT"
    for where in (GET_LISTING, HEAD_CONFIG, GET_WEIGHTS):
        for name, value, end in (
            ("Retry_After", "3600", LATER),
            ("Retry_After", "9" * 40, LATER),
            ("Retry_After", far, NO_ANSWER),
            ("RateLimit", '"api";r=0;t=3600', LATER),
        ):
            yield Scenario(
                "wait", f"{name} {value} {where}", raw(where, answer("503 X", b"", -1, **{name: value})), end
            )


def redirects() -> Iterator[Scenario]:
    for where in (GET_LISTING, HEAD_CONFIG, GET_CONFIG, GET_WEIGHTS):
        for to in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:1/x", "http://[::1", "//127.0.0.1:1/x"):
            change = raw(where, answer("302 Found", Location=to))
            yield Scenario("redirect", f"{where} to {to}", change, f"{NO_ANSWER}|refused: Invalid IPv6 URL")
    for where in ANSWERS:  # to itself
        change = raw(where, answer("302 Found", Location=""))
        yield Scenario("redirect", f"{where} in a circle", change, f"xceeded .*redirects|{LATE}")
    yield Scenario("redirect", "to nowhere", raw(HEAD_WEIGHTS, answer("302 Found")), NO_ANSWER)


def listings() -> Iterator[Scenario]:
    for text in (b"", b"null", b"[1]", b"1e999", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 3000, HTML):
        yield Scenario("listing", repr(text[:20]), listing(text), NO_HUB)
    for text in (b"[]", b"{}"):
        yield Scenario("listing", repr(text), listing(text), NO_ANSWER)
    yield Scenario("listing", "of 16 MB", listing(b" " * (2**24 + 1)), TOO_LARGE)
    strangers = [{"rfilename": "../../escaped", "size": 3}]
    untyped = [{"rfilename": CONFIG, "size": "x"}, {"rfilename": WEIGHTS, "size": []}]
    cases: list[tuple[str, object, str]] = [
        ("sha", None, NO_HUB),
        ("sha", 5, NO_HASH),
        ("sha", "../../escaped", NO_HASH),
        ("sha", ["a" * 40], NO_HASH),
        ("sha", "b" * 40, "no such revision"),
        ("siblings", None, NO_HUB),
        ("siblings", [], r"the repository has no config\.json"),
        ("siblings", strangers, r"the repository has no config\.json"),
        ("siblings", 5, NO_ANSWER),
        ("siblings", [None], NO_ANSWER),
        ("siblings", {"rfilename": CONFIG}, NO_ANSWER),
        ("siblings", untyped, LOADED),
        ("lastModified", "x", "refused: Cannot parse"),
        ("id", 5, LOADED),
    ]
    for name, value, end in cases:
        yield Scenario("listing", f"{name} {value}", listed(**{name: value}), end)


def protocols() -> Iterator[Scenario]:
    for name, where, content in (
        ("closed", GET_LISTING, b""),
        ("closed", GET_WEIGHTS, b""),
        ("no HTTP", GET_LISTING, b"\x00\xff garbage\r\n\r\n"),
        ("no HTTP", HEAD_CONFIG, b"SSH-2.0-x\r\n"),
        ("a header of 1 MB", GET_LISTING, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**20 + b"\r\n\r\n{}"),
        ("10,000 headers", HEAD_CONFIG, b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n"),
        ("two lengths", GET_CONFIG, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nxxxxxxx"),
        ("nothing but 100 Continue", GET_LISTING, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    ):
        yield Scenario("protocol", f"{where} {name}", raw(where, content), NO_ANSWER)


def contents() -> Iterator[Scenario]:
    """Files that are wrong in themselves, and arrive as they are."""
    other = {"width": 2}
    for name, file, content, end in (
        ("a list", CONFIG, lambda _: b"[]", NO_JSON),
        ("a page", CONFIG, lambda _: HTML, NO_JSON),
        ("weights", CONFIG, lambda f: f[WEIGHTS], NO_JSON),
        ("of another width", CONFIG, lambda f: json.dumps(json.loads(f[CONFIG]) | other).encode(), "don't fit|another"),
        ("a page", WEIGHTS, lambda _: HTML, "can't be read as safetensors"),
        ("empty", WEIGHTS, lambda _: b"", "can't be read as safetensors"),
        ("a pickle", WEIGHTS, lambda _: b"\x80\x04N.", "can't be read as safetensors"),
        ("cut", WEIGHTS, lambda f: f[WEIGHTS][:-4], "can't be read as safetensors"),
        ("of 20 MB", WEIGHTS, lambda _: bytes(20_000_000), TOO_LARGE),
    ):
        yield Scenario("content", f"{file}: {name}", replaced(file, content), end)


def scenarios() -> Iterator[Scenario]:
    for kind in (hashes, sizes, bodies, slow_ones, statuses, redirects, listings, protocols, contents):
        yield from kind()


def tried(scenario: Scenario, hub: Hub, model: SeRankDet, cache: Path) -> str:
    """What is wrong with how loading ends, or nothing."""
    start = time.monotonic()
    try:
        loaded = SeRankDet.from_pretrained(NAME, cache_dir=cache, token=hub.token).state_dict()
    except CheckpointError as error:
        end = str(error)
    except Exception as error:  # whatever it is, it is none that the documentation names
        return f"{type(error).__name__}: {error}"
    else:
        end = LOADED
        if not all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items()):
            return "another network"
    seconds = time.monotonic() - start
    held = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
    if end and seconds > MOST_SECONDS:
        return f"{seconds:.1f} s"
    if held > MOST_BYTES:
        return f"{held} bytes in the cache"
    if any("authorization" in r.headers for r in hub.requests if r.headers["host"].startswith("localhost")):
        return "the token went to another host"
    right = end == LOADED if scenario.end == LOADED else re.search(scenario.end, end)
    return "" if right else f"ended with {end!r}"


@pytest.mark.slow
def test_servers_that_answer_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serank.checkpoints.hub_guard.SECONDS", DEADLINE)
    monkeypatch.setattr("serank.checkpoints.hub_guard.SLOWEST", 10**9)
    model = SeRankDet(width=1, threshold=0.25)
    model.save_pretrained(tmp_path / "pushed")
    pushed = {path.name: path.read_bytes() for path in (tmp_path / "pushed").iterdir()}
    before = set(tmp_path.rglob("*"))
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong = []
    for number, scenario in enumerate(scenarios()):
        with Hub() as hub:
            hub.repositories[NAME] = Repository()
            hub.repositories[NAME].commit(dict(pushed))
            use(monkeypatch, hub.endpoint)
            scenario.change(hub)
            problem = tried(scenario, hub, model, tmp_path / "cache" / str(number))
        outside = [path for path in set(tmp_path.rglob("*")) - before if path.relative_to(tmp_path).parts[0] != "cache"]
        if outside:
            problem = f"wrote {outside}"
        if problem:
            wrong.append(f"{scenario.kind}, {scenario.name}: {problem}")
        outcomes[scenario.kind, "wrong" if problem else "loaded" if scenario.end == LOADED else "refused"] += 1
    print("\n" + table(outcomes))
    assert not wrong, "\n".join(wrong)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/no-escape").exists()
    assert sum(outcomes.values()) >= 150
