"""The databases of a Spider-format benchmark: `tables.json` beside folders of `<db_id>/<db_id>.sqlite`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distilsql.data.records import Problem, Record, RecordError, is_there, read_json
from distilsql.databases.schema import Comments, comments_of, schema_from_tables_json


@dataclass(frozen=True)
class Catalogue:
    """The databases that `tables_json` lists, their files looked for in `folders` in this order."""

    tables_json: Path
    folders: tuple[Path, ...]

    def locate(self, record: Record) -> tuple[str, Path]:
        """The record's db_id and its database file: the first that exists, else where it should be.

        Raises RecordError if the db_id is not listed.
        """
        db_id = record.text("db_id")
        if db_id not in self.listed:
            message = f"'{db_id}' is not in {self.tables_json}; check the spelling of the db_id"
            raise record.error("unknown_db_id", "db_id", message)
        candidates = [folder / db_id / f"{db_id}.sqlite" for folder in self.folders]
        return db_id, next((path for path in candidates if is_there(path)), candidates[-1])

    def comments(self, db_id: str, path: Path) -> Comments:
        """The human-readable names that `tables_json` has for the tables and columns of `db_id`."""
        return comments_of(schema_from_tables_json(self.listed[db_id]))

    @cached_property
    def listed(self) -> dict[str, dict[str, Any]]:
        """The records of `tables_json` by db_id. Raises RecordError if it cannot be read."""
        rows = read_json(self.tables_json)
        if not isinstance(rows, list):
            message = "expected a JSON list with one record for each database"
            raise RecordError(Problem("malformed", self.tables_json, None, "", message))
        return {_db_id(self.tables_json, index, row): row for index, row in enumerate(rows)}


def _db_id(file: Path, index: int, row: Any) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("db_id"), str):
        raise RecordError(Problem("malformed", file, index, "db_id", "the record has no db_id"))
    return row["db_id"]
