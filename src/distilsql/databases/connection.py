"""Opening a SQLite file so that nothing can be written to it."""

import sqlite3
from pathlib import Path

from distilsql.databases.sqlite_worker import read_only_uri
from distilsql.errors import DataError


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that can only read; text that is not UTF-8 is decoded ignoring the bad bytes.

    Raises DataError if the file does not exist (SQLite itself would create it).
    """
    if not path.is_file():
        raise DataError(f"There is no database file {path}; check the data folder or the path given.")
    connection = sqlite3.connect(read_only_uri(str(path.resolve())), uri=True)
    connection.text_factory = _decode
    return connection


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", errors="ignore")
