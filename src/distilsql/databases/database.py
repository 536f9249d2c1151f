"""Database: a SQLite file or a database elsewhere, and its Schema."""

from dataclasses import dataclass

from distilsql.databases.schema import Schema, introspect
from distilsql.databases.url import Engine, Place, engine_of, id_of, place_of


@dataclass(frozen=True)
class Database:
    """A database that questions are asked about. `path` is a SQLite file or a DatabaseUrl; it is only ever read."""

    db_id: str
    path: Place
    schema: Schema

    @property
    def engine(self) -> Engine:
        """What runs its queries: sqlite, duckdb, postgresql or mysql (MariaDB too)."""
        return engine_of(self.path)


def open_database(url: Place | str, db_id: str = "") -> Database:
    """The database at a path of a SQLite file or at a URL (see `databases.url`), called as its file is unless it is
    given a `db_id`; what it holds is read with `databases.execute.execute(database.path, sql, mode="serving")`.

    Raises DataError if the URL cannot be read, its driver is not installed, or there is no table; DatabaseUnavailable
    if the database is missing or cannot be reached.
    """
    place = place_of(url)
    return Database(db_id or id_of(place), place, introspect(place))
