"""Variants of the database on which wrong queries differ from right ones: small SQLite files (`metrics.suites`).

For another engine's database, they are made from a copy of its tables with some of their rows, and of its views as
tables. Queries are translated into SQLite's SQL for them; a query that cannot be translated is not judged there.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from distilsql.databases.reading import quoted_name
from distilsql.databases.schema import Table
from distilsql.databases.url import DIALECTS, Engine
from distilsql.errors import DataError
from distilsql.metrics.suites.variants import KEPT_ROWS, read_template, write_variant
from distilsql.synthesis.grammar.sql import year_by_strftime
from distilsql.synthesis.profile import Profile
from distilsql.synthesis.sampling import make_sampler
from distilsql.synthesis.source import Source

log = logging.getLogger(__name__)

VARIANTS = 6
# Of each column, for the rows of variants.
CONSTANTS_PER_COLUMN = 12


def write_variants(source: Source, profile: Profile, folder: Path, seed: int) -> tuple[Path, ...]:
    """Variants of the database, in `folder`; none, with a warning, if its schema cannot be recreated. Raises
    DatabaseUnavailable."""
    constants = [
        (column.name.lower(), value)
        for table in profile.tables
        for column in table.columns
        for value in (*column.values[:CONSTANTS_PER_COLUMN], *column.quantiles[4:17:3])
    ]
    paths = []
    try:
        path = (
            source.path if isinstance(source.path, Path) else _copied(source, profile, folder / "copy.sqlite")
        )
        template = read_template(path, constants)
        for number in range(VARIANTS):
            path = folder / f"variant-{number}.sqlite"
            write_variant(template, path, f"{seed}/{number}")
            paths.append(path)
    except (DataError, sqlite3.Error) as error:
        log.warning(f"{error} Queries are told from wrong ones on the database alone.")
        return ()
    return tuple(paths)


def _copied(source: Source, profile: Profile, path: Path) -> Path:
    """A SQLite file with the tables, keys and some rows of any database."""
    sampler = make_sampler(source)
    with closing(sqlite3.connect(path)) as connection:
        for table in source.schema.tables:
            connection.execute(_created(table, profile))
            slots = ", ".join("?" * len(table.columns))
            for row in sampler.sample(table, KEPT_ROWS).rows:
                # A number that SQLite cannot hold; names that differ in case alone, for which it has one row's room.
                with suppress(sqlite3.IntegrityError, OverflowError):
                    connection.execute(f"INSERT INTO {quoted_name(table.name)} VALUES ({slots})", row)
        connection.commit()
    return path


def _created(table: Table, profile: Profile) -> str:
    return f"CREATE TABLE {quoted_name(table.name)} ({', '.join(_parts(table, profile))})"


def _parts(table: Table, profile: Profile) -> Iterator[str]:
    for column in table.columns:
        yield f"{quoted_name(column.name)} {_affinity(column.type)}"
    key = [column.name for column in table.columns if column.is_primary_key]
    if key:
        yield f"PRIMARY KEY ({', '.join(map(quoted_name, key))})"
    for found in profile.keys:
        # SQLite takes no key to columns that tell no rows apart.
        if found.child == table.name and {*found.parent_columns} == {*profile.table(found.parent).key}:
            mine, others = (", ".join(map(quoted_name, c)) for c in (found.columns, found.parent_columns))
            yield f"FOREIGN KEY ({mine}) REFERENCES {quoted_name(found.parent)} ({others})"


def _affinity(kind: str) -> str:
    if kind.startswith("interval"):
        return "TEXT"
    if "int" in kind or kind.startswith(("bool", "year")):
        return "INTEGER"
    return "NUMERIC" if kind.startswith(("dec", "num", "real", "float", "double")) else "TEXT"


@lru_cache(maxsize=10_000)
def as_sqlite(sql: str, engine: Engine) -> str:
    """A query of another engine in SQLite's SQL; '' where it cannot be written so."""

    def told(node: exp.Expr) -> exp.Expr:
        return year_by_strftime(node.expression) if isinstance(node, exp.Extract) else node

    try:
        tree = parse_one(sql, read=DIALECTS[engine])
        if any(node.name.upper() != "YEAR" for node in tree.find_all(exp.Extract)):
            return ""
        return tree.transform(told).sql("sqlite")
    except SqlglotError:
        return ""
