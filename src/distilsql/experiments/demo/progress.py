"""Progress of the demo's jobs: bars in a terminal, otherwise a line from time to time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distilsql.experiments.side_by_side import Event, OnEvent

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_of_jobs(names: Sequence[str], console: Console) -> Iterator[OnEvent]:
    """What to call with the events of jobs of these names (`side_by_side`)."""
    if console.is_terminal:
        with _bars(names, console) as on_event:
            yield on_event
    else:
        yield _Lines(names, console)


@contextmanager
def _bars(names: Sequence[str], console: Console) -> Iterator[OnEvent]:
    columns: list[Any] = [
        TextColumn("{task.fields[name]:<8} {task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {
            name: bar.add_task("waiting", start=False, total=None, name=name, detail="") for name in names
        }

        def on_event(name: str, event: Event) -> None:
            if "said" in event:
                bar.console.print(f"{name}: {event['said']}", highlight=False, markup=False)
            if "ended" in event:
                bar.update(tasks[name], description="done", detail="")
                bar.stop_task(tasks[name])
            if "doing" in event:
                bar.start_task(tasks[name])
                bar.update(
                    tasks[name],
                    description=event["doing"],
                    completed=event["done"],
                    total=event["total"],
                    detail=event["detail"],
                )

        yield on_event


class _Lines:
    """Reports the progress of every job, at most once per `SECONDS_BETWEEN_LINES`."""

    def __init__(self, names: Sequence[str], console: Console) -> None:
        self._far = dict.fromkeys(names, "waiting")
        self._console = console
        self._start = self._last = time.monotonic()

    def __call__(self, name: str, event: Event) -> None:
        if "said" in event:
            self._print(f"{name}: {event['said']}")
        if "doing" in event:
            self._far[name] = f"{event['doing']} {event['done']}/{event['total']}"
        if "ended" in event:
            self._far[name] = "done"
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            minutes, seconds = divmod(round(self._last - self._start), 60)
            far = ", ".join(f"{each} {done}" for each, done in self._far.items())
            self._print(f"{minutes}:{seconds:02} {far}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
