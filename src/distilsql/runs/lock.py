"""One process at a time works on a run. The operating system lets the lock go with its process, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distilsql.errors import RunError


class RunInUse(RunError):
    """Another process is at work on the run."""


@contextmanager
def hold(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Work on `folder` alone. The lock lies beside it, as `.NAME.lock`, so that the folder may be deleted meanwhile.

    Whoever holds a folder may hold it again, in the same thread. With `wait`, until another process lets it go.

    Raises:
        RunInUse: another process holds the folder, and `wait` is false.
        RunError: the lock cannot be written.
    """
    path = folder.absolute()
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise RunInUse(
            f"Another process is at work on {folder}. Wait until it has finished, or stop it; what it has done is kept."
        ) from error
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}. Choose another --out.") from error
    try:
        yield
    finally:
        lock.release()
