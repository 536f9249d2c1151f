"""Random variants of a SQLite database: the same schema, other rows.

Values come from the database's own columns, from the constants of queries about it and from near-misses of both;
some tables are empty, some rows are repeated in all but their key. Primary keys stay unique and foreign keys
find their parent, as far as the schema itself allows it; a row that the schema refuses is left out. Everything follows
from the seed.
"""

import random
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distilsql.databases.job import Cell, Outcome, Row
from distilsql.databases.reading import quoted_name, quoted_text, read, read_rows
from distilsql.databases.schema import table_kinds
from distilsql.errors import DataError

KEPT_ROWS = 400
KEPT_VALUES = 300
# A variant's tables have up to one of these many rows; how many values a column draws from varies as widely.
TABLE_SIZES = (1, 3, 8, 20, 45)
POOL_SIZES = (1, 2, 4, 12, KEPT_VALUES)
EMPTY_SHARE = 0.04
COPIED_ROW_SHARE = 0.5
CHANGED_CELL_SHARE = 0.25
REPEATED_ROW_SHARE = 0.15
NULL_SHARE = 0.05


@dataclass(frozen=True)
class _Reference:
    """Columns of a table, by position, that hold a row of `parent_columns` of `parent`."""

    columns: tuple[int, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    nullable: tuple[bool, ...]
    key: tuple[int, ...]
    references: tuple[_Reference, ...]
    rows: tuple[Row, ...]
    is_virtual: bool = False

    @cached_property
    def values(self) -> tuple[tuple[Cell, ...], ...]:
        """The distinct values of each column, without NULL."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.columns)
        return tuple(tuple(dict.fromkeys(v for v in column if v is not None)) for column in columns)


@dataclass(frozen=True)
class _Statement:
    """What creates a table, index or view. A variant does without the optional ones that cannot be created."""

    sql: str
    is_optional: bool


@dataclass(frozen=True)
class Template:
    """What variants of one database are made from; `statements` create its tables, indexes and views."""

    statements: tuple[_Statement, ...]
    tables: tuple[_Table, ...]
    constants: Mapping[str, tuple[Cell, ...]]


def read_template(path: Path, constants: Iterable[tuple[str, Cell]]) -> Template:
    """Read the schema and a sample of the rows of the database at `path`; `constants` are (column, value) pairs.

    Virtual tables that cannot be read, as their module is not loaded, are left out. Raises DataError if anything else
    in it cannot be read.
    """
    found: Any = read_rows(
        path,
        "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'index', 'view') AND sql IS NOT NULL",
    )
    kinds = table_kinds(path)
    # Shadow tables are made by the statement that creates their virtual table.
    objects = [row for row in found if not row[0].startswith("sqlite_") and kinds.get(row[0]) != "shadow"]
    statements, tables = [], []
    for name, kind, sql in objects:
        is_virtual = kinds.get(name) == "virtual"
        if is_virtual and not _can_be_sampled(path, name):
            continue
        statements.append(_Statement(sql, is_virtual or kind == "index"))
        if kind == "table":
            tables.append(_read_table(path, name, is_virtual))
    by_column: dict[str, list[Cell]] = {}
    for column, value in constants:
        by_column.setdefault(column, []).append(value)
    kept = {column: tuple(dict.fromkeys(values)) for column, values in by_column.items()}
    return Template(tuple(statements), _parents_first(tables), kept)


def _can_be_sampled(path: Path, name: str) -> bool:
    return read(path, f"SELECT * FROM {quoted_name(name)} LIMIT 1").outcome is Outcome.ROWS


def _columns(path: Path, table: str) -> list[Any]:
    """(position, name, declared type, NOT NULL, place in the primary key), generated columns left out: they follow from
    the others."""
    return list(
        read_rows(path, f'SELECT cid, name, type, "notnull", pk FROM pragma_table_info({quoted_text(table)})')
    )


def _read_table(path: Path, name: str, is_virtual: bool) -> _Table:
    info = _columns(path, name)
    columns = tuple(row[1] for row in info)
    positions = {column.lower(): index for index, column in enumerate(columns)}
    selected = ", ".join(map(quoted_name, columns))
    rows = read_rows(path, f"SELECT {selected} FROM {quoted_name(name)} LIMIT {KEPT_ROWS}")
    grouped: dict[int, list[tuple[str, str, str | None]]] = {}
    keys: Any = read_rows(
        path, f'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list({quoted_text(name)})'
    )
    for number, parent, column, parent_column in keys:
        grouped.setdefault(number, []).append((parent, column, parent_column))
    references = [_read_reference(path, parts, positions) for parts in grouped.values()]
    return _Table(
        name=name,
        columns=columns,
        types=tuple(row[2].lower() for row in info),
        nullable=tuple(not row[3] and not row[4] for row in info),
        key=tuple(
            position for position, row in sorted(enumerate(info), key=lambda item: item[1][4]) if row[4]
        ),
        references=tuple(reference for reference in references if reference is not None),
        rows=rows,
        is_virtual=is_virtual,
    )


def _read_reference(
    path: Path, parts: Sequence[tuple[str, str, str | None]], positions: Mapping[str, int]
) -> _Reference | None:
    """None where the schema's foreign key names columns that do not exist, or are generated."""
    parent = parts[0][0]
    info = _columns(path, parent)
    key = [row[1] for row in sorted(info, key=lambda row: row[4]) if row[4]]
    named = [column for _, _, column in parts if column is not None] or key
    known = {row[1].lower() for row in info}
    if len(named) != len(parts) or any(column.lower() not in known for column in named):
        return None
    if any(column.lower() not in positions for _, column, _ in parts):
        return None
    columns = tuple(positions[column.lower()] for _, column, _ in parts)
    return _Reference(columns, parent.lower(), tuple(column.lower() for column in named))


def _parents_first(tables: Sequence[_Table]) -> tuple[_Table, ...]:
    """Parents before children; where keys form a circle, in the order of the schema."""
    ordered: list[_Table] = []
    remaining = list(tables)
    while remaining:
        waiting = {table.name.lower() for table in remaining}
        ready = next(
            (t for t in remaining if not any(r.parent in waiting - {t.name.lower()} for r in t.references)),
            remaining[0],
        )
        ordered.append(ready)
        remaining.remove(ready)
    return tuple(ordered)


def write_variant(template: Template, path: Path, seed: str) -> None:
    """Write one variant to `path`, which must not exist. The same template and seed give the same rows.

    Raises DataError if the schema cannot be recreated, for example because it needs the database's own program.
    """
    dice = random.Random(seed)
    connection = sqlite3.connect(path)
    try:
        connection.executescript("PRAGMA journal_mode=off; PRAGMA synchronous=off; BEGIN;")
        for statement in template.statements:
            with suppress(*([sqlite3.OperationalError] if statement.is_optional else [])):
                connection.execute(statement.sql)
        size = dice.choice(TABLE_SIZES)
        for table in template.tables:
            rows = (
                [] if dice.random() < EMPTY_SHARE else _random_rows(template, table, connection, size, dice)
            )
            _insert(connection, table, rows)
        _delete_orphans(connection, template.tables)
        connection.commit()
    except sqlite3.Error as error:
        raise DataError(f"No variant can be made of the database behind {path} ({error}).") from error
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, table: _Table, rows: Iterable[Row]) -> None:
    names, slots = ", ".join(map(quoted_name, table.columns)), ", ".join("?" * len(table.columns))
    statement = f"INSERT OR IGNORE INTO {quoted_name(table.name)} ({names}) VALUES ({slots})"
    # OR IGNORE does not cover types that do not fit, nor can SQLite hold every number of Python's. A virtual table may
    # take no rows at all (fts5vocab, dbstat).
    refused = (
        sqlite3.IntegrityError,
        OverflowError,
        *([sqlite3.OperationalError] if table.is_virtual else []),
    )
    for row in rows:
        with suppress(*refused):
            connection.execute(statement, row)


