"""Files derived from a database, kept beside a cache folder and rebuilt when the database has changed."""

import glob
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distilsql.databases.sqlite_worker import database_state
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.files import new_folder


@dataclass(frozen=True)
class FileIdentity:
    """One state of a database file: a write to it, or to its write-ahead log, gives another identity."""

    path: Path
    state: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> "FileIdentity":
        """The identity of the file at `path` now. Raises DatabaseUnavailable if it does not exist."""
        path = path.resolve()
        if not path.is_file():
            raise DatabaseUnavailable(
                f"There is no database file {path}; check the data folder or the path given."
            )
        return cls(path, database_state(str(path)))


def derived_files(file: FileIdentity, build: Callable[[Path], None], version: str, folder: Path) -> Path:
    """The folder with what `build` made of this state of the file, building it if it is not there.

    `version` names the format, so that a newer one is built anew. `build` writes into an empty folder, which
    takes its final name only when it is complete; folders of earlier states of the same file are removed.
    Raises DataError if `folder` cannot be written.
    """
    name = f"{file.path.stem}-{_digest(file.path)}"
    kept = folder / f"{name}-{_digest(version, file.state)}"
    if kept.is_dir():
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_folder(kept) as growing:
            build(growing)
        for stale in set(folder.glob(f"{glob.escape(name)}-*")) - {kept}:
            shutil.rmtree(stale, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} cannot be written ({error.strerror}); "
            "make it writable or set XDG_CACHE_HOME to another place."
        ) from error
    return kept


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
