"""What the cells of a column hold, read within bounds: no query here reads more than the first rows of a large table.

Of a SQLite file all rows are read up to `LARGE_TABLE_ROWS`, enough for the values of every published benchmark. Of any
other database a column's samples are among its table's first rows, and its values among the first `READ_ROWS` rows and,
on PostgreSQL, the most common ones that its statistics hold. A query that takes too long has no values.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from distilsql.databases.dialect import quoted_in
from distilsql.databases.job import Execution, Outcome
from distilsql.databases.reading import quoted_name, read
from distilsql.databases.schema import Table
from distilsql.databases.url import DatabaseUrl, Engine, Place
from distilsql.errors import DatabaseUnavailable, DataError

log = logging.getLogger(__name__)

LARGE_TABLE_ROWS = 2_000_000
READ_ROWS = 100_000
SAMPLED_ROWS = 1_000
QUERY_TIMEOUT_S = 10.0
VIEW_STEPS = 10_000_000  # of SQLite's virtual machine, not seconds: the same samples on every machine

_TEXT_TYPES = ("char", "text", "clob", "string", "enum", "name", "citext")
_AS_TEXT: Mapping[Engine, str] = {"mysql": "CAST({} AS CHAR)", "postgresql": "CAST({} AS text)"}
_COMMON_VALUES = (
    "SELECT tablename, attname, unnest(most_common_vals::text::text[]) FROM pg_stats "
    "WHERE schemaname = ANY(current_schemas(false))"
)


def first_cells(path: Place, table: Table, count: int) -> dict[str, list[Any]]:
    """By column, up to `count` distinct cells, the first ones; null left out. A view that is slow to compute, or fails
    on its rows, has none. Raises DataError if a table cannot be read."""
    if isinstance(path, DatabaseUrl):
        return _first_cells(path, table, count)
    found = {}
    steps = VIEW_STEPS if table.is_view else None
    source = _source(path, table)
    for column in table.columns:
        try:
            found[column.name] = _distinct(
                path, table.name, source, column.name, "IS NOT NULL", count, max_steps=steps
            )
        except DatabaseUnavailable:
            raise
        except DataError:
            if not table.is_view:
                raise
            found[column.name] = []
    return found


def short_texts(
    path: Place, tables: Iterable[Table], *, most: int, longest: int
) -> dict[tuple[str, str], list[Any]]:
    """By table and column, up to `most` distinct texts of up to `longest` characters; views, whose values are those of
    their tables, left out. Raises DataError if a table cannot be read."""
    found: dict[tuple[str, str], list[Any]] = {}
    common = _common_values(path)
    for table in tables:
        if table.is_view:
            continue
        if isinstance(path, DatabaseUrl):
            of_table = _short_texts(path, table, most, longest)
        else:
            of_table = _short_texts_of_file(path, table, most, longest)
        for column, cells in of_table.items():
            more = [cell for cell in common.get((table.name, column), ()) if len(cell) <= longest]
            found[table.name, column] = list(dict.fromkeys([*cells, *more]))
    return found


def _source(path: Any, table: Table) -> str:
    """A table, or the first rows of a large one, for a FROM clause of SQLite."""
    name = quoted_name(table.name)
    if table.is_view:
        return name
    beyond = read(path, f"SELECT 1 FROM {name} LIMIT 1 OFFSET {LARGE_TABLE_ROWS}")
    return f"(SELECT * FROM {name} LIMIT {LARGE_TABLE_ROWS})" if beyond.rows else name


def _short_texts_of_file(path: Any, table: Table, most: int, longest: int) -> dict[str, list[Any]]:
    source = _source(path, table)
    found = {}
    for column in table.columns:
        name = quoted_name(column.name)
        condition = f"IS NOT NULL AND typeof({name}) = 'text' AND length({name}) <= {longest}"
        found[column.name] = _distinct(path, table.name, source, column.name, condition, most)
    return found


def _distinct(
    path: Any,
    table: str,
    source: str,
    column: str,
    condition: str,
    most: int,
    *,
    max_steps: int | None = None,
) -> list[Any]:
    """The distinct cells of a column of a SQLite file; none where they are larger than a worker can hand over."""
    name, limit = quoted_name(column), f"LIMIT {most:d}"
    found = read(
        path, f"SELECT DISTINCT {name} FROM {source} WHERE {name} {condition} {limit}", max_steps=max_steps
    )
    if "no such collation" in found.message:  # one that only the database's own program knows
        sql = f"SELECT DISTINCT {name} COLLATE BINARY FROM {source} WHERE {name} {condition} {limit}"
        found = read(path, sql, max_steps=max_steps)
    if found.outcome not in (Outcome.ROWS, Outcome.TOO_LARGE):
        raise _unreadable(table, column, found)
    return [cell for (cell,) in found.rows]


def _unreadable(table: str, column: str, found: Execution) -> DataError:
    return DataError(
        f"The values of {table}.{column} cannot be read ({found.message}); check the database, or write prompts "
        "without them (prompt.values = false, prompt.matched_values = false)."
    )


def _first_cells(url: DatabaseUrl, table: Table, count: int) -> dict[str, list[Any]]:
    """From the table's first rows; a column that is empty there, from a few more."""
    columns = ", ".join(quoted_in(column.name, url.engine) for column in table.columns)
    source = quoted_in(table.name, url.engine)
    rows = _rows(url, table, f"SELECT {columns} FROM {source} LIMIT {SAMPLED_ROWS}")
    found = {}
    for place, column in enumerate(table.columns):
        cells = list(dict.fromkeys(row[place] for row in rows if row[place] is not None))
        if not cells and len(rows) == SAMPLED_ROWS:
            name = quoted_in(column.name, url.engine)
            cells = _column(url, table, column.name, f"{name} IS NOT NULL", name, count)
        found[column.name] = [_as_literal(cell) for cell in cells[:count]]
    return found