def _random_rows(
    template: Template, table: _Table, connection: sqlite3.Connection, size: int, dice: random.Random
) -> list[Row]:
    pools = [_pool(template, table, index, dice) for index in range(len(table.columns))]
    parents = {ref: _parent_rows(connection, ref) for ref in table.references}
    rows: list[Row] = []
    for number in range(dice.randint(1, size)):
        if rows and dice.random() < REPEATED_ROW_SHARE:
            row = list(dice.choice(rows))
        elif table.rows and dice.random() < COPIED_ROW_SHARE:
            row = list(dice.choice(table.rows))
            for index in range(len(row)):
                if dice.random() < CHANGED_CELL_SHARE:
                    row[index] = _cell(table, index, pools, dice)
        else:
            row = [_cell(table, index, pools, dice) for index in range(len(table.columns))]
        _renew_key(table, row, number, pools, dice)
        if all(_adopt(table, row, ref, parents[ref], rows, dice) for ref in table.references):
            rows.append(tuple(row))
    return rows


def _pool(template: Template, table: _Table, index: int, dice: random.Random) -> list[Cell]:
    """The values one column draws from in this variant: few, so that rows collide, or many."""
    constants = list(template.constants.get(table.columns[index].lower(), ()))
    strangers = [value for values in template.constants.values() for value in values]
    own = list(table.values[index][:KEPT_VALUES])
    like = _same_kind(own, table.types[index])
    fitting = [value for value in constants if like(value)]
    near = [miss for value in fitting for miss in _near_misses(value)]
    values = (
        own or [value for value in strangers if like(value)] or [0 if like(0) else "a", 1 if like(1) else "b"]
    )
    drawn = dice.sample(values, min(len(values), dice.choice(POOL_SIZES)))
    return drawn + [value for value in fitting + near if dice.random() < 0.6]


