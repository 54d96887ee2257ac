"""A Hub on this machine: as much of its HTTP protocol as the client speaks to load and to push checkpoints."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, file_download

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def lone_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client away from the user's token, cache and proxy; it waits for little."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 5)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Points the client, which reads HF_ENDPOINT when it is imported, at a server."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # before 1.0 a copy
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@dataclass
class Repository:
    """Commits by hash, branches by name."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Files, branch: str = "main") -> str:
        """Adds a commit with these files to those of the branch."""
        content = self.commits.get(self.branches.get(branch, ""), {}) | files
        seed = repr((len(self.commits), sorted(content.items())))
        commit = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[commit] = content
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]


class Hub:
    """Serves `repositories` on the loopback interface while used as a context.

    Large files (`*.safetensors`) are redirected to another host name, as the Hub redirects to its storage.

    Attributes:
        repositories: by id.
        objects: large files by SHA-256.
        token: that may read private repositories and write.
        requests: what came in.
        cut: bytes after which the connection is cut, once, by file name.
        delay: seconds before an answer, by method and path's end, such as `("GET", "config.json")`.
        damage: file names whose content is served with other bytes of the same number.
        sizes: what is said of a file's size, where that isn't the truth.
        down: answer everything with this status.
        complaint: what the check of a card's metadata finds wrong.
        headers: headers sent in place of others or beside them, by method and path's end.
        listed: entries of the API's answers sent in place of others, such as `sha` or `sha256`.
        endless: file names whose content has no end and no `Content-Length`.
        dripping: answers whose header has no end, by method and path's end.
        raw: whole answers, status line and all, in place of others, by method and path's end; then the connection ends.
        pause: seconds before each byte of what has no end.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.token = "hf_secret"
        self.requests: list[Request] = []
        self.cut: dict[str, int] = {}
        self.delay: dict[tuple[str, str], float] = {}
        self.damage: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.down: int | None = None
        self.complaint = ""
        self.headers: dict[tuple[str, str], dict[str, str]] = {}
        self.listed: dict[str, str] = {}
        self.endless: set[str] = set()
        self.dripping: set[tuple[str, str]] = set()
        self.raw: dict[tuple[str, str], bytes] = {}
        self.pause = 0.0
        self.stop = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage(self) -> str:
        return f"http://localhost:{self.port}"

    def __enter__(self) -> Hub:
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()  # ends the delays
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def asked(self, method: str, end: str) -> list[Request]:
        """Requests with that method whose path ends so."""
        return [r for r in self.requests if r.method == method and urlsplit(r.path).path.endswith(end)]


def blob_id(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        for (method, end), seconds in self.hub.delay.items():
            if method == self.command and path[-1] == end:
                self.hub.stop.wait(seconds)
        try:
            if (self.command, path[-1]) in self.hub.dripping:
                self._drip()
            elif (whole := self.hub.raw.get((self.command, path[-1]))) is not None:
                self.wfile.write(whole)
                self.close_connection = True
            else:
                self._route(path)
        except (BrokenPipeError, ConnectionResetError):  # a client that stopped waiting
            self.close_connection = True

    def _route(self, path: list[str]) -> None:
        if self.hub.down is not None:
            self._error(self.hub.down, "", "out of order")
        elif path[:2] == ["api", "validate-yaml"]:
            errors = [{"message": self.hub.complaint}] if self.hub.complaint else []
            self._json({"warnings": [], "errors": errors}, 400 if errors else 200)
        elif path[:3] == ["api", "repos", "create"]:
            self._create()
        elif path[0] == "storage" and self.command == "PUT":
            self.hub.objects[path[1]] = self.body
            self._send(200, b"")
        elif path[0] == "storage":
            self._content(path[2], self.hub.objects[path[1]], {})
        elif path[:2] == ["api", "models"] and len(path) > 3:
            self._api("/".join(path[2:4]), path[4:])
        elif path[2:3] == ["resolve"] and len(path) >= 5:
            self._resolve("/".join(path[:2]), path[3], "/".join(path[4:]))
        elif path[-4:] == ["info", "lfs", "objects", "batch"]:
            self._batch()
        else:
            self._error(404, "", "no such page")

    def _allowed(self) -> bool:
        return bool(self.headers.get("Authorization") == f"Bearer {self.hub.token}")

    def _open(self, repo_id: str, *, write: bool = False) -> Repository | None:
        """The repository, or `None` after an error was sent."""
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            # so the Hub hides from strangers which private names exist
            self._error(404 if self._allowed() else 401, "RepoNotFound", "Repository not found")
        elif write and not self._allowed():
            self._error(403, "", "you have no right to write here")
        elif repository.gated and not self._allowed():
            self._error(401, "GatedRepo", "Access to this model is restricted")
        elif repository.private and not self._allowed():
            self._error(401, "RepoNotFound", "Repository not found")
        else:
            return repository
        return None

    def _resolve(self, repo_id: str, revision: str, file: str) -> None:
        repository = self._open(repo_id)
        if repository is None:
            return
        commit = repository.resolve(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", "Invalid rev id")
            return
        headers = {"X-Repo-Commit": commit}
        content = repository.commits[commit].get(file)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found", headers)
        elif file.endswith(".safetensors"):
            oid = hashlib.sha256(content).hexdigest()
            self.hub.objects.setdefault(oid, content)
            headers["X-Linked-Etag"] = f'"{oid}"'
            headers["X-Linked-Size"] = str(self.hub.sizes.get(file, len(content)))
            headers["Location"] = f"{self.hub.storage}/storage/{oid}/{file}"
            self._send(302, b"", headers)
        else:
            self._content(file, content, headers | {"ETag": f'"{blob_id(content)}"'})

    def _content(self, file: str, content: bytes, headers: dict[str, str]) -> None:
        """A file, whole or from where the client asks."""
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked and self.command == "GET":
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if file in self.hub.damage:
            content = content[: len(content) // 2] + bytes(byte ^ 1 for byte in content[len(content) // 2 :])
        if file in self.hub.endless and self.command == "GET":
            self._without_end()
            return
        size = self.hub.sizes.get(file, len(content) - start) if self.command == "HEAD" else len(content) - start
        end = self.hub.cut.pop(file) if file in self.hub.cut and self.command == "GET" else None
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(size)} | self._replaced()).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:end])
        if end is not None:
            self.close_connection = True

    def _drip(self) -> None:
        """A header that goes on and on, a byte at a time."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.hub.stop.wait(self.hub.pause):
            self.wfile.write(b"a")
            self.wfile.flush()
        self.close_connection = True

    def _without_end(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        while not self.hub.stop.wait(self.hub.pause):
            self.wfile.write(bytes(1 if self.hub.pause else 2**16))
        self.close_connection = True

    def _replaced(self) -> dict[str, str]:
        end = urlsplit(self.path).path.rpartition("/")[2]
        return self.hub.headers.get((self.command, end), {})

    def _api(self, repo_id: str, rest: list[str]) -> None:
        post = self.command == "POST"
        repository = self._open(repo_id, write=post)
        if repository is None:
            return
        commit = repository.resolve(rest[1] if len(rest) > 1 else "main")
        if post and rest[0] == "branch":
            if rest[1] in repository.branches:
                self._error(409, "", "this branch exists")
                return
            repository.branches[rest[1]] = repository.branches["main"]
            self._json({})
        elif commit is None:
            self._error(404, "RevisionNotFound", "Invalid rev id")
        elif post and rest[0] == "preupload":
            files = [f["path"] for f in json.loads(self.body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
            self._json({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif post and rest[0] == "commit":
            self._commit(repo_id, repository, rest[1])
        elif rest[:1] == ["tree"]:
            self._json([self._entry(p, c, "path", "oid", "oid") for p, c in repository.commits[commit].items()])
        else:  # model info
            held = repository.commits[commit].items()
            siblings = [self._entry(p, c, "rfilename", "blobId", "sha256") for p, c in held]
            sha = self.hub.listed.get("sha", commit)
            self._json({"id": repo_id, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []})

    def _entry(self, path: str, content: bytes, name: str, blob: str, digest: str) -> dict[str, Any]:
        """A file as the API lists it; `name`, `blob` and `digest` are what an answer calls these."""
        size = self.hub.sizes.get(path, len(content))
        entry: dict[str, Any] = {"type": "file", name: path, "size": size, blob: blob_id(content)}
        if path.endswith(".safetensors"):
            entry["lfs"] = {digest: hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
        if "lfs" in entry:
            entry["lfs"] |= {key: value for key, value in self.hub.listed.items() if key in entry["lfs"]}
        return entry | {key: value for key, value in self.hub.listed.items() if key in entry}

    def _create(self) -> None:
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        if not self._allowed():
            self._error(401, "", "Invalid username or password.")
        elif repo_id in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{repo_id}"}, 409)
        else:
            # older clients send `private`, newer ones `visibility`
            private = asked.get("private") is True or asked.get("visibility") == "private"
            repository = self.hub.repositories[repo_id] = Repository(private=private)
            repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
            self._json({"url": f"{self.hub.endpoint}/{repo_id}"})

    def _batch(self) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry: dict[str, Any] = dict(wanted)
            if wanted["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.storage}/storage/{wanted['oid']}"}}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repo_id: str, repository: Repository, branch: str) -> None:
        files: Files = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = repository.commit(files, branch)
        self._json(
            {"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{commit}", "commitOid": commit, "success": True}
        )

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        self._send(status, b"", {"X-Error-Message": message, **codes, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content)), **self._replaced()}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
