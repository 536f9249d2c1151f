"""ExecutionPool: worker processes with hard limits, killed and replaced when they do not answer."""

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from distilsql.at_once import Answer, each
from distilsql.databases.job import Execution, Job, Outcome
from distilsql.databases.url import HIDDEN, Engine, require_driver
from distilsql.errors import DatabaseUnavailable, RunError

# Where the package `distilsql` lies.
PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
# How long after its limit a worker may still be on its way to say so before it is killed.
GRACE_S = 0.15
START_TIMEOUT_S = 60.0
READY_BYTES = 100
STARTS = 3  # of a worker that is killed while it starts
# How many kinds of workers (engine, memory) a pool keeps beside each other. Synthesis goes to and fro between a server
# and files with every query; starting a worker takes longer than most queries.
KINDS = 2
TRANSFER_S = 60.0
# How long a server may take to let us in, which is not part of a statement's time.
CONNECT_S = 10.0
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class ExecutionPool:
    """Runs jobs in `workers` processes at a time, and keeps as many idle ones of another kind. A context manager; `run`
    and `map` may be called from several threads.

    Workers are separate programs, not forks of this process: a parent with torch and its threads loaded is safe,
    and a script needs no `if __name__ == "__main__"`. They end with the pool, with this process however it
    ends, and on Ctrl-C.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._turns = threading.Semaphore(self.workers)
        self._idle: list[WorkerProcess] = []  # the one used last comes last
        self._choosing = threading.Lock()
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

    def process_ids(self) -> list[int]:
        """The workers that are running now."""
        return [worker.process_id for worker in list(self._started) if worker.is_alive()]

    def run(self, job: Job) -> Execution:
        """Run one job, waiting for a free worker first. Raises DatabaseUnavailable where its file is missing."""
        with self._worker(_kind_for(job)) as worker:
            return worker.run(job)

    def map(self, jobs: Sequence[Job], then: Callable[[int, Execution], Answer]) -> list[Answer]:
        """`then(index, execution)` for every job, in the order of `jobs`, computed as the executions arrive.

        `then` runs as `work` does in `each`.
        """
        return self.each(len(jobs), lambda index: then(index, self.run(jobs[index])))

    def each(self, count: int, work: Callable[[int], Answer]) -> list[Answer]:
        """`work(index)` for every index below `count`, in order; it runs jobs of its own on this pool.

        It runs in threads, as many as there are workers. The first exception it raises, and Ctrl-C, stop all of it and
        are raised here.
        """
        try:
            return each(count, work, at_once=self.workers)
        except KeyboardInterrupt:
            self.close()
            raise

    @contextlib.contextmanager
    def _worker(self, kind: "_Kind") -> "Iterator[WorkerProcess]":
        """A live worker of exactly this kind: neither SQLite nor the kernel lets a memory limit be raised again."""
        with self._turns:
            worker = self._idle_of(kind) or self._start(kind)
            try:
                yield worker
            finally:
                with self._choosing:
                    self._idle.append(worker)

    def _idle_of(self, kind: "_Kind") -> "WorkerProcess | None":
        """The one used last; None where all are dead or of other kinds, of which some are let go if they are many."""
        with self._choosing:
            for dead in [worker for worker in self._idle if not worker.is_alive()]:
                self._let_go(dead)
            for worker in reversed(self._idle):
                if worker.kind == kind:
                    self._idle.remove(worker)
                    return worker
            while len(self._idle) > (KINDS - 1) * self.workers:
                self._let_go(self._idle[0])
            return None

    def _let_go(self, worker: "WorkerProcess") -> None:
        self._idle.remove(worker)
        worker.kill()
        self._started.discard(worker)

    def _start(self, kind: "_Kind") -> "WorkerProcess":
        if self._closed:
            raise RunError("This pool of SQL workers is closed; make a new ExecutionPool.")
        for tries_left in reversed(range(STARTS)):
            worker = WorkerProcess(kind)
            self._started.add(worker)
            if self._closed:  # in the meantime, by another thread
                worker.kill()
            try:
                worker.wait_until_ready()
                break
            except RunError as error:
                self._started.discard(worker)
                # One that ended before it said a word may have been killed; whatever hangs is not waited for again.
                if self._closed or not tries_left or not isinstance(error.__cause__, EOFError):
                    raise
        return worker


@dataclass(frozen=True)
class _Kind:
    memory_bytes: int
    engine: Engine


def _kind_for(job: Job) -> _Kind:
    """Raises DataError where a driver is missing: no worker would start."""
    require_driver(job.url)
    return _Kind(job.limits.memory_bytes, job.engine)


class WorkerProcess:
    """One worker and the two pipes to it. Used by one thread at a time; `kill` from any."""

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        environment["MALLOC_ARENA_MAX"] = "1"  # so that address space measures what is used
        self._process = subprocess.Popen(
            _command(kind),
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
        self._usage = psutil.Process(self.process_id)

    def wait_until_ready(self) -> None:
        """No query's clock runs before its process does. Raises RunError if the process does not come up."""
        try:
            self._receive(START_TIMEOUT_S, READY_BYTES)
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self.kill()
            raise RunError(
                f"The process that runs SQL did not start (status {self._process.returncode}). Is this Python, "
                f"{sys.executable}, complete?"
            ) from error

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def run(self, job: Job) -> Execution:
        file = job.path if job.url is None else job.url.file
        if file is not None and not os.path.exists(file):
            raise DatabaseUnavailable(
                f"There is no database file {file}; check the path or fetch the databases first."
            )
        is_at_server = job.url is not None and job.url.is_server
        started, cpu_before = time.perf_counter(), self._cpu_seconds()
        url = None if job.url is None else job.url.to_worker()
        request = {**vars(job), **vars(job.limits), "limits": None, "url": url}
        try:
            self._send(json.dumps(request).encode())
            grace_s = GRACE_S + (CONNECT_S if is_at_server else 0)
            payload = self._receive(job.limits.timeout_s + grace_s, job.limits.max_bytes)
        except TimeoutError:
            seconds = time.perf_counter() - started
            cpu_seconds = seconds if is_at_server else self._cpu_seconds() - cpu_before
            self.kill()
            message = "killed: it did not stop at its time limit"
            return Execution(Outcome.TIMEOUT, message=message, seconds=seconds, cpu_seconds=cpu_seconds)
        except (OSError, EOFError, ValueError):
            return self._died(started, job)
        answer = json.loads(payload, object_hook=_restore_bytes)
        execution = _without_password(_decode(answer), job)
        if execution.outcome is Outcome.TOO_LARGE or answer.get("leaves_traces"):
            self.kill()  # the next job gets a process with all of its memory and no settings but ours
        return execution

    def _cpu_seconds(self) -> float:
        """What the process has used of the processor so far; 0 where that is not to be known."""
        try:
            times = self._usage.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _died(self, started: float, job: Job) -> Execution:
        """The kernel's CPU limit ends a worker by signal 24; anything else is a crash."""
        self.kill()
        seconds, status = time.perf_counter() - started, self._process.returncode
        if status == -24:
            cpu_s = job.limits.timeout_s if job.limits.cpu_s is None else job.limits.cpu_s
            message = "killed at its CPU time limit"
            return Execution(Outcome.TIMEOUT, message=message, seconds=seconds, cpu_seconds=cpu_s)
        return Execution(Outcome.CRASHED, message=f"the worker ended with status {status}", seconds=seconds)

    def _send(self, payload: bytes) -> None:
        view = memoryview(struct.pack(">I", len(payload)) + payload)
        while view:
            view = view[self._stdin.write(view) or 0 :]

    def _receive(self, timeout_s: float, max_bytes: int) -> bytearray:
        """The next frame. The time limit is for its first byte: what follows is on its way already."""
        (size,) = struct.unpack(">I", self._read(4, timeout_s))
        if size > max_bytes:
            raise ValueError(f"a worker that keeps its limits does not send {size} bytes")
        return self._read(size, timeout_s + TRANSFER_S)

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


