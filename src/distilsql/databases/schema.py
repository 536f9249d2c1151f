"""Schema: tables, columns and keys of a database, from `tables.json` or by introspection of the file.

There is one canonical form, and both readers give it:

- tables and columns in the file's own order and spelling; SQLite's own tables (`sqlite_sequence`, …) left out;
- views after the tables, those left out that refer to what is not there;
- foreign keys table by table, in the order of `PRAGMA foreign_key_list` (which is also that of `tables.json`),
  each once; a reference without a column means the referred table's primary key, and one to a table or column
  that does not exist is left out;
- `Column.type` is the declared type in lower case, `text` where none is declared;
- every column of a composite primary key is marked.

`tables.json` (Spider, BIRD) knows less than the file: it has one of five type families instead of the declared
type, and of a composite primary key Spider keeps one column. It knows one thing more, the human-readable names.
So where the file exists it is read for the structure and `tables.json` adds only the comments
(`describe`); `schema_from_tables_json` alone serves where there is no file. Of what is no SQLite file the catalogue
says all of it, comments too; its tables come by name, and its types in the shortest words of its dialect (`int`,
`varchar(20)`, `decimal(8, 2)`).

Over all databases of Spider the two readers agree but for two foreign keys that `tables.json` lacks and eight types
that it gives as number.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from distilsql.databases.dialect import common_type, name_in
from distilsql.databases.job import Outcome
from distilsql.databases.reading import quoted_name, quoted_text, read, read_catalogue, read_rows
from distilsql.databases.url import DatabaseUrl, Place
from distilsql.errors import DataError

log = logging.getLogger(__name__)
_NAMED = 5  # tables in a sentence


@dataclass(frozen=True)
class Column:
    """A column: `name` as the database spells it, its declared `type` in lower case (`text` if none is declared),
    whether it is (part of) the primary key, and a human-readable `comment` (may be empty)."""

    name: str
    type: str
    is_primary_key: bool = False
    comment: str = ""


@dataclass(frozen=True)
class Table:
    """A table or a view: `name` as the database spells it, `columns` in their declared order, and a human-readable
    `comment` (may be empty)."""

    name: str
    columns: tuple[Column, ...]
    comment: str = ""
    is_view: bool = False


@dataclass(frozen=True)
class ForeignKey:
    """`table.column` refers to `referred_table.referred_column`."""

    table: str
    column: str
    referred_table: str
    referred_column: str


@dataclass(frozen=True)
class Schema:
    """The tables, views and foreign keys of a database, in the canonical form described above.

    Attributes:
        tables: tables in the order in which they were created, then views. At least one, if read by `introspect`.
        foreign_keys: single-column references, grouped by referring table; both ends exist in `tables`. A composite key
            is one entry per column.
    """

    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()


def introspect(path: Place) -> Schema:
    """The Schema of a database: of a SQLite file from the file alone (so without comments), of any other from its
    catalogue. Tables that the user may not read are left out, and named in a warning.

    Raises DatabaseUnavailable if the database is missing, locked, damaged, no SQLite database or not to be reached,
    DataError if it has no table.
    """
    return _from_catalogue(path) if isinstance(path, DatabaseUrl) else _from_file(path)


def _from_catalogue(url: DatabaseUrl) -> Schema:
    found = read_catalogue(url)
    denied, hidden = found["denied"], found.get("hidden", ())
    if denied:
        _warn_once(
            f"{url}: its user may not read {_listed(denied)}: no question can be about that. "
            "To change it: GRANT SELECT."
        )
    if hidden:
        _warn_once(
            f"{url}: no question can be about {_listed(hidden)}: the bare name means the table of an earlier schema "
            "of the search path."
        )
    if not found["tables"]:
        cure = "check the URL"
        if denied:
            cure = "let its user read them: GRANT SELECT"
        elif elsewhere := found.get("elsewhere"):
            names = ",".join(name_in(name, url.engine) for name in elsewhere)
            cure = f"other schemas have some: write ?search_path={names} behind the URL"
        raise DataError(f"{url} has no table that can be read, so no question can be asked of it; {cure}.")
    tables = tuple(
        Table(
            table["name"],
            tuple(
                Column(
                    column["name"],
                    common_type(column["type"], url.engine),
                    column["is_primary_key"],
                    column["comment"],
                )
                for column in table["columns"]
            ),
            table["comment"],
            table["is_view"],
        )
        for table in found["tables"]
    )
    shown = {(table.name, column.name) for table in tables for column in table.columns}
    keys = (
        ForeignKey(key["table"], column, key["referred_table"], referred)
        for key in found["foreign_keys"]
        for column, referred in zip(key["columns"], key["referred_columns"], strict=True)
    )
    return Schema(
        tables,
        tuple(
            key
            for key in dict.fromkeys(keys)
            if {(key.table, key.column), (key.referred_table, key.referred_column)} <= shown
        ),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if names[_NAMED:] else "")


@lru_cache(maxsize=64)
def _warn_once(warning: str) -> None:
    """A schema is read many times over, by a server every few seconds."""
    log.warning(warning)


def _from_file(path: Path) -> Schema:
    found = read_rows(
        path,
        "SELECT name, type = 'view' FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, rowid",
    )
    shadows = shadow_tables(path)
    tables = tuple(
        _introspect_table(path, str(name), bool(is_view))
        for name, is_view in found
        if name not in shadows and _can_be_read(path, str(name))
    )
    if not tables:
        raise DataError(f"{path} has no table, so no question can be asked of it; check the path.")
    return Schema(tables, _introspect_foreign_keys(path, tables))


def shadow_tables(path: Path) -> frozenset[str]:
    """The tables that a virtual table, such as one for full-text search, keeps its content in."""
    return frozenset(name for name, kind in table_kinds(path).items() if kind == "shadow")


def table_kinds(path: Path) -> dict[str, str]:
    """By name: `table`, `view`, `virtual` or `shadow`. Of SQLite before 3.37, which cannot tell, nothing."""
    listed = read(path, "SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
    return {str(name): str(kind) for name, kind in listed.rows}


def _can_be_read(path: Path, name: str) -> bool:
    """Whether SQLite can prepare a query: what a view reads may be gone, a virtual table's module not loaded."""
    return read(path, f"EXPLAIN SELECT * FROM {quoted_name(name)}").outcome is Outcome.ROWS


