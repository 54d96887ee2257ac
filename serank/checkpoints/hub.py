"""Files of a Hub repository: downloaded at one commit, checked, and pushed in one commit.

huggingface_hub does the transfers, so its environment variables hold: HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN,
HF_HUB_CACHE and the time-outs HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serank._version import __version__
from serank.checkpoints.hub_errors import UnreachableError, explained
from serank.checkpoints.hub_guard import MAX_ANSWER, Guard
from serank.errors import CheckpointError
from serank.utils.digest import sha256

PART = r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPO_ID = re.compile(f"{PART}/{PART}")
COMMIT = re.compile(r"[0-9a-f]{40}")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
SHA256 = re.compile(r"[0-9a-f]{64}")


def check_repo_id(repo_id: str) -> None:
    """Raises CheckpointError for an id that is no `owner/name`; the cache has a folder of that name."""
    if not REPO_ID.fullmatch(repo_id) or any(part in repo_id for part in ("..", "--")) or repo_id.endswith(".git"):
        raise CheckpointError(
            f"{repo_id!r:.200} is no Hub id; expected owner/name, of letters, digits, '-', '_' and '.' in ASCII"
        )


def check_revision(revision: str) -> None:
    """Raises CheckpointError for what can't be a branch, tag or commit; the cache has a file of that name."""
    if len(revision) > 200 or ".." in revision or not REVISION.fullmatch(revision):
        raise CheckpointError(f"revision must be a branch, tag or commit; got {revision!r:.200}")


@dataclass
class Repository:
    """A repository on the Hub, read at one commit.

    Attributes:
        repo_id: `owner/name`.
        revision: branch, tag or commit; `None` means the branch `main`. The first file fetched sets it to that file's
            commit, so that files of two commits never mix.
        token: access token; `True` takes the stored one and `False` sends none.
        cache_dir: folder of the cache; `None` takes the client's.
        force_download: download files although they are cached.
        local_files_only: take files from the cache alone.

    Raises:
        CheckpointError: an id or revision of a wrong form.
    """

    repo_id: str
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False
    listings: dict[str, dict[str, int | None]] = field(default_factory=dict, init=False, repr=False)
    """Sizes in bytes of the files of each commit seen, `None` where the Hub doesn't say."""

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        self.revision = "main" if self.revision is None else self.revision
        check_revision(self.revision)
        self.cache_dir = None if self.cache_dir is None else Path(self.cache_dir).expanduser()

    def fetch(self, file: str, limit: int) -> Path:
        """Path of a file of at most `limit` bytes, from the cache or downloaded into it.

        A cached commit needs no request, a cached branch or tag one that finds its commit. Without an answer of the
        Hub the commit last seen is taken, with a warning.

        Raises:
            CheckpointError: no such repository, revision or file, access refused, no network, time-out, offline and
                not cached, too large, damaged; the message says what to do.
        """
        path = self._cached(file) or self._download(file, limit)
        self.revision = path.parent.name
        if path.stat().st_size > limit:
            raise _too_large(f"{self} {file}", path.stat().st_size, limit)
        _check_hash(path, f"{self} {file}")
        return path

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}"

    def _cached(self, file: str) -> Path | None:
        """The cached file, where the Hub needn't or mustn't be asked: for a commit, or offline."""
        from huggingface_hub import constants

        offline = self.local_files_only or constants.HF_HUB_OFFLINE
        if self.force_download:
            if offline:
                raise CheckpointError(f"{self}: force_download=True needs the network, which is switched off")
            return None
        path = self._in_cache(file)
        if path is None and offline:
            why = "local_files_only=True" if self.local_files_only else "HF_HUB_OFFLINE is set"
            raise CheckpointError(
                f"{self}: neither a local folder nor in the cache ({file} is missing there), and {why}; "
                "load it once with the network"
            )
        return path if offline or COMMIT.fullmatch(str(self.revision)) else None

    def _in_cache(self, file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repo_id, file, revision=self.revision, cache_dir=self.cache_dir)
        return Path(path) if isinstance(path, str) else None

    def _download(self, file: str, limit: int) -> Path:
        from huggingface_hub import constants, snapshot_download

        cached = self._in_cache(file)
        try:
            commit, sizes = self._list(file)
        except UnreachableError as error:
            if cached is None or self.force_download:
                raise
            warnings.warn(f"{error}. The cached commit {cached.parent.name} is used", stacklevel=4)
            return cached
        if file not in sizes:
            raise CheckpointError(f"{self}: the repository has no {file}; serank loads its own checkpoints alone")
        size = sizes[file]
        if size is not None and size > limit:
            raise _too_large(f"{self} {file}", size, limit)
        if cached is not None and not self.force_download and cached.parent.name == commit:
            return cached
        if cached is not None and self.force_download and not cached.is_symlink():
            cached.unlink()  # without links the client would leave it as it is
        guard = Guard(f"{self} {file}", limit if size is None else size)
        with explained(str(self), file):
            folder = guard.run(
                lambda: snapshot_download(
                    self.repo_id,
                    revision=self.revision,
                    allow_patterns=[file],
                    token=self.token,
                    cache_dir=self.cache_dir,
                    force_download=self.force_download,
                    etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
                    user_agent=guard.user_agent,
                    max_workers=1,
                )
            )
        path = Path(folder) / file
        if not path.is_file():
            raise CheckpointError(f"{self}: {file} didn't come; try again with force_download=True")
        return path

    def _list(self, file: str) -> tuple[str, dict[str, int | None]]:
        """Commit of the revision, and the sizes of its files; asks the Hub once."""
        from huggingface_hub import HfApi, constants

        if (known := self.listings.get(str(self.revision))) is not None:
            return str(self.revision), known
        guard = Guard(str(self), MAX_ANSWER)
        api = HfApi(token=self.token, user_agent=guard.user_agent)
        with explained(str(self), file):
            info = guard.run(
                lambda: api.model_info(
                    self.repo_id, revision=self.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
                )
            )
        if info.sha is None or info.siblings is None:
            raise UnreachableError(f"{self}: {constants.ENDPOINT} doesn't answer as a Hub does; check HF_ENDPOINT")
        sizes = {entry.rfilename: entry.size if isinstance(entry.size, int) else None for entry in info.siblings}
        self.listings[info.sha] = sizes
        return info.sha, sizes