def _command(kind: _Kind) -> list[str]:
    """SQLite's worker lives on the standard library, which comes first on its path, and two files of this package; a
    server's needs SQLAlchemy, found where we find it."""
    python = [sys.executable, "-I", "-B", "-X", "utf8"]
    if kind.engine == "sqlite":
        program = (
            f"import sys; sys.path.append({str(PACKAGE_FOLDER)!r}); "
            f"from distilsql.databases.sqlite_worker import main; main({os.getpid()}, {kind.memory_bytes})"
        )
        return [*python, "-S", "-c", program]
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    program = (
        f"import sys; sys.path = {path!r}; from distilsql.databases.server_worker import main; "
        f"main({os.getpid()}, {kind.memory_bytes}, {kind.engine!r})"
    )
    return [*python, "-c", program]


def _decode(answer: dict[str, Any]) -> Execution:
    return Execution(
        Outcome[answer["outcome"]],
        tuple(map(tuple, answer.get("rows", ()))),
        tuple(answer.get("columns", ())),
        answer.get("message", ""),
        answer["seconds"],
        cpu_seconds=answer.get("cpu_seconds", 0.0),
        states=tuple(map(tuple, answer.get("states", ()))),
    )


def _without_password(execution: Execution, job: Job) -> Execution:
    """A driver's message may repeat what it was given."""
    if job.url is None or not job.url.password or job.url.password not in execution.message:
        return execution
    return replace(execution, message=execution.message.replace(job.url.password, HIDDEN))


def _restore_bytes(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["bytes"]) if "bytes" in value else value
