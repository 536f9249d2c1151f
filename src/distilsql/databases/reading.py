"""Reading a SQLite file for our own ends: its schema, its values, its content. In a worker, never in this process.

Two reasons. Closing any descriptor of a SQLite file drops the POSIX locks that this process holds on it, those of the
caller's own connections too (sqlite.org, "How To Corrupt An SQLite Database File", 2.2). And a damaged file can cost a
worker, not its parent.
"""

from pathlib import Path

from distilsql.databases.execute import Execution, Job, Outcome, Row, make_job, require_available, shared_pool
from distilsql.errors import DataError

# For values of tables with millions of rows. What is read here is our own SQL.
READ_TIMEOUT_S = 600.0


def read(path: Path, sql: str, *, max_steps: int | None = None) -> Execution:
    """Run one SELECT of ours; bytes that are not UTF-8 are left out of texts.

    Raises DatabaseUnavailable if the file is missing or cannot be read; what is wrong with the statement is in the
    outcome.
    """
    job = make_job(path, sql, timeout_s=READ_TIMEOUT_S)
    job = Job(job.path, sql, job.mode, job.limits, max_steps=max_steps)
    return require_available(shared_pool().run(job), path)


def read_rows(path: Path, sql: str) -> tuple[Row, ...]:
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
