"""Files derived from a database, kept beside a cache folder and rebuilt when the database has changed."""

import glob
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from distilsql.databases.fingerprint import state_of
from distilsql.databases.url import DatabaseUrl, Place, file_of, id_of
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.files import new_folder


@dataclass(frozen=True)
class DatabaseIdentity:
    """One state of a database: a write to its file, or to its write-ahead log, gives another identity. Of a server only
    the day is known."""

    path: Place
    state: tuple[int, ...]

    @classmethod
    def of(cls, path: Place) -> "DatabaseIdentity":
        """The identity of a database now. Raises DatabaseUnavailable if its file does not exist."""
        file = file_of(path)
        if file is None:
            return cls(path, (datetime.now(UTC).date().toordinal(),))
        file = file.resolve()
        if not file.is_file():
            raise DatabaseUnavailable(
                f"There is no database file {file}; check the data folder or the path given."
            )
        place = path if isinstance(path, DatabaseUrl) else file
        return cls(place, state_of(place))


def derived_files(
    database: DatabaseIdentity, build: Callable[[Path], None], version: str, folder: Path
) -> Path:
    """The folder with what `build` made of this state of the database, building it if it is not there.

    `version` names the format, so that a newer one is built again. `build` writes into an empty folder, which
    takes its final name only when it is complete; folders of earlier states of the same database are removed.
    Raises DataError if `folder` cannot be written.
    """
    name = f"{id_of(database.path)}-{_digest(database.path)}"
    kept = folder / f"{name}-{_digest(version, database.state)}"
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
