"""What tells the contents of a database apart: a checksum over its file, and the state that it was taken in."""

from dataclasses import dataclass
from pathlib import Path

from distilsql.databases.job import Job, Outcome, make_job, require_available
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.sqlite_worker import database_state
from distilsql.errors import DatabaseUnavailable

# At 400 MB a second, which a slow processor reaches, enough for every benchmark's largest file.
HASH_TIMEOUT_S = 600.0
_DIGITS = 12
_taken: dict[tuple[Path, tuple[int, ...]], "Fingerprint"] = {}


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


def take_fingerprint(path: Path, pool: ExecutionPool) -> Fingerprint:
    """Read the whole file in a worker, once for each of its states. Raises DatabaseUnavailable if it cannot be read or
    changes meanwhile."""
    known = _taken.get((path, database_state(str(path))))
    if known is not None:
        return known
    job = make_job(path, "", timeout_s=HASH_TIMEOUT_S)
    job = Job(job.path, "", job.mode, job.limits, task="fingerprint")
    execution = require_available(pool.run(job), path)
    if execution.outcome is not Outcome.ROWS:
        raise DatabaseUnavailable(
            f"{path} could not be read whole ({execution.outcome.value}: {execution.message}), so it is not known what "
            "would be judged on. Try again on a machine that is less busy, or on a copy on a faster disk."
        )
    ((sha256,),) = execution.rows
    taken = Fingerprint(str(sha256), execution.states[0])
    _taken[path, taken.state] = taken
    return taken
