"""ExecutionPool: worker processes with hard limits, killed and replaced when they do not answer."""

import contextlib
import json
import os
import queue
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from distilsql.databases.execute import Execution, Job, Outcome, is_url
from distilsql.errors import DataError, RunError

WORKER_FILE = Path(__file__).with_name("sqlite_worker.py")
# How long after its limit a worker may still be on its way to say so before it is killed.
GRACE_S = 0.3
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
Answer = TypeVar("Answer")


class ExecutionPool:
    """Runs jobs in `workers` processes. A context manager; `run` and `map` may be called from several threads.

    Workers are separate programs, not forks of this process: a parent with torch and its threads loaded is safe,
    and a script needs no `if __name__ == "__main__"`. They end with the pool, with this process however it
    ends, and on Ctrl-C.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._idle: queue.LifoQueue[WorkerProcess | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._idle.put(None)  # started when first needed
        self._started: set[WorkerProcess] = set()
        self._closed = False

    def __enter__(self) -> "ExecutionPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills every worker, busy or not. Jobs under way in other threads end as CRASHED."""
        self._closed = True
        for worker in list(self._started):
            worker.kill()

    def run(self, job: Job) -> Execution:
        """Run one job, waiting for a free worker first. Raises DataError where the database file is missing."""
        if is_url(job.path):
            from distilsql.databases.server_sql import execute_on_server

            return execute_on_server(job)
        with self._worker(job.limits.memory_bytes) as worker:
            return worker.run(job)

    def map(self, jobs: Sequence[Job], then: Callable[[int, Execution], Answer]) -> list[Answer]:
        """`then(index, execution)` for every job, in the order of `jobs`, computed as the executions arrive.

        `then` runs in the pool's threads, at most one call per worker at a time. The first exception it
        raises, and Ctrl-C, stop the whole map and are raised here.
        """
        answers: list[Any] = [None] * len(jobs)
        todo = iter(range(len(jobs)))
        lock, stop = threading.Lock(), threading.Event()
        errors: list[BaseException] = []

        def work() -> None:
            while not stop.is_set():
                with lock:
                    index = next(todo, None)
                if index is None:
                    return
                try:
                    answers[index] = then(index, self.run(jobs[index]))
                except BaseException as error:
                    errors.append(error)
                    stop.set()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self.workers, len(jobs)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            stop.set()
            self.close()
            raise
        if errors:
            raise errors[0]
        return answers

    @contextlib.contextmanager
    def _worker(self, memory_bytes: int) -> "Iterator[WorkerProcess]":
        """A live worker with exactly this memory: neither SQLite nor the kernel lets a limit be raised again."""
        worker = self._idle.get()
        try:
            if worker is None or worker.memory_bytes != memory_bytes or not worker.is_alive():
                worker = self._start(memory_bytes, instead_of=worker)
            yield worker
        finally:
            self._idle.put(worker)

    def _start(self, memory_bytes: int, instead_of: "WorkerProcess | None") -> "WorkerProcess":
        if instead_of is not None:
            instead_of.kill()
            self._started.discard(instead_of)
        if self._closed:
            raise RunError("This pool of SQL workers is closed; make a new ExecutionPool.")
        worker = WorkerProcess(memory_bytes)
        self._started.add(worker)
        return worker


class WorkerProcess:
    """One worker and the two pipes to it. Used by one thread at a time; `kill` from any."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        environment["MALLOC_ARENA_MAX"] = "1"  # so that address space measures what is used
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", str(WORKER_FILE), str(os.getpid()), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN | select.POLLHUP)
        self.process_id = self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def run(self, job: Job) -> Execution:
        if not os.path.exists(job.path):
            raise DataError(
                f"There is no database file {job.path}; check the path or fetch the databases first."
            )
        started = time.perf_counter()
        request = asdict(job)
        request.update(request.pop("limits"))
        try:
            self._send(json.dumps(request).encode())
            payload = self._receive(job.limits.timeout_s + GRACE_S)
        except TimeoutError:
            self.kill()
            message = "killed: it did not stop at its time limit"
            return Execution(Outcome.TIMEOUT, message=message, seconds=time.perf_counter() - started)
        except (OSError, EOFError, ValueError):
            return self._died(started)
        execution = _decode(payload)
        if execution.outcome is Outcome.TOO_LARGE:
            self.kill()  # the next job starts with all of its memory
        return execution

    def _died(self, started: float) -> Execution:
        """The kernel's CPU limit ends a worker by signal 24; anything else is a crash."""
        self.kill()
        seconds, status = time.perf_counter() - started, self._process.returncode
        if status == -24:
            return Execution(Outcome.TIMEOUT, message="killed at its CPU time limit", seconds=seconds)
        return Execution(Outcome.CRASHED, message=f"the worker ended with status {status}", seconds=seconds)

    def _send(self, payload: bytes) -> None:
        view = memoryview(struct.pack(">I", len(payload)) + payload)
        while view:
            view = view[self._stdin.write(view) or 0 :]

    def _receive(self, timeout_s: float) -> bytearray:
        """The next frame. The time limit is for its first byte: what follows is on its way already."""
        (size,) = struct.unpack(">I", self._read(4, timeout_s))
        return self._read(size, timeout_s + 60)

    def _read(self, size: int, timeout_s: float) -> bytearray:
        data = bytearray()
        deadline = time.monotonic() + timeout_s
        while len(data) < size:
            remaining_ms = (deadline - time.monotonic()) * 1000
            if remaining_ms <= 0 or not self._poll.poll(remaining_ms):
                raise TimeoutError
            chunk = os.read(self._stdout.fileno(), min(size - len(data), 2**20))
            if not chunk:
                raise EOFError
            data += chunk
        return data


def _decode(payload: bytearray) -> Execution:
    answer = json.loads(payload, object_hook=_restore_bytes)
    return Execution(
        Outcome[answer["outcome"]],
        tuple(map(tuple, answer.get("rows", ()))),
        tuple(answer.get("columns", ())),
        answer.get("message", ""),
        answer["seconds"],
    )


def _restore_bytes(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["bytes"]) if "bytes" in value else value
