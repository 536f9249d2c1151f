"""A lock on a folder, so that only one training or reproduction at a time works in it.

The operating system releases the lock when its process ends, however that happens; the leftover file means nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distilsql.errors import RunError

LOCK_FILE = ".lock"


class RunInUse(RunError):
    """Another process is working in the folder."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock on `folder`, which is created if necessary. The same thread may acquire it again.

    Raises:
        RunInUse: another process holds the folder.
        RunError: the folder cannot be written.
    """
    lock = FileLock(folder.absolute() / LOCK_FILE, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunInUse(
            f"Another process is working on {folder}. Wait until it has finished, or stop it; its work so far is kept."
        ) from error
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def contents(folder: Path) -> list[Path]:
    """The contents of `folder`, which need not exist, without the lock file."""
    return [path for path in folder.iterdir() if path.name != LOCK_FILE] if folder.is_dir() else []
