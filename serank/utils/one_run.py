"""One run at a time in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from serank.utils.distributed import from_main, is_main
from serank.utils.files import locked


@contextmanager
def only_run(folder: Path, lock: str, clean: Callable[[], object]) -> Iterator[None]:
    """Keeps other runs out of `folder`; all processes of this run go on together, or fail if it is taken.

    Args:
        folder: where the run writes.
        lock: name of the lock file in it, which is there as long as the run.
        clean: removes what a killed run left; called in process 0, before any process goes on.

    Raises:
        BlockingIOError: another run holds the folder.
    """
    with ExitStack() as stack:
        taken = False
        if is_main():
            try:
                stack.enter_context(locked(folder / lock))
            except BlockingIOError:
                taken = True
            else:
                clean()
        if from_main(taken):
            raise BlockingIOError(f"{folder}: another run is writing to this folder; wait for it or choose another one")
        yield