def push(
    folder: Path,
    files: Sequence[str],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    keep: Sequence[str] = (),
) -> str:
    """Uploads files of a folder in one commit; the repository and the branch are made if they don't exist.

    Files in `keep` aren't uploaded where the branch has them; the rest as for `Pretrained.push_to_hub`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    check_repo_id(repo_id)
    branch = "main" if revision is None else revision
    check_revision(branch)
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{repo_id}: can't be pushed while HF_HUB_OFFLINE is set; unset it")
    api = HfApi(token=token, library_name="serank", library_version=__version__)
    with explained(f"{repo_id}@{branch}"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise CheckpointError(
                f"{repo_id} exists and is public; make it private on the Hub first, or take another name"
            )
        if branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        chosen = [f for f in files if f not in keep or not api.file_exists(repo_id, f, revision=branch)]
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(path_in_repo=f, path_or_fileobj=folder / f) for f in chosen],
            commit_message=message or f"Checkpoint of serank {__version__}",
            revision=branch,
        )
    return str(commit.commit_url)


def _too_large(what: str, size: int, limit: int) -> CheckpointError:
    return CheckpointError(f"{what}: {size} bytes, expected at most {limit}")


def _check_hash(path: Path, what: str) -> None:
    """Compares a large file with its SHA-256, the name of the file in the cache that `path` links to."""
    name = path.readlink().name if path.is_symlink() else ""
    if not SHA256.fullmatch(name):  # a small file, or a cache without links
        return
    if sha256(path) != name:
        raise CheckpointError(f"{what}: damaged, its SHA-256 isn't the Hub's; load it once with force_download=True")
