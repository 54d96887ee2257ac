"""Files of a Hub repository: fetched at one commit, checked, and pushed in one commit.

huggingface_hub does the work, so its environment variables hold: HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, HF_HUB_CACHE
and the time-outs HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serank.checkpoints.hub_errors import UnreachableError, explained
from serank.errors import CheckpointError
from serank.utils.files import sha256

__all__ = ["Repository", "check_repo_id", "check_revision", "push"]

PART = r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPO_ID = re.compile(f"{PART}/{PART}")
COMMIT = re.compile(r"[0-9a-f]{40}")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
SHA256 = re.compile(r"[0-9a-f]{64}")


def check_repo_id(repo_id: str) -> None:
    """Refuses what is no `owner/name`; the cache keeps a folder of that name.

    Raises:
        CheckpointError: names the id.
    """
    if not REPO_ID.fullmatch(repo_id) or any(part in repo_id for part in ("..", "--")) or repo_id.endswith(".git"):
        raise CheckpointError(
            f"{repo_id!r:.200} is no Hub id; expected owner/name, of letters, digits, '-', '_' and '.' in ASCII"
        )


def check_revision(revision: str) -> None:
    """Refuses what can't be a branch, tag or commit; the cache keeps a file of that name.

    Raises:
        CheckpointError: names the revision.
    """
    if len(revision) > 200 or ".." in revision or not REVISION.fullmatch(revision):
        raise CheckpointError(f"revision must be a branch, tag or commit; got {revision!r:.200}")


@dataclass
class Repository:
    """A repository on the Hub, read at one commit.

    Attributes:
        repo_id: `owner/name`.
        revision: branch, tag or commit; `None` means the branch `main`. With the first file fetched it becomes that
            file's commit, so that files of two commits never mix.
        token: access token; `True` takes the stored one and `False` sends none.
        cache_dir: folder of the cache; `None` takes the client's.
        force_download: fetch files anew although they are cached.
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

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        self.revision = "main" if self.revision is None else self.revision
        check_revision(self.revision)
        self.cache_dir = None if self.cache_dir is None else Path(self.cache_dir).expanduser()

    def fetch(self, file: str, limit: int) -> Path:
        """A file of at most `limit` bytes, from the cache or downloaded into it.

        Of a cached commit nothing is asked of the Hub; for a branch or tag one request finds its commit. Where the
        Hub can't be reached the commit that was last seen is taken, with a warning.

        Raises:
            CheckpointError: says which of these it is and what to do: no such repository, revision or file, access
                refused, no network, time-out, offline and not cached, too large, damaged.
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
        """The file in the cache, if that is all there is to ask: for a commit, or offline."""
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
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

        cached = self._in_cache(file)
        known = None if self.force_download else cached
        try:
            with explained(str(self), file):
                # one short request of our own: it bounds the size, and fails at once where the client would retry
                found = get_hf_file_metadata(
                    hf_hub_url(self.repo_id, file, revision=self.revision),
                    token=self.token,
                    timeout=constants.HF_HUB_ETAG_TIMEOUT,
                )
            if found.commit_hash is None:
                raise UnreachableError(
                    f"{self}: {constants.ENDPOINT} doesn't answer as a Hub does; check HF_ENDPOINT and the network (a "
                    "proxy, a page to log in)"
                )
        except UnreachableError as error:
            if known is None:
                raise
            warnings.warn(f"{error}. The cached commit {known.parent.name} is used", stacklevel=4)
            return known
        if found.size is not None and found.size > limit:
            raise _too_large(f"{self} {file}", found.size, limit)
        if known is not None and known.parent.name == found.commit_hash:
            return known
        if cached is not None and self.force_download and not cached.is_symlink():
            cached.unlink()  # without links the client would keep it
        with explained(str(self), file):
            return Path(
                hf_hub_download(
                    self.repo_id,
                    file,
                    revision=self.revision,
                    token=self.token,
                    cache_dir=self.cache_dir,
                    force_download=self.force_download,
                )
            )


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

    Args:
        folder: where the files are.
        files: their names, the same on the Hub.
        repo_id: `owner/name`.
        private: of a new repository; `None` takes the owner's default. `True` refuses one that exists and is public.
        token: access token with the right to write; `None` takes the stored one.
        revision: branch, `None` means `main`.
        message: of the commit.
        keep: files that are left as they are where the branch has them.

    Returns:
        Address of the commit.

    Raises:
        CheckpointError: an id or revision of a wrong form, or the Hub refused or couldn't be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    from serank._version import __version__

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
    """Compares a large file with its SHA-256, which the cache has as the name of what `path` links to."""
    name = path.readlink().name if path.is_symlink() else ""
    if not SHA256.fullmatch(name):  # a small file, or a cache without links
        return
    if sha256(path) != name:
        raise CheckpointError(f"{what}: damaged, its SHA-256 isn't the Hub's; load it once with force_download=True")
