"""Opening a SQLite file so that nothing can be written to it."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from distilsql.errors import DataError


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that can only read; text that is not UTF-8 is decoded ignoring the bad bytes.

    Raises DataError if the file does not exist (SQLite itself would create it).
    """
    if not path.is_file():
        raise DataError(f"There is no database file {path}; check the data folder or the path given.")
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
    connection.text_factory = _decode
    return connection


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", errors="ignore")
