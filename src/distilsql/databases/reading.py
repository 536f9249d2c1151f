"""Reading a database for our own ends: its schema, its values, its content. In a worker, never in this process.

Two reasons. Closing any descriptor of a SQLite file drops the POSIX locks that this process holds on it, those of the
caller's own connections too (sqlite.org, "How To Corrupt An SQLite Database File", 2.2). And a damaged file can cost a
worker, not its parent.
"""

import json
from dataclasses import replace
from typing import Any

from distilsql.databases.execute import shared_pool
from distilsql.databases.job import Execution, Job, Outcome, Row, make_job, require_available
from distilsql.databases.url import DatabaseUrl, Place
from distilsql.errors import DataError

# For values of tables with millions of rows. What is read here is our own SQL.
READ_TIMEOUT_S = 600.0
CATALOGUE_TIMEOUT_S = 120.0


def read(
    path: Place, sql: str, *, max_steps: int | None = None, timeout_s: float = READ_TIMEOUT_S
) -> Execution:
    """Run one SELECT of ours; bytes that are not UTF-8 are left out of texts.

    Raises DatabaseUnavailable if the database is missing or cannot be read; what is wrong with the statement is in the
    outcome.
    """
    job = replace(make_job(path, sql, timeout_s=timeout_s), max_steps=max_steps)
    return require_available(_run(job), path)


def read_catalogue(url: DatabaseUrl) -> dict[str, Any]:
    """What there is to read in a database that is no SQLite file: `tables` (`name`, `comment`, `is_view`, `columns`
    with `name`, `type`, `comment`, `is_primary_key`), `foreign_keys` (`table`, `columns`, `referred_table`,
    `referred_columns`), `denied` (tables that this user may not read), `hidden` (tables behind those of
    an earlier schema of the search path) and `elsewhere` (other schemas with tables).

    Raises DatabaseUnavailable if it cannot be read, DataError if it does not answer.
    """
    job = replace(make_job(url, "", timeout_s=CATALOGUE_TIMEOUT_S), task="catalogue")
    execution = require_available(_run(job), url)
    if execution.outcome is not Outcome.ROWS:
        raise DataError(
            f"The tables of {url} cannot be listed ({execution.outcome.value}: {execution.message}); check what its "
            "user may read."
        )
    ((found,),) = execution.rows
    return json.loads(str(found))


def _run(job: Job) -> Execution:
    """Once more where the worker died: it may have been killed from outside, and a damaged file kills the next, too."""
    execution = shared_pool().run(job)
    return shared_pool().run(job) if execution.outcome is Outcome.CRASHED else execution


def read_rows(path: Place, sql: str) -> tuple[Row, ...]:
    """The rows of one SELECT of ours. Raises DataError if the file cannot be read or the statement fails on it."""
    execution = read(path, sql)
    if execution.outcome is not Outcome.ROWS:
        raise DataError(f"{path} cannot be read ({execution.message}); check that the file is complete.")
    return execution.rows


def quoted_name(name: str) -> str:
    """A table's or column's name as SQLite reads any name."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """A text as SQLite reads any text."""
    return "'" + text.replace("'", "''") + "'"
