"""GoldResults: what the gold queries return, run once per database however many predictions are judged."""

import hashlib
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilsql.data.golds import gold_fault, is_held_up, with_patience
from distilsql.data.layout import Evaluator
from distilsql.databases.fingerprint import state_of
from distilsql.databases.job import Execution, Job, Outcome, require_available
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DataError
from distilsql.files import write_text
from distilsql.progress import progress

# Counts the changes to what a stored result means; a result stored by another count is run again.
FORMAT = 2
SHOWN = 20


@dataclass(frozen=True)
class BrokenGold:
    """A gold that cannot be used; `fault` says why. `name` is its example's id, for own pairs its position."""

    name: str
    database: str
    sql: str
    fault: str

    def __str__(self) -> str:
        return f"The gold query of {self.name} does not run on {self.database} ({self.fault}): {self.sql!r}."


class BrokenGolds(DataError):
    """All gold queries that cannot be used, because they fail or exceed their time limit."""

    def __init__(self, broken: Sequence[BrokenGold]) -> None:
        self.broken = tuple(broken)
        shown = [str(gold) for gold in broken[:SHOWN]]
        if len(broken) > SHOWN:
            shown.append(f"And {len(broken) - SHOWN} more.")
        cure = (
            "Nothing can be judged by a gold that does not run: repair it, leave it out (`distilsql evaluate "
            "--leave-out broken-golds`, or `--leave-out` and one id), or allow more time (`--gold-timeout`)."
        )
        super().__init__("\n".join([*shown, cure]))


class GoldResults:
    """Remembers executions for as long as the object lives, and across processes if given a `directory`.

    A result is known by its database (path and `database_state`), its SQL and the text decoding; those of a server,
    whose state cannot be known, are not kept across processes. A gold that a busy machine held up is run again by
    itself.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._known: dict[str, Execution] = {}
        self._lock = threading.Lock()
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def fetch(
        self,
        jobs: Sequence[Job],
        names: Sequence[str],
        pool: ExecutionPool,
        evaluator: Evaluator = "spider",
    ) -> list[Execution]:
        """The execution of each job. Raises BrokenGolds with the names of all whose gold cannot judge anything,
        DatabaseUnavailable naming the first whose database cannot be read."""
        states = {job.path: state_of(job.url or Path(job.path)) for job in jobs}
        keys = [_key(job, states[job.path]) for job in jobs]
        missing = {
            key: job for key, job in zip(keys, jobs, strict=True) if not self._load(key, states[job.path])
        }
        self._run(list(missing), list(missing.values()), pool, evaluator)
        for key, job, name in zip(keys, jobs, names, strict=True):
            require_available(self._known[key], job.path, f"the gold query of {name} ran")
        faults = [gold_fault(self._known[key], evaluator) for key in keys]
        broken = [
            BrokenGold(name, job.path, job.sql, fault)
            for name, job, fault in zip(names, jobs, faults, strict=True)
            if fault
        ]
        if broken:
            raise BrokenGolds(broken)
        return [self._known[key] for key in keys]

    def _run(
        self, keys: Sequence[str], jobs: Sequence[Job], pool: ExecutionPool, evaluator: Evaluator
    ) -> None:
        def keep(index: int, execution: Execution) -> None:
            with self._lock:
                self._known[keys[index]] = execution
            if not gold_fault(execution, evaluator) and execution.states:
                self._store(keys[index], execution)

        with progress("running gold queries", len(jobs)) as advance:

            def arrived(index: int, execution: Execution) -> None:
                keep(index, execution)
                advance()

            pool.map(jobs, arrived)
        for index, (key, job) in enumerate(zip(keys, jobs, strict=True)):
            if is_held_up(self._known[key], job.limits.timeout_s):
                keep(index, pool.run(with_patience(job)))

    def _load(self, key: str, state: tuple[int, ...]) -> bool:
        if key in self._known and self._known[key].outcome is Outcome.ROWS:
            return True
        if self._directory is None or not state:
            return False
        try:
            stored = json.loads((self._directory / f"{key}.json").read_text(), object_hook=_restore_bytes)
        except (OSError, ValueError):
            return False
        rows = tuple(map(tuple, stored["rows"]))
        times = {name: stored[name] for name in ("seconds", "cpu_seconds")}
        self._known[key] = Execution(Outcome.ROWS, rows, tuple(stored["columns"]), **times, states=(state,))
        return True

    def _store(self, key: str, execution: Execution) -> None:
        """Store a result on disk. If there is no room, nothing is lost: the gold is run again."""
        if self._directory is None:
            return
        kept = ("rows", "columns", "seconds", "cpu_seconds")
        content = json.dumps(
            {name: getattr(execution, name) for name in kept}, default=lambda value: {"bytes": value.hex()}
        )
        with suppress(OSError):
            write_text(self._directory / f"{key}.json", content, is_flushed=False)


def _key(job: Job, state: tuple[int, ...]) -> str:
    identity = (FORMAT, job.path, state, job.sql, job.decoding)
    return hashlib.sha256(repr(identity).encode()).hexdigest()


def _restore_bytes(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["bytes"]) if "bytes" in value else value
