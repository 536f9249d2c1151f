import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distilsql.databases.connection import open_read_only
from distilsql.errors import DataError


def test_a_connection_can_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a b?#%.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (c TEXT); INSERT INTO t VALUES (CAST(x'61ff62' AS TEXT));")
    with closing(open_read_only(path)) as connection:
        assert connection.execute("SELECT c FROM t").fetchall() == [
            ("ab",)
        ]  # the byte that is no UTF-8 is left out
        for statement in ("INSERT INTO t VALUES (1)", "DROP TABLE t", "CREATE TABLE u (c)"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute(statement)


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no database file"):
        open_read_only(tmp_path / "new.sqlite")
    assert list(tmp_path.iterdir()) == []
