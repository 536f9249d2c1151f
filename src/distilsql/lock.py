"""One training or reproduction at a time works in a folder. The operating system lets the lock go with its process,
however that ends; the file that stays behind holds nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distilsql.errors import RunError

LOCK_FILE = ".lock"


class RunInUse(RunError):
    """Another process is at work in the folder."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Work in `folder` alone, which is made if need be.

    Whoever holds a folder may hold it again, in the same thread.

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
            f"Another process is at work on {folder}. Wait until it has finished, or stop it; what it has done is "
            "kept."
        ) from error
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def contents(folder: Path) -> list[Path]:
    """What lies in `folder`, which need not exist, but for the lock."""
    return [path for path in folder.iterdir() if path.name != LOCK_FILE] if folder.is_dir() else []
