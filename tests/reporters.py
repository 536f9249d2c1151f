"""What tests do with progress: look at work as it advances, or stop it there."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from distilsql.progress import Work, reporting_to


class _Watcher:
    def __init__(self, look: Callable[[Work], None]) -> None:
        self.advanced = look

    def began(self, work: Work) -> None:
        """Only what is done is of interest."""

    def ended(self, work: Work) -> None:
        """Nothing that was not seen before."""


def watching(look: Callable[[Work], None]) -> AbstractContextManager[None]:
    """`look` is called with every piece of work that advances in here; what it raises ends the work."""
    return reporting_to(_Watcher(look))


def answering(look: Callable[[int], None]) -> AbstractContextManager[None]:
    """`look` is called with the number of questions answered so far, after each answer."""
    return watching(lambda work: look(work.done) if "answering" in work.what else None)
