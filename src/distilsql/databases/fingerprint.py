"""What tells the contents of a database apart: a checksum over its file, and the state that it was taken in."""

import os
from dataclasses import dataclass, replace

from distilsql.databases.job import LIMITS, Job, Outcome, require_available
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.sqlite_worker import database_state
from distilsql.databases.url import DatabaseUrl, Place
from distilsql.errors import DatabaseUnavailable, DataError

# At 400 MB a second, which a slow processor reaches, enough for every benchmark's largest file.
HASH_TIMEOUT_S = 600.0
_DIGITS = 12
_taken: dict[tuple[Place, tuple[int, ...]], "Fingerprint"] = {}


@dataclass(frozen=True)
class Fingerprint:
    """`sha256` is of the file's bytes, followed by those of its write-ahead log if that holds any: where there is none,
    what `sha256sum FILE` prints. `state` is the `database_state` that it was taken in."""

    sha256: str
    state: tuple[int, ...]

    @property
    def short(self) -> str:
        """Twelve hexadecimal digits, to be shown and compared."""
        return self.sha256[:_DIGITS]


def state_of(path: Place) -> tuple[int, ...]:
    """The `database_state` of a database in a file, DuckDB's write-ahead log taken in; nothing of a server."""
    if isinstance(path, DatabaseUrl):
        return () if path.file is None else database_state(str(path.file), log=".wal")
    return database_state(str(path))


def take_fingerprint(path: Place, pool: ExecutionPool) -> Fingerprint:
    """Read the whole file in a worker, once for each of its states; of DuckDB's without a write-ahead log. Raises
    DatabaseUnavailable if it cannot be read or changes meanwhile, DataError if there is no file."""
    known = _taken.get((path, state_of(path)))
    if known is not None:
        return known
    file = path.file if isinstance(path, DatabaseUrl) else path
    if file is None:
        raise DataError(f"{path} is at a server: what it holds has no checksum.")
    limits = replace(LIMITS["evaluation"], timeout_s=HASH_TIMEOUT_S)
    job = Job(os.path.abspath(file), "", "evaluation", limits, task="fingerprint")
    execution = require_available(pool.run(job), path)
    if execution.outcome is not Outcome.ROWS:
        raise DatabaseUnavailable(
            f"{path} could not be read whole ({execution.outcome.value}: {execution.message}), so it is not known what "
            "would be judged on. Try again on a machine that is less busy, or on a copy on a faster disk."
        )
    ((sha256,),) = execution.rows
    taken = Fingerprint(str(sha256), state_of(path) if isinstance(path, DatabaseUrl) else execution.states[0])
    _taken[path, taken.state] = taken
    return taken