def _as_literal(cell: Any) -> Any:
    return str(cell).lower() if isinstance(cell, bool) else cell


def _short_texts(url: DatabaseUrl, table: Table, most: int, longest: int) -> dict[str, list[Any]]:
    length = "char_length" if url.engine == "mysql" else "length"
    found = {}
    for column in table.columns:
        if column.type.endswith("[]") or not any(word in column.type for word in _TEXT_TYPES):
            continue
        text = _AS_TEXT.get(url.engine, "CAST({} AS varchar)").format(quoted_in(column.name, url.engine))
        condition = f"{text} IS NOT NULL AND {length}({text}) <= {longest}"
        found[column.name] = _column(url, table, column.name, condition, text, most)
    return found


def _column(
    url: DatabaseUrl, table: Table, column: str, condition: str, expression: str, most: int
) -> list[Any]:
    """Distinct values of a column among its table's first rows, in a fixed order."""
    name, source = quoted_in(column, url.engine), quoted_in(table.name, url.engine)
    first = f"(SELECT {name} FROM {source} LIMIT {READ_ROWS}) AS first_rows"
    rows = _rows(url, table, f"SELECT DISTINCT {expression} FROM {first} WHERE {condition} LIMIT {most}")
    return sorted((cell for (cell,) in rows), key=str)


def _rows(url: DatabaseUrl, table: Table, sql: str) -> tuple[Any, ...]:
    """None where the query takes too long or fails on a view's rows. Raises DataError if a table cannot be read."""
    found = read(url, sql, timeout_s=QUERY_TIMEOUT_S)
    if found.outcome in (Outcome.ROWS, Outcome.TOO_LARGE):
        return found.rows
    if found.outcome is not Outcome.TIMEOUT and not table.is_view:
        raise _unreadable(table.name, "*", found)
    log.warning(f"{url}: no values of {table.name} are shown ({found.outcome.value}: {found.message}).")
    return ()


def _common_values(path: Place) -> dict[tuple[str, str], list[str]]:
    """What PostgreSQL's statistics say of large tables; they cover the whole table, and reading them costs nothing."""
    if not isinstance(path, DatabaseUrl) or path.engine != "postgresql":
        return {}
    found: dict[tuple[str, str], list[str]] = {}
    for table, column, value in read(path, _COMMON_VALUES, timeout_s=QUERY_TIMEOUT_S).rows:
        if value is not None:
            found.setdefault((str(table), str(column)), []).append(str(value))
    return found
