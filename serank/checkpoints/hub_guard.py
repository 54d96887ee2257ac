"""Bounds on what a Hub server can make huggingface_hub do: time, bytes, and the names of files in the cache.

The client takes commit hashes and ETags from the server as names in its cache, follows any `Retry-After`, and reads as
many bytes as come. A `Guard` looks at each of its requests and answers while one call of it runs. It can't look into
downloads by hf_xet, which speaks to the storage itself: for those the time is bounded, and size and hash are checked
afterwards. A thread of the client that hangs beyond the deadline is left behind until the server closes the connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from contextvars import copy_context
from importlib import import_module
from threading import Lock, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from serank.checkpoints.hub_errors import UnreachableError
from serank.errors import CheckpointError

T = TypeVar("T")

SECONDS = 60.0
"""Time that any download may take, beside that for its bytes."""
SLOWEST = 50_000
"""Bytes a second below which a download is given up."""
MAX_ANSWER = 2**24
"""Largest answer of the Hub's API, in bytes; the listing of a repository of 10,000 files has about 3 MB."""

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
HASHES = ("sha", "oid", "blobId", "sha256", "xetHash")
HOOKS = Lock()


class Guard:
    """Watches one call of huggingface_hub.

    Args:
        what: repository, revision and file, for messages.
        limit: bytes that the file may have.
    """

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self.seconds = SECONDS + limit / SLOWEST
        self.deadline = time.monotonic() + self.seconds
        self.name = uuid4().hex
        self.user_agent = {"download": self.name}
        """To pass to the client: tells the requests of this call from others."""

    def run(self, work: Callable[[], T]) -> T:
        """Calls `work` in a thread, whose requests are checked, and waits for it until the deadline.

        Raises:
            UnreachableError: the deadline has passed, or the server wants to be asked again after it.
            CheckpointError: a hash of a wrong form, too many bytes, or an encoding that hides their number.
        """
        outcome: Future[T] = Future()

        def task() -> None:
            try:
                with self._hooked():
                    outcome.set_result(work())
            except BaseException as error:  # raised again for the caller
                outcome.set_exception(error)

        Thread(target=copy_context().run, args=(task,), daemon=True).start()
        try:
            return outcome.result(max(0.0, self.deadline - time.monotonic()))
        except FutureTimeoutError:
            if outcome.done():
                raise
            raise self._late() from None

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Adds the checks to the client's session; they end with the call, which may be after the deadline."""
        from huggingface_hub import get_session

        session: Any = get_session()
        hooks = {"request": self._request, "response": self._response}
        with HOOKS:
            # new lists, since another thread may be going through the old ones
            session.event_hooks = {kind: [*session.event_hooks[kind], hook] for kind, hook in hooks.items()}
        try:
            yield
        finally:
            with HOOKS:
                session.event_hooks = {
                    kind: [other for other in session.event_hooks[kind] if other != hook]
                    for kind, hook in hooks.items()
                }

    def _request(self, request: Any) -> None:
        if self.name not in request.headers.get("user-agent", ""):
            return
        self._check_time()
        request.headers["Accept-Encoding"] = "identity"  # compressed bytes would say nothing about their number
        # handed on to redirected requests
        request.extensions.setdefault("serank_listing", "/api/models/" in request.url.path)
        request.extensions["trace"] = self._trace

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Ends the call where no connection is made: the client would go on in a new session, without the checks."""
        if ".connect_" in event and event.endswith(".failed"):
            error = info.get("exception")
            kind = TimeoutError if "Timeout" in type(error).__name__ else ConnectionError
            raise kind(f"{error or type(error).__name__}")

    def _response(self, response: Any) -> None:
        request = response.request
        if self.name not in request.headers.get("user-agent", ""):
            return
        self._check_time()
        self._check_wait(response)
        if request.method == "HEAD":
            self._check_names(response)
            return
        listing = request.extensions.get("serank_listing", True)
        self._count(response, MAX_ANSWER if listing else self.limit)
        if listing and response.status_code == 200:
            self._check_listing(response)

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise self._late()

    def _late(self) -> UnreachableError:
        return UnreachableError(
            f"{self.what}: not there after {self.seconds:.0f} s, given up; try again, or download it with another "
            "program and load the folder"
        )

    def _check_wait(self, response: Any) -> None:
        """Refuses to wait beyond the deadline; the client waits as long as it is told."""
        if response.status_code < 400:
            return
        told = [response.headers.get(name, "") for name in ("retry-after", "ratelimit")]
        found = re.findall(r"(?:^|t=)\s*(\d{1,18})", "\n".join(told), re.MULTILINE)
        seconds = max(map(int, found), default=0)
        if time.monotonic() + seconds > self.deadline:
            raise UnreachableError(
                f"{self.what}: {response.url.host} answers {response.status_code} and wants to be asked again in "
                f"{seconds} s; try again then"
            )

    def _check_names(self, response: Any) -> None:
        """Checks the headers that name files in the cache."""
        headers = response.headers
        self._check_hash("commit", headers.get("x-repo-commit"))
        if response.is_redirect and not urlsplit(headers.get("location", "")).netloc:
            return  # the client goes on to where the file is
        if response.status_code < 400:
            etag = headers.get("x-linked-etag") or headers.get("etag")
            self._check_hash("ETag", etag and etag.removeprefix("W/").strip('"'))

    def _check_hash(self, name: str, value: Any) -> None:
        if value is not None and not (isinstance(value, str) and HASH.fullmatch(value)):
            raise CheckpointError(
                f"{self.what}: refused, the server sends {value!r:.100} as {name}, where a Hub sends 40 or 64 "
                "hexadecimal digits; check HF_ENDPOINT and the network"
            )

    def _count(self, response: Any, limit: int) -> None:
        """Makes the answer's stream end with an error after `limit` bytes or the deadline."""
        headers = response.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise CheckpointError(f"{self.what}: refused, the server compresses what was asked for as it is")
        if (declared := headers.get("content-length", "")).isdecimal() and int(declared[:18]) > limit:
            raise CheckpointError(f"{self.what}: {declared} bytes, expected at most {limit}")
        stream = response.stream

        def counted(_: Any) -> Iterator[bytes]:
            count = 0
            for block in stream:
                count += len(block)
                self._check_time()
                if count > limit:
                    raise CheckpointError(f"{self.what}: more bytes come than the {limit} that it can have; stopped")
                yield block

        base = import_module(type(response).__module__.partition(".")[0]).SyncByteStream  # of httpx or httpx2
        response.stream = type("Counted", (base,), {"__iter__": counted, "close": lambda _: stream.close()})()

    def _check_listing(self, response: Any) -> None:
        """Checks the hashes in an answer of the API, which may name files in the cache too."""
        try:
            response.read()
            content = response.json()
        except (ValueError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise self._no_hub() from error
        entries = content if isinstance(content, list) else [content]
        for entry in entries:
            if not isinstance(entry, dict):
                raise self._no_hub()
            siblings = entry.get("siblings")
            for part in [entry, *(siblings if isinstance(siblings, list) else [])]:
                for holder in (part, part.get("lfs") if isinstance(part, dict) else None):
                    if isinstance(holder, dict):
                        for name in HASHES:
                            self._check_hash(name, holder.get(name))
        following = str(response.links.get("next", {}).get("url", ""))
        if following and "/api/models/" not in urlsplit(following).path:
            raise self._no_hub()

    def _no_hub(self) -> UnreachableError:
        from huggingface_hub import constants

        return UnreachableError(
            f"{self.what}: {constants.ENDPOINT} doesn't answer as a Hub does; check HF_ENDPOINT and the network (a "
            "proxy, a page to log in)"
        )
