"""Progress of long work, passed to one reporter; by default none is installed, as befits a library.

    with progress("training", 200, unit="step") as advance:
        for window in windows:
            …
            advance(detail="loss 0.41")

The command line installs a reporter that draws bars or writes lines (`distilsql.cli.display`); `reporting_to` installs
any other. Messages are not progress: they go to `logging.getLogger("distilsql")`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol


@dataclass
class Work:
    """A piece of work in progress: `done` of `total` units, `before` of them done before it began.

    `total` is None if it is not known; `detail` is a few words about the last unit, such as its loss.
    """

    what: str
    total: int | None = None
    done: int = 0
    unit: str = ""
    detail: str = ""
    began_s: float = field(default_factory=lambda: time.monotonic())
    before: int = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.done

    def seconds_left(self, now_s: float) -> float | None:
        """An estimate from the units done since the work began; None before the first, or without a total."""
        if self.total is None or self.done <= self.before:
            return None
        return (now_s - self.began_s) / (self.done - self.before) * max(self.total - self.done, 0)


class Reporter(Protocol):
    """Is called when work begins, advances and ends, in whichever thread does it. Work may be nested."""

    def began(self, work: Work) -> None: ...

    def advanced(self, work: Work) -> None: ...

    def ended(self, work: Work) -> None: ...


class Advance(Protocol):
    """Reports `by` more units as done. May be called from any thread."""

    def __call__(self, by: int = 1, *, detail: str = "") -> None: ...


_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)
_title: ContextVar[str] = ContextVar("title", default="")


@contextmanager
def progress(what: str, total: int | None = None, *, done: int = 0, unit: str = "") -> Iterator[Advance]:
    """Report work of `total` units, `done` of them done already. Yields a function to call after each other."""
    reporter, title = _reporter.get(), _title.get()
    work = Work(f"{title}: {what}" if title else what, total, done, unit)
    lock = threading.Lock()

    def advance(by: int = 1, *, detail: str = "") -> None:
        with lock:
            work.done += by
            work.detail = detail
        if reporter is not None:
            reporter.advanced(work)

    if reporter is not None:
        reporter.began(work)
    try:
        yield advance
    finally:
        if reporter is not None:
            reporter.ended(work)


@contextmanager
def reporting_to(reporter: Reporter | None) -> Iterator[None]:
    """Work that begins in the block is reported to `reporter`; with None, to nobody."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def titled(title: str) -> Iterator[None]:
    """Work that begins in the block is named `title: …`, for example after its run."""
    token = _title.set(title)
    try:
        yield
    finally:
        _title.reset(token)


def duration(seconds: float) -> str:
    """42.3 → `42 s`, 200 → `3 min 20 s`, 8000 → `2 h 13 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
