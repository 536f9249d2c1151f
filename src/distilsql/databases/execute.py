"""Run SQL that a model wrote: one function, one result type, outcomes that cannot be mistaken for rows.

Two modes. `evaluation` keeps a benchmark's semantics: read-only, a limit that really stops a query, a process
that can be killed. `serving` adds an allow-list of what a statement may do, a row cap and a tight memory cap.
`docs/security.md` says what each layer stops.
"""

import atexit
import functools
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distilsql.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from distilsql.databases.pool import ExecutionPool

Mode = Literal["evaluation", "serving"]
Decoding = Literal["strict", "ignore"]
Cell = None | int | float | str | bytes
Row = tuple[Cell, ...]
MIB = 2**20


class Outcome(Enum):
    """What became of one execution. Only ROWS carries a whole result."""

    ROWS = "rows"
    SQL_ERROR = "sql error"
    TIMEOUT = "timeout"
    TOO_MANY_ROWS = "too many rows"
    TOO_LARGE = "too large"
    DENIED = "denied"
    CRASHED = "crashed"
    UNAVAILABLE = "database unavailable"  # locked, damaged, gone: no statement is to blame


@dataclass(frozen=True)
class Limits:
    """What one execution may use. `max_rows` None means no cap; a result of more than `max_bytes` is TOO_LARGE.

    `timeout_s` is by the clock, and `cpu_s` of the processor's time if it is another limit; each ends in TIMEOUT.
    """

    timeout_s: float
    memory_bytes: int
    max_rows: int | None
    max_bytes: int
    cpu_s: float | None = None


LIMITS: dict[Mode, Limits] = {
    "evaluation": Limits(timeout_s=30.0, memory_bytes=2048 * MIB, max_rows=None, max_bytes=128 * MIB),
    "serving": Limits(timeout_s=5.0, memory_bytes=256 * MIB, max_rows=1000, max_bytes=16 * MIB),
}


@dataclass(frozen=True)
class Job:
    """One statement for one database. `path` is a SQLite file or a SQLAlchemy URL (`postgresql+psycopg://…`).

    `decoding` says what happens to text that is not UTF-8: `ignore` drops the bad bytes (Spider), `strict` makes
    it an SQL_ERROR (BIRD). `reverse_unordered` has SQLite return rows whose order a query leaves open the other way
    round (`PRAGMA reverse_unordered_selects`), to find results that hang on it. `max_steps` is a limit that is the same
    on every machine: so many instructions of SQLite's virtual machine, to the next 5,000, and it is a TIMEOUT.
    The task `fingerprint` runs no SQL: its one cell is the SHA-256 of the file (see `databases.fingerprint`).
    """

    path: str
    sql: str
    mode: Mode
    limits: Limits
    decoding: Decoding = "ignore"
    reverse_unordered: bool = False
    max_steps: int | None = None
    task: Literal["query", "fingerprint"] = "query"


@dataclass(frozen=True)
class Execution:
    """The result of one statement. `seconds` is the time inside the database, transfers not counted; `cpu_seconds` what
    of it the worker had the processor for, which a busy machine makes less (at a server, the server's is not in it).

    `rows` is the whole result where `outcome` is ROWS, the first `max_rows` of it where it is TOO_MANY_ROWS, and
    empty otherwise: read `outcome` first. `message` says why for every outcome but ROWS. `states` are the states of a
    SQLite file (`database_state`) that the statement met: one, or those before and after where it changed meanwhile.
    """

    outcome: Outcome
    rows: tuple[Row, ...] = ()
    columns: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    states: tuple[tuple[int, ...], ...] = ()


def require_available(execution: Execution, path: Path | str, meanwhile: str = "") -> Execution:
    """`execution` itself. Raises DatabaseUnavailable if it says that the database could not be read."""
    if execution.outcome is Outcome.UNAVAILABLE:
        during = f" while {meanwhile}" if meanwhile else ""
        cure = "check that the file is a complete SQLite database"
        if "locked" in execution.message:
            cure = "wait until the program that holds it has finished, or use a copy"
        raise DatabaseUnavailable(
            f"{path} cannot be read{during} ({execution.message}). The database is at fault, not a query: {cure}."
        )
    return execution


def make_job(
    path: Path | str,
    sql: str,
    *,
    mode: Mode = "evaluation",
    timeout_s: float | None = None,
    max_rows: int | None = None,
    memory_bytes: int | None = None,
    decoding: Decoding = "ignore",
) -> Job:
    """A Job with the mode's own limits, save those given here."""
    default = LIMITS[mode]
    limits = Limits(
        timeout_s=default.timeout_s if timeout_s is None else timeout_s,
        memory_bytes=default.memory_bytes if memory_bytes is None else memory_bytes,
        max_rows=default.max_rows if max_rows is None else max_rows,
        max_bytes=default.max_bytes,
    )
    place = str(path)
    if not is_url(place):
        place = os.path.abspath(place)
    return Job(place, sql, mode, limits, decoding)


def execute(
    path: Path | str,
    sql: str,
    *,
    mode: Mode = "evaluation",
    timeout_s: float | None = None,
    max_rows: int | None = None,
    memory_bytes: int | None = None,
    decoding: Decoding = "ignore",
) -> Execution:
    """Run one statement in a worker process that is kept for the next call. Safe to call from several threads.

    Raises DatabaseUnavailable if the file does not exist; whatever the SQL does is an Outcome, not an exception.
    """
    job = make_job(
        path,
        sql,
        mode=mode,
        timeout_s=timeout_s,
        max_rows=max_rows,
        memory_bytes=memory_bytes,
        decoding=decoding,
    )
    return shared_pool().run(job)


def shared_pool() -> "ExecutionPool":
    """The pool of this process, for single statements; its workers start when they are first needed."""
    return _shared_pool(os.getpid())


def is_url(path: str) -> bool:
    """Whether `path` names a database server or a DuckDB file by URL rather than a SQLite file."""
    return "://" in path


@functools.cache
def _shared_pool(process_id: int) -> "ExecutionPool":
    """One pool per process: after a fork the child must not talk to its parent's workers."""
    from distilsql.databases.pool import ExecutionPool

    pool = ExecutionPool(workers=min(4, os.cpu_count() or 1))
    atexit.register(pool.close)
    return pool
