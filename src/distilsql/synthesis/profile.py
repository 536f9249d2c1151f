"""Profile: what is in a database, table by table, from bounded samples; no large table is scanned."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilsql.databases.job import Cell
from distilsql.databases.schema import Table
from distilsql.progress import progress
from distilsql.synthesis.identifiers import expanded, singular_of, words_of
from distilsql.synthesis.keys import Key, declared_keys, inferred_keys
from distilsql.synthesis.roles import ColumnProfile, profile_column
from distilsql.synthesis.sampling import TableSample, make_sampler
from distilsql.synthesis.source import Source

log = logging.getLogger(__name__)

SAMPLED_ROWS = 1000
_NAMED = 5  # tables in a sentence


@dataclass(frozen=True)
class TableProfile:
    """`row_count` is an estimate unless `is_exact`. `key` are the columns that tell rows apart, declared or inferred;
    empty where nothing does."""

    name: str
    columns: tuple[ColumnProfile, ...]
    key: tuple[str, ...]
    row_count: int
    is_exact: bool
    is_view: bool = False
    comment: str = ""

    def column(self, name: str) -> ColumnProfile:
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True)
class Profile:
    tables: tuple[TableProfile, ...]
    keys: tuple[Key, ...]

    def table(self, name: str) -> TableProfile:
        return next(table for table in self.tables if table.name == name)


def profile(source: Source) -> Profile:
    """Time and memory grow with the number of columns, not of rows. Raises DatabaseUnavailable."""
    tables = source.schema.tables
    samples: dict[str, TableSample] = {}
    sampler = make_sampler(source)
    with progress("profiling", len(tables), unit="table") as advance:
        for table in tables:
            samples[table.name] = sampler.sample(table, SAMPLED_ROWS)
            advance()
    _say_unreadable(source, samples)
    cells = {table.name: _by_column(table, samples[table.name]) for table in tables}
    entities = {singular_of(" ".join(words_of(table.name))) for table in tables}
    declared = declared_keys(source.schema)
    unique = {table.name: _unique_columns(table, cells[table.name], entities) for table in tables}
    keys = (*declared, *inferred_keys(source, declared, cells, unique))
    referring = {(key.child, column) for key in keys for column in key.columns}
    profiled = []
    for table in tables:
        key = tuple(column.name for column in table.columns if column.is_primary_key)
        key = key or tuple(unique[table.name][:1])
        columns = tuple(
            profile_column(
                column,
                expanded(words_of(column.name), entities),
                cells[table.name].get(column.name, ()),
                is_key=(table.name, column.name) in referring
                or (column.name in key and _is_id(column.name, key)),
            )
            for column in table.columns
        )
        sample = samples[table.name]
        profiled.append(
            TableProfile(
                table.name, columns, key, sample.row_count, sample.is_whole, table.is_view, table.comment
            )
        )
    return Profile(tuple(profiled), keys)


def _say_unreadable(source: Source, samples: Mapping[str, TableSample]) -> None:
    failed = [(name, sample.failure) for name, sample in samples.items() if sample.failure]
    if failed:
        named = "; ".join(f"{name} ({failure})" for name, failure in failed[:_NAMED])
        more = f" and {len(failed) - _NAMED} more" if failed[_NAMED:] else ""
        log.warning(f"{source}: no question is about what could not be read: {named}{more}.")


def _is_id(column: str, key: tuple[str, ...]) -> bool:
    """A primary key of one column may be a name, such as a country's: then people speak of it."""
    return len(key) > 1 or words_of(column)[-1] not in ("name", "title")


def _by_column(table: Table, sample: TableSample) -> Mapping[str, Sequence[Cell]]:
    columns = zip(*sample.rows, strict=True) if sample.rows else ((),) * len(table.columns)
    return {column.name: cells for column, cells in zip(table.columns, columns, strict=True)}


def _unique_columns(table: Table, cells: Mapping[str, Sequence[Cell]], entities: set[str]) -> list[str]:
    """The columns that a row may be referred to by: the primary key if it is one column, else those named like an id
    whose sampled values are all there and all different."""
    primary = [column.name for column in table.columns if column.is_primary_key]
    if len(primary) == 1:
        return primary
    if table.is_view or primary:
        return []
    found = []
    for column in table.columns:
        values = cells[column.name]
        differ = len(values) > 1 and None not in values and len(set(values)) == len(values)
        if differ and expanded(words_of(column.name), entities)[-1] in ("id", "code", "key", "number"):
            found.append(column.name)
    return found