def _same_kind(values: Sequence[Cell], declared: str) -> "_Kind":
    """Whether a constant may stand in a column that holds `values`, or is declared so if it holds none."""
    if values:
        return _Kind(any(isinstance(v, str) for v in values), any(isinstance(v, int | float) for v in values))
    is_number = any(word in declared for word in ("int", "real", "num", "dec", "floa", "doub"))
    return _Kind(not is_number, is_number)


@dataclass(frozen=True)
class _Kind:
    is_text: bool
    is_number: bool

    def __call__(self, value: Cell) -> bool:
        return self.is_text if isinstance(value, str) else self.is_number


def _near_misses(value: Cell) -> tuple[Cell, ...]:
    if isinstance(value, int | float):
        return (value - 1, value + 1)
    if isinstance(value, str) and value:
        return (value + "a", "a" + value, value[:-1], value.swapcase())
    return ()


def _cell(table: _Table, index: int, pools: Sequence[Sequence[Cell]], dice: random.Random) -> Cell:
    if table.nullable[index] and dice.random() < NULL_SHARE:
        return None
    return dice.choice(pools[index])


def _renew_key(
    table: _Table, row: list[Cell], number: int, pools: Sequence[Sequence[Cell]], dice: random.Random
) -> None:
    """Most rows get a key of their own; those that do not are dropped by the table itself where they collide."""
    referring = {index for reference in table.references for index in reference.columns}
    for index in table.key:
        if index in referring:
            continue
        if isinstance(row[index], int) or "int" in table.types[index]:
            row[index] = number + 1 if dice.random() < 0.8 else dice.choice(pools[index])
        elif dice.random() < 0.5:
            row[index] = dice.choice(table.values[index] or pools[index])
            key = row[index]
            if isinstance(key, str) and dice.random() < 0.5:
                row[index] = key + str(number)


def _adopt(
    table: _Table,
    row: list[Cell],
    reference: _Reference,
    parents: Sequence[Row],
    rows: Sequence[Row],
    dice: random.Random,
) -> bool:
    """Point the row at a parent; False where it needs one and there is none."""
    if reference.parent == table.name.lower():
        positions = [[c.lower() for c in table.columns].index(column) for column in reference.parent_columns]
        parents = [tuple(other[position] for position in positions) for other in [*rows, row]]
    if tuple(row[index] for index in reference.columns) in parents and dice.random() < 0.5:
        return True
    may_be_null = all(table.nullable[index] for index in reference.columns)
    if not parents and not may_be_null:
        return False
    chosen = dice.choice(parents) if parents else (None,) * len(reference.columns)
    for index, value in zip(reference.columns, chosen, strict=True):
        row[index] = value
    return True


def _parent_rows(connection: sqlite3.Connection, reference: _Reference) -> list[Row]:
    columns = ", ".join(map(quoted_name, reference.parent_columns))
    return connection.execute(
        f"SELECT {columns} FROM {quoted_name(reference.parent)} ORDER BY {columns}"
    ).fetchall()


def _delete_orphans(connection: sqlite3.Connection, tables: Sequence[_Table]) -> None:
    """Rows whose parent was dropped, as in circles of keys. Ends because every round deletes."""
    by_name = {table.name: table for table in tables}
    while True:
        before = connection.total_changes
        try:
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.OperationalError:  # the schema's own keys are malformed: nothing to keep
            return
        for name, rowid in dict.fromkeys((name, rowid) for name, rowid, *_ in orphans):
            alias = _rowid_alias(by_name[name])
            if rowid is not None and alias is not None:
                connection.execute(f"DELETE FROM {quoted_name(name)} WHERE {alias} = ?", (rowid,))
            else:
                _delete_orphans_by_value(connection, by_name[name])
        if connection.total_changes == before:
            return


def _rowid_alias(table: _Table) -> str | None:
    """A name of the row's number that is no column of the table's own."""
    own = {column.lower() for column in table.columns}
    return next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in own), None)


def _delete_orphans_by_value(connection: sqlite3.Connection, table: _Table) -> None:
    """For rows that have no number (WITHOUT ROWID), or none that can be named."""
    for reference in table.references:
        own = [f"child.{quoted_name(table.columns[index])}" for index in reference.columns]
        others = [f"parent.{quoted_name(column)}" for column in reference.parent_columns]
        known = " AND ".join(f"{column} IS NOT NULL" for column in own)
        same = " AND ".join(f"{other} = {column}" for other, column in zip(others, own, strict=True))
        connection.execute(
            f"DELETE FROM {quoted_name(table.name)} AS child WHERE {known} AND NOT EXISTS "
            f"(SELECT 1 FROM {quoted_name(reference.parent)} AS parent WHERE {same})"
        )
