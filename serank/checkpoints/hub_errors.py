"""Errors of huggingface_hub, translated into `CheckpointError`s that say what to do.

Its releases differ in their exceptions, since it has changed its HTTP library twice (requests, httpx, httpx2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serank.errors import CheckpointError

LOGIN = "log in with `hf auth login`, set HF_TOKEN or pass token"


class UnreachableError(CheckpointError):
    """The Hub gave no answer; what is cached may stand in for it."""


@contextmanager
def explained(what: str, file: str | None = None) -> Iterator[None]:
    """Turns any error of the client within the block into a `CheckpointError`.

    Args:
        what: the repository and revision.
        file: the file that is fetched; `None` while pushing.

    Raises:
        UnreachableError: no network, a time-out, or the server is down.
        CheckpointError: anything else.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # the exceptions of the HTTP libraries have no base in common
        raise _translated(error, what, file) from error


def _translated(error: BaseException, what: str, file: str | None) -> CheckpointError:
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    wrapper = isinstance(error, (errors.LocalEntryNotFoundError, RuntimeError)) or "Force download failed" in str(error)
    if wrapper and error.__cause__ is not None:
        return _translated(error.__cause__, what, file)
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if isinstance(error, errors.GatedRepoError):
        page = f"{hub}/{what.partition('@')[0]}"
        return CheckpointError(f"{what}: access must be granted; ask for it at {page}, then {LOGIN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{what}: the repository has no such revision; give a branch, tag or commit of it")
    if isinstance(error, errors.EntryNotFoundError) and file is not None:
        return CheckpointError(f"{what}: the repository has no {file}; serank loads its own checkpoints alone")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        if file is None:
            return CheckpointError(f"{what}: {hub} refuses to be written to ({status}); check the name, then {LOGIN}")
        return CheckpointError(
            f"{what}: neither a local folder nor a repository that {hub} shows ({status}); check the name, and if it "
            f"is private, {LOGIN}"
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return CheckpointError(f"{what}: token=True, but no token is stored; {LOGIN}")
    if "Consistency check failed" in str(error):
        return CheckpointError(f"{what}: {file} came incomplete ({reason}); try again with force_download=True")
    if isinstance(error, ValueError) or (status is not None and status < 500):
        return CheckpointError(f"{what}: refused: {str(error).strip()[:1000]}")
    network = isinstance(error, (ConnectionError, TimeoutError))
    if isinstance(error, OSError) and error.errno is not None and not network:  # of the disk
        return CheckpointError(f"{what}: {error}")
    missing = "" if file is None else "no local folder, and "
    if any("Timeout" in type(cause).__name__ for cause in _chain(error)):
        return UnreachableError(
            f"{what}: {missing}{hub} didn't answer in time; try again, or allow more seconds with HF_HUB_ETAG_TIMEOUT "
            "and HF_HUB_DOWNLOAD_TIMEOUT"
        )
    return UnreachableError(
        f"{what}: {missing}no answer of {hub} ({reason}); check the network and HF_ENDPOINT, try again"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
