"""Work in threads that mostly wait, for another process or for a server."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def each(
    count: int, work: Callable[[int], Answer], *, at_once: int, stop: threading.Event | None = None
) -> list[Answer]:
    """`work(index)` for every index below `count`, in order, in threads, `at_once` at a time.

    The first exception that it raises is raised here, when what is under way has ended: no other work begins, and
    `stop` is set, at which work may look. Ctrl-C is raised here at once, and sets `stop` too.
    """
    answers: list[Any] = [None] * count
    todo = iter(range(count))
    lock, ending = threading.Lock(), stop or threading.Event()
    errors: list[BaseException] = []

    def go_on() -> None:
        while not ending.is_set():
            with lock:
                index = next(todo, None)
            if index is None:
                return
            try:
                answers[index] = work(index)
            except BaseException as error:
                errors.append(error)
                ending.set()

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(min(at_once, count))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        ending.set()
        raise
    if errors:
        raise errors[0]
    return answers
