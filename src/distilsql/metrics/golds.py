"""GoldResults: what the gold queries return, run once per database however many predictions are judged."""

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilsql.databases.execute import Execution, Job, Outcome, require_available
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.sqlite_worker import database_state
from distilsql.errors import DataError

# Counts the changes to what a stored result means; a result stored by another count is run again.
FORMAT = 1


class GoldResults:
    """Remembers executions for as long as the object lives, and across processes if given a `directory`.

    A result is known by its database (path and `database_state`), its SQL and the text decoding.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._known: dict[str, Execution] = {}
        self._lock = threading.Lock()
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def fetch(self, jobs: Sequence[Job], example_ids: Sequence[str], pool: ExecutionPool) -> list[Execution]:
        """The execution of each job. Raises DataError naming the first example whose gold returns no rows,
        DatabaseUnavailable naming the first whose database cannot be read."""
        states = {path: database_state(path) for path in {job.path for job in jobs}}
        keys = [_key(job, states[job.path]) for job in jobs]
        missing = {
            key: job for key, job in zip(keys, jobs, strict=True) if not self._load(key, states[job.path])
        }
        self._run(list(missing), list(missing.values()), pool)
        for key, job, example_id in zip(keys, jobs, example_ids, strict=True):
            require_available(self._known[key], job.path, f"the gold query of {example_id} ran")
            if self._known[key].outcome is not Outcome.ROWS:
                raise DataError(_complaint(example_id, job, self._known[key]))
        return [self._known[key] for key in keys]

    def _run(self, keys: Sequence[str], jobs: Sequence[Job], pool: ExecutionPool) -> None:
        def keep(index: int, execution: Execution) -> None:
            with self._lock:
                self._known[keys[index]] = execution
            if execution.outcome is Outcome.ROWS:
                self._store(keys[index], execution)

        pool.map(jobs, keep)

    def _load(self, key: str, state: tuple[int, ...]) -> bool:
        if key in self._known and self._known[key].outcome is Outcome.ROWS:
            return True
        if self._directory is None:
            return False
        try:
            stored = json.loads((self._directory / f"{key}.json").read_text(), object_hook=_restore_bytes)
        except (OSError, ValueError):
            return False
        rows = tuple(map(tuple, stored["rows"]))
        self._known[key] = Execution(
            Outcome.ROWS, rows, tuple(stored["columns"]), seconds=stored["seconds"], states=(state,)
        )
        return True

    def _store(self, key: str, execution: Execution) -> None:
        if self._directory is None:
            return
        content = {"rows": execution.rows, "columns": execution.columns, "seconds": execution.seconds}
        temporary = self._directory / f"{key}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(content, default=lambda value: {"bytes": value.hex()}))
        temporary.replace(self._directory / f"{key}.json")


def _key(job: Job, state: tuple[int, ...]) -> str:
    identity = (FORMAT, job.path, state, job.sql, job.decoding)
    return hashlib.sha256(repr(identity).encode()).hexdigest()


def _restore_bytes(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["bytes"]) if "bytes" in value else value


def _complaint(name: str, job: Job, execution: Execution) -> str:
    return (
        f"The gold query of {name} does not run on {job.path} ({execution.outcome.value}: {execution.message}), so "
        f"nothing can be judged by it: {job.sql!r}. Repair or leave out the example, or allow more time."
    )
