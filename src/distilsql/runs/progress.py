"""Telling people how far work is: sentences, and bars in the terminal with the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@dataclass(frozen=True)
class TrainingProgress:
    """What training reports while it runs: a sentence, or a step of a known total."""

    message: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None


Say = Callable[[str], None]
Report = Callable[[TrainingProgress], None]


def silent(said: str | TrainingProgress) -> None:
    """Tell nobody."""


@contextmanager
def training_bar(description: str = "training", console: Console | None = None) -> Iterator[Report]:
    """A reporter for `train`. Where standard error is no terminal, only sentences are printed."""
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=None, loss="–")

        def report(progress: TrainingProgress) -> None:
            if progress.message:
                bar.console.print(progress.message, highlight=False, markup=False)
            if progress.steps:
                loss = "–" if progress.loss is None else f"{progress.loss:.3f}"
                bar.update(task, completed=progress.step, total=progress.steps, loss=loss)

        yield report


@contextmanager
def counting_bar(description: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A reporter of how many are done and of how many; on standard error, and nothing where that is no terminal."""
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
