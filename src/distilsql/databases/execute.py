"""Run SQL that a model wrote: one function, one result type, outcomes that cannot be mistaken for rows.

Two modes. `evaluation` keeps a benchmark's semantics: read-only, a limit that really stops a query, a process
that can be killed. `serving` adds an allow-list of what a statement may do, a row cap and a tight memory cap.
`docs/security.md` says what each layer stops.
"""

import atexit
import functools
import os
from typing import TYPE_CHECKING

from distilsql.databases.job import Decoding, Execution, Mode, Outcome, make_job, require_available
from distilsql.databases.url import DatabaseUrl, Place
from distilsql.errors import DataError

if TYPE_CHECKING:
    from distilsql.databases.pool import ExecutionPool


def execute(
    path: Place | str,
    sql: str,
    *,
    mode: Mode = "evaluation",
    timeout_s: float | None = None,
    max_rows: int | None = None,
    memory_bytes: int | None = None,
    decoding: Decoding = "ignore",
) -> Execution:
    """Run one statement in a worker process that is kept for the next call. Safe to call from several threads.

    `path` is that of a SQLite file, or any database's URL (see `databases.url`). Raises DatabaseUnavailable if a file
    does not exist, DataError if a URL cannot be read or its driver is not installed; whatever the SQL does is an
    Outcome, not an exception.
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


def refuse_powers(place: Place) -> None:
    """Raises DataError for a user of a server who may do more than read, as every statement in serving mode would be
    refused; DatabaseUnavailable if the database cannot be read."""
    if isinstance(place, DatabaseUrl) and place.is_server:
        tried = require_available(execute(place, "SELECT 1", mode="serving"), place)
        if tried.outcome is Outcome.DENIED:
            raise DataError(f"{place}: {tried.message} (docs/own_database.md says how to make one).")


def shared_pool() -> "ExecutionPool":
    """The pool of this process, for single statements; its workers start when they are first needed."""
    return _shared_pool(os.getpid())


@functools.cache
def _shared_pool(process_id: int) -> "ExecutionPool":
    """One pool per process: after a fork the child must not talk to its parent's workers."""
    from distilsql.databases.pool import ExecutionPool

    pool = ExecutionPool(workers=min(4, os.cpu_count() or 1))
    atexit.register(pool.close)
    return pool
