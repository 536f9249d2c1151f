"""The display of a running command on standard error: messages, and progress as bars (in a terminal) or plain lines."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.text import Text

from distilsql.progress import Reporter, Work, duration, reporting_to

_FIRST_LINE_S = 2.0
_LINE_EVERY_S = 15.0
_LOOK_EVERY_S = 0.5


# ---- where standard error is a file or a pipe ------------------------------------------------------------------------


class Lines:
    """Reports progress as plain lines: one soon after work begins, one every 15 seconds, and one at its end.

    Work that ends before its first line is due is not reported. A thread calls `tick`, which writes the lines that are
    due, so that a step that takes minutes does not look like a hung process.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._under_way: list[Work] = []
        self._shown: set[int] = set()
        self._last_line_s = clock()
        self._lock = threading.Lock()

    def began(self, work: Work) -> None:
        with self._lock:
            self._under_way.append(work)

    def advanced(self, work: Work) -> None:
        """Writes nothing: `tick` will show it."""

    def ended(self, work: Work) -> None:
        with self._lock:
            self._under_way.remove(work)
            if id(work) in self._shown:
                self._shown.discard(id(work))
                if work.total is not None and work.done >= work.total:
                    self._line(f"{_so_far(work)}, {duration(self._clock() - work.began_s)} in all")

    def tick(self) -> None:
        with self._lock:
            if not self._under_way:
                return
            work, now_s = self._under_way[-1], self._clock()
            is_first = id(work) not in self._shown and now_s - work.began_s >= _FIRST_LINE_S
            if is_first or now_s - self._last_line_s >= _LINE_EVERY_S:
                self._shown.add(id(work))
                self._line(_line(work, now_s))

    def _line(self, text: str) -> None:
        self._last_line_s = self._clock()
        self._write(text)


def _line(work: Work, now_s: float) -> str:
    parts = [_so_far(work), f"{duration(now_s - work.began_s)} so far"]
    left_s = work.seconds_left(now_s)
    return ", ".join(parts if left_s is None else [*parts, f"about {duration(left_s)} left"])


def _so_far(work: Work) -> str:
    """`training: step 120 of 200, loss 0.412`; for work without a total, only its name."""
    if work.total is None:
        return work.what
    counted = f"{work.what}: {f'{work.unit} ' if work.unit else ''}{work.done:,} of {work.total:,}"
    return f"{counted}, {work.detail}" if work.detail else counted


# ---- where it is a terminal ------------------------------------------------------------------------------------------


class Bars:
    """Reports progress as bars, one per piece of work in progress; a bar disappears when its work ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._lock = threading.Lock()

    def began(self, work: Work) -> None:
        with self._lock:
            if self._bars is None:
                self._bars = Progress(*_columns(), console=self._console, transient=True)
                self._bars.start()
            self._tasks[id(work)] = self._bars.add_task(
                Text(work.what).markup, total=work.total, completed=work.done, work=work
            )

    def advanced(self, work: Work) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.update(self._tasks[id(work)], completed=work.done)

    def ended(self, work: Work) -> None:
        with self._lock:
            if self._bars is None:
                return
            self._bars.remove_task(self._tasks.pop(id(work)))
            if not self._tasks:
                self._bars.stop()
                self._bars = None


def _columns() -> list[ProgressColumn]:
    return [TextColumn("{task.description}"), BarColumn(), _Count(), _Detail(), Elapsed(), _Left()]


class _Count(MofNCompleteColumn):
    """`120/200`, and nothing for work without a total."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Detail(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["work"].detail)


class _Left(ProgressColumn):
    """Time left, by our own estimate: rich's ignores steps that took longer than half a minute."""

    def render(self, task: Task) -> Text:
        left_s = task.fields["work"].seconds_left(time.monotonic())
        return Text("" if left_s is None else f"{duration(left_s)} left")


# ---- both ------------------------------------------------------------------------------------------------------------


class Sentences(logging.Handler):
    """Writes the library's log messages as they are; warnings begin with `Warning:`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        said = self.format(record)
        self._write(f"Warning: {said}" if record.levelno >= logging.WARNING else said)


def is_first_process() -> bool:
    """Whether this process, of those that a launcher such as torchrun started, is the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def displaying() -> Iterator[None]:
    """Show messages and progress of the code in the block. If several processes train together, only the first does."""
    is_silent = not is_first_process()
    console = Console(stderr=True)
    is_terminal = sys.stderr.isatty() and not console.is_dumb_terminal
    write = _writer(console if is_terminal else None)
    reporter: Reporter = Bars(console) if is_terminal else Lines(write)
    logger = logging.getLogger("distilsql")
    level, handler = logger.level, Sentences(write)
    logger.setLevel(logging.CRITICAL + 1 if is_silent else logging.INFO)
    logger.addHandler(handler)
    over = threading.Event()
    if isinstance(reporter, Lines):
        threading.Thread(target=_keep_ticking, args=(reporter, over), daemon=True).start()
    try:
        with reporting_to(None if is_silent else reporter):
            yield
    finally:
        over.set()
        logger.removeHandler(handler)
        logger.setLevel(level)


def _writer(terminal: Console | None) -> Callable[[str], None]:
    """A function that writes to standard error. If its reader has exited, as `head` does, the training goes on."""

    def write(text: str) -> None:
        with suppress(OSError, ValueError):
            if terminal is not None:
                terminal.print(text, highlight=False, markup=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)

    return write


def _keep_ticking(lines: Lines, over: threading.Event) -> None:
    while not over.wait(_LOOK_EVERY_S):
        lines.tick()
