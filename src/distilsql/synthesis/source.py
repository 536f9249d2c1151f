"""Source: the database that pairs are made about. Whatever synthesis reads, it reads here.

An engine is known in this file alone: how a bounded sample of a table is taken, and how our own SQL is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distilsql.databases.job import Execution, Job, Outcome, Row, make_job
from distilsql.databases.reading import quoted_name, read
from distilsql.databases.schema import Schema, Table, introspect

# Of SQLite's virtual machine, a second or two: no statement of a profile scans a large table to its end.
PROFILE_STEPS = 20_000_000
# What one kept query may cost, the same on every machine: some seconds of one core, a scan of ten million rows.
QUERY_STEPS = 300_000_000
# A longer text is cut when it is sampled, and taken for free text.
LONGEST_SAMPLED_TEXT = 120


@dataclass(frozen=True)
class TableSample:
    """Some rows of a table. `rows` may be all of them (`is_whole`); `row_count` is then exact, else an estimate."""

    rows: tuple[Row, ...]
    row_count: int
    is_whole: bool


@dataclass(frozen=True)
class Source:
    """`place` is what a person called the database, `dialect` sqlglot's name of its SQL."""

    db_id: str
    place: str
    path: Path
    schema: Schema
    dialect: str = "sqlite"

    def read(self, sql: str) -> Execution:
        """One SELECT of ours, stopped where it would scan a large table. Raises DatabaseUnavailable."""
        return read(self.path, sql, max_steps=PROFILE_STEPS)

    def job(self, sql: str, path: Path | None = None) -> Job:
        """A query under the limits of serving, on this database or on a variant of it at `path`."""
        return replace(make_job(path or self.path, sql, mode="serving"), max_steps=QUERY_STEPS)

    def sample(self, table: Table, count: int) -> TableSample:
        """Up to `count` rows: of a large table half of them its first ones, half spread over it; of a view that takes
        too long to compute, none."""
        cells = ", ".join(map(_sampled_cell, (column.name for column in table.columns)))
        name = quoted_name(table.name)
        highest = None if table.is_view else self._highest_row(name)
        if highest is not None and highest > count:
            rows = self.read(
                f"SELECT {cells} FROM {name} WHERE rowid IN (SELECT rowid FROM {name} LIMIT {count // 2}) "
                f"OR rowid IN ({', '.join(map(str, _spread(highest, count - count // 2)))})"
            )
            if rows.outcome is Outcome.ROWS:
                whole = len(rows.rows) < count // 2  # numbers with gaps: there are not so many rows
                return TableSample(rows.rows, len(rows.rows) if whole else highest, whole)
        rows = self.read(f"SELECT {cells} FROM {name} LIMIT {count + 1}")
        found = rows.rows if rows.outcome is Outcome.ROWS else ()
        return TableSample(found[:count], len(found), len(found) <= count and rows.outcome is Outcome.ROWS)

    def _highest_row(self, name: str) -> int | None:
        """The highest row number, which SQLite finds without a scan; None where rows have no number."""
        found = self.read(f"SELECT max(rowid) FROM {name}")
        value = found.rows[0][0] if found.outcome is Outcome.ROWS and found.rows else None
        return value if isinstance(value, int) else None


def _sampled_cell(name: str) -> str:
    column = quoted_name(name)
    return (
        f"CASE typeof({column}) WHEN 'text' THEN substr({column}, 1, {LONGEST_SAMPLED_TEXT}) "
        f"WHEN 'blob' THEN x'' ELSE {column} END"
    )


def _spread(highest: int, count: int) -> Sequence[int]:
    return sorted({1 + number * (highest - 1) // max(count - 1, 1) for number in range(count)})


def open_source(path: Path) -> Source:
    """The SQLite database at `path`. Raises DatabaseUnavailable if it cannot be read, DataError without a table."""
    return Source(path.stem, str(path), path, introspect(path))
