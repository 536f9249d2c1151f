"""Rows of a demo database, drawn from its Domain, and the SQLite file that holds them."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distilsql.data.demo.domain import Category, Content, Domain, Label, Number, TableSpec, sql_type
from distilsql.data.dice import Dice

Value = str | int

# Some parents stay without children, so that "without any" has an answer.
CHILDLESS_SHARE = 0.2


@dataclass(frozen=True)
class FilledDomain:
    """A Domain with its rows: `rows[table]` in the order of `id`, each row in the order of `column_names`."""

    domain: Domain
    rows: Mapping[str, tuple[tuple[Value, ...], ...]]

    def values(self, table: TableSpec, column: str) -> tuple[Value, ...]:
        position = table.column_names.index(column)
        return tuple(row[position] for row in self.rows[table.name])


def fill(domain: Domain, seed: str) -> FilledDomain:
    """Draw every row of `domain`; the same seed gives the same rows."""
    rows: dict[str, tuple[tuple[Value, ...], ...]] = {}
    for table in domain.tables:
        dice = Dice(f"{seed}/{domain.db_id}/{table.name}")
        columns = [_column_values(content, table.row_count, domain, dice) for content in table.content]
        rows[table.name] = tuple(zip(range(1, table.row_count + 1), *columns, strict=True))
    return FilledDomain(domain, rows)


def _column_values(content: Content, count: int, domain: Domain, dice: Dice) -> list[Value]:
    if isinstance(content, Label):
        return list(dice.sample(content.values, count))
    if isinstance(content, Number):
        return list(dice.sample(range(content.low, content.high + 1, content.step), count))
    choices: list[Value]
    if isinstance(content, Category):
        choices = list(content.values)
    else:
        parents = range(1, domain.table(content.parent).row_count + 1)
        choices = list(dice.sample(parents, round(len(parents) * (1 - CHILDLESS_SHARE))))
    # Uneven weights, so that groups differ in size and the most common value is one value.
    weights = {choice: 1.0 + 3.0 * rank / len(choices) for rank, choice in enumerate(dice.shuffled(choices))}
    return [dice.weighted(weights) for _ in range(count)]


def connect(filled: FilledDomain, path: Path | None = None) -> sqlite3.Connection:
    """A connection to the database, written to `path` (which must not exist) or held in memory."""
    connection = sqlite3.connect(path or ":memory:")
    for table in filled.domain.tables:
        connection.execute(_create_table(table))
        marks = ", ".join("?" for _ in table.column_names)
        connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", filled.rows[table.name])
    connection.commit()
    return connection


def write_database(filled: FilledDomain, path: Path) -> None:
    with closing(connect(filled, path)):
        pass


def _create_table(table: TableSpec) -> str:
    lines = ["id integer PRIMARY KEY", *(f"{column.name} {sql_type(column)}" for column in table.content)]
    lines += [f"FOREIGN KEY ({link.name}) REFERENCES {link.parent} (id)" for link in table.links]
    return f"CREATE TABLE {table.name} (\n  " + ",\n  ".join(lines) + "\n)"
