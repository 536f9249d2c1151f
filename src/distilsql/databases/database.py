"""Database: a SQLite file and its Schema."""

from dataclasses import dataclass
from pathlib import Path

from distilsql.databases.schema import Schema


@dataclass(frozen=True)
class Database:
    """A database that questions are asked about. `path` is a SQLite file that is only ever read."""

    db_id: str
    path: Path
    schema: Schema
