"""Independent jobs as processes of one thread each, as many at a time as there are cores.

Small models gain nothing from several threads, so two of them trained side by side take half the time. A job is a
program that writes events to its standard output, a JSON object a line, and its error as the event {"error": …}.
When it has ended well, the event {"ended": true} follows.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from distilsql.errors import RunError

Event = Mapping[str, Any]
OnEvent = Callable[[str, Event], None]
# How long a job may take to finish its step and save, once it is asked to stop.
_STOPPING_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """A module with a `main`, and its arguments."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()

    def start(self) -> "subprocess.Popen[str]":
        """Start in a separate process group, so that Ctrl-C in a terminal reaches the job only through us."""
        return subprocess.Popen(
            [sys.executable, "-m", self.module, *self.arguments],
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            process_group=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(jobs: Sequence[Job], on_event: OnEvent, *, at_once: int | None = None) -> None:
    """Run all jobs, in order, at most `at_once` at a time (by default as many as there are cores).

    Raises:
        RunError: a job failed; the others were asked to stop and have saved what they had.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once every job has stopped.
    """
    running = _Running()
    waiting = list(jobs)
    with _sigterm_as_interrupt():
        try:
            while waiting or running.processes:
                while waiting and len(running.processes) < (at_once or usable_cores()):
                    running.start(waiting.pop(0))
                name, event = running.next_event()
                if event is not None:
                    on_event(name, event)
                else:
                    running.finish(name)
                    on_event(name, {"ended": True})
        except BaseException:
            running.stop()
            raise


@dataclass
class _Running:
    """The jobs at work. Each has a thread that reads its events; the last of them is None."""

    processes: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)
    events: "queue.Queue[tuple[str, Event | None]]" = field(default_factory=queue.Queue)
    errors: dict[str, str] = field(default_factory=dict)

    def start(self, job: Job) -> None:
        process = self.processes[job.name] = job.start()
        threading.Thread(target=self._read, args=(job.name, process), daemon=True).start()

    def _read(self, name: str, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.events.put((name, json.loads(line)))
        self.events.put((name, None))

    def next_event(self) -> tuple[str, Event | None]:
        name, event = self.events.get()
        if event is not None and "error" in event:
            self.errors[name] = str(event["error"])
        return name, event

    def finish(self, name: str) -> None:
        """Raises RunError if the job failed."""
        status = self.processes.pop(name).wait()
        if status:
            raise RunError(
                self.errors.get(
                    name,
                    f"{name} ended with status {status}. Its messages are above; run the command again to resume.",
                )
            )

    def stop(self) -> None:
        """Ask every job to save and end; kill those that do not."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + _STOPPING_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """While entered, SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers can only be set in the main thread
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