def _introspect_table(path: Path, name: str, is_view: bool) -> Table:
    rows = read_rows(
        path,
        f"SELECT name, type, pk, hex(name) FROM pragma_table_xinfo({quoted_text(name)}) WHERE hidden != 1",
    )
    columns = tuple(
        Column(str(column), _declared(str(kind)), bool(pk))
        for column, kind, pk, written in rows
        # A name with bytes that are not UTF-8 cannot be asked for; without them, quoted, it would be read as a text.
        if str(column).encode().hex().upper() == written
    )
    return Table(name, columns, is_view=is_view)


def _declared(kind: str) -> str:
    return " ".join(kind.lower().split()) or "text"


def _introspect_foreign_keys(path: Path, tables: tuple[Table, ...]) -> tuple[ForeignKey, ...]:
    spelling = {table.name.lower(): table for table in tables}
    keys = []
    for table in tables:
        rows: Any = read_rows(
            path,
            'SELECT "from", "table", "to", seq '
            f"FROM pragma_foreign_key_list({quoted_text(table.name)}) ORDER BY id, seq",
        )
        for column, referred, referred_column, position in rows:
            target = spelling.get(referred.lower())
            # A key to a table that was never created says nothing that a query could use.
            if target is not None and (name := _referred_column(target, referred_column, position)):
                keys.append(ForeignKey(table.name, _spelled(table, column) or column, target.name, name))
    return tuple(dict.fromkeys(keys))


def _referred_column(target: Table, name: str | None, position: int) -> str | None:
    """`name` as `target` spells it; where none is declared, the column at `position` of its primary key."""
    if name is not None:
        return _spelled(target, name)
    primary = [column.name for column in target.columns if column.is_primary_key]
    return primary[position] if position < len(primary) else None


def _spelled(table: Table, name: str) -> str | None:
    return next((column.name for column in table.columns if column.name.lower() == name.lower()), None)


def schema_from_tables_json(record: Mapping[str, Any]) -> Schema:
    """The Schema in one record of a `tables.json` (Spider, BIRD).

    Types are the five families of `tables.json`. Spider lists one column of each composite primary key, and only
    that one is marked here, as nothing in the record tells the others; BIRD lists them all as a nested list.
    Raises DataError naming the db_id and the field that is missing or does not fit.
    """
    try:
        return _schema_from_record(record)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        name = record.get("db_id", "(no db_id)") if isinstance(record, Mapping) else repr(record)
        raise DataError(
            f"tables.json, database {name}: {type(error).__name__} {error}; "
            "expected table_names_original, column_names_original, column_types, primary_keys and foreign_keys."
        ) from error


def _schema_from_record(record: Mapping[str, Any]) -> Schema:
    table_names = record["table_names_original"]
    columns = record["column_names_original"]
    primary = set(_flatten(record["primary_keys"]))
    per_table: list[list[Column]] = [[] for _ in table_names]
    rows = zip(columns, record["column_types"], record["column_names"], strict=True)
    for index, ((table, name), kind, (_, comment)) in enumerate(rows):
        if table >= 0:  # index 0 is the `*` of all tables
            per_table[table].append(Column(name, kind, index in primary, comment))
    tables = tuple(
        Table(name, tuple(own), comment)
        for name, own, comment in zip(table_names, per_table, record["table_names"], strict=True)
    )
    keys = dict.fromkeys(
        ForeignKey(table_names[columns[a][0]], columns[a][1], table_names[columns[b][0]], columns[b][1])
        for a, b in record["foreign_keys"]
    )
    return Schema(tuple(table for table in tables if not _is_internal(table.name)), tuple(keys))


def _flatten(keys: list[int | list[int]]) -> list[int]:
    return [index for key in keys for index in (key if isinstance(key, list) else [key])]


def _is_internal(table: str) -> bool:
    return table.lower().startswith("sqlite_")


@dataclass(frozen=True)
class Comments:
    """Human-readable names and descriptions, looked up by lower-case names: `columns[table, column]`."""

    tables: Mapping[str, str]
    columns: Mapping[tuple[str, str], str]


def comments_of(schema: Schema) -> Comments:
    return Comments(
        {table.name.lower(): table.comment for table in schema.tables},
        {
            (table.name.lower(), column.name.lower()): column.comment
            for table in schema.tables
            for column in table.columns
        },
    )


def describe(schema: Schema, comments: Comments) -> Schema:
    """`schema` with the comments that `comments` has for its tables and columns; the others stay as they are."""

    def described(table: Table) -> Table:
        name = table.name.lower()
        columns = tuple(
            replace(column, comment=comments.columns.get((name, column.name.lower())) or column.comment)
            for column in table.columns
        )
        return replace(table, columns=columns, comment=comments.tables.get(name) or table.comment)

    return replace(schema, tables=tuple(described(table) for table in schema.tables))
