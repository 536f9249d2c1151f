"""What is asked of a database and what comes back: jobs, limits, outcomes."""

import os
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from distilsql.databases.url import DatabaseUrl, Engine, Place, engine_of, place_of
from distilsql.errors import DatabaseUnavailable

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
    """One statement for one database. `path` is a SQLite file, or the text of `url`, which has no password.

    `decoding` says what happens to text that is not UTF-8: `ignore` drops the bad bytes (Spider), `strict` makes
    it an SQL_ERROR (BIRD). `reverse_unordered` has SQLite return rows whose order a query leaves open the other way
    round (`PRAGMA reverse_unordered_selects`), to find results that depend on it. `max_steps` is a limit that is
    the same on every machine: so many instructions of SQLite's virtual machine, to the next 5,000; beyond, TIMEOUT.
    The task `fingerprint` runs no SQL: its one cell is the SHA-256 of the file (see `databases.fingerprint`). Nor does
    `catalogue`, for what is no SQLite file: its one cell is JSON (see `databases.catalogue`).
    """

    path: str
    sql: str
    mode: Mode
    limits: Limits
    decoding: Decoding = "ignore"
    reverse_unordered: bool = False
    max_steps: int | None = None
    task: Literal["query", "fingerprint", "catalogue"] = "query"
    url: DatabaseUrl | None = None

    @property
    def engine(self) -> Engine:
        return "sqlite" if self.url is None else self.url.engine


@dataclass(frozen=True)
class Execution:
    """The result of one statement. `seconds` is the time inside the database, transfers not counted; `cpu_seconds` what
    of it the worker had the processor for, which a busy machine makes less (at a server, all of it: what its own
    processor was busy with cannot be known).

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

    @property
    def has_rows(self) -> bool:
        """Whether the statement was carried out: `rows` are its result, or the first ones of it."""
        return self.outcome in (Outcome.ROWS, Outcome.TOO_MANY_ROWS)


_CURES: dict[Engine, str] = {
    "sqlite": "check that the file is a complete SQLite database",
    "duckdb": "check that the file is a DuckDB database and that no program has it open to write",
    "postgresql": "check that the server runs, and the address, the database's name, the role and its password",
    "mysql": "check that the server runs, and the address, the database's name, the user and its password",
}


def require_available(execution: Execution, path: Place | str, meanwhile: str = "") -> Execution:
    """`execution` itself. Raises DatabaseUnavailable if it says that the database could not be read."""
    if execution.outcome is Outcome.UNAVAILABLE:
        during = f" while {meanwhile}" if meanwhile else ""
        cure = _CURES[engine_of(path)]
        # At a server it may be an account that is locked.
        if "locked" in execution.message and engine_of(path) in ("sqlite", "duckdb"):
            cure = "wait until the program that holds it has finished, or use a copy"
        raise DatabaseUnavailable(
            f"{path} cannot be read{during} ({execution.message}). The database is at fault, not a query: {cure}."
        )
    return execution


def make_job(
    path: Place | str,
    sql: str,
    *,
    mode: Mode = "evaluation",
    timeout_s: float | None = None,
    max_rows: int | None = None,
    memory_bytes: int | None = None,
    decoding: Decoding = "ignore",
) -> Job:
    """A Job with the mode's own limits, save those given here. Raises DataError for a URL that cannot be read."""
    default = LIMITS[mode]
    limits = Limits(
        timeout_s=default.timeout_s if timeout_s is None else timeout_s,
        memory_bytes=default.memory_bytes if memory_bytes is None else memory_bytes,
        max_rows=default.max_rows if max_rows is None else max_rows,
        max_bytes=default.max_bytes,
    )
    place = place_of(path)
    if isinstance(place, DatabaseUrl):
        return Job(place.text, sql, mode, limits, decoding, url=place)
    return Job(os.path.abspath(place), sql, mode, limits, decoding)
