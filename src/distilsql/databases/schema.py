"""Schema: tables, columns and keys of a database, from `tables.json` or by introspection of the file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """`name` as the database spells it; `comment` is a human-readable description (may be empty)."""

    name: str
    type: str
    is_primary_key: bool = False
    comment: str = ""


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    comment: str = ""


@dataclass(frozen=True)
class ForeignKey:
    """`table.column` refers to `referred_table.referred_column`."""

    table: str
    column: str
    referred_table: str
    referred_column: str


@dataclass(frozen=True)
class Schema:
    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
