"""SIGINT (Ctrl-C) and SIGTERM: acknowledged at once, obeyed when nothing would be lost; a second one ends the process.

Python runs signal handlers in its main thread between two operations, and one operation may take long. In a command
(`watched`), a separate thread therefore reads the signal numbers from a pipe, into which the interpreter writes them as
soon as they arrive. It acknowledges them, and ends the process if the main thread does not.
"""

import _thread
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long the main thread may take to clean up after a second signal.
_GRACE_S = 2.0
_END = 0  # no signal has this number


class StopRequest:
    """The signals that the process has received. `number` is that of the first signal, None if there was none yet.

    `when` says what the work waits for before it stops, such as "this step is saved". If it is empty, the first signal
    raises KeyboardInterrupt in the main thread, otherwise the second does. `kept` says what has been saved so far.
    `requested` is about this process only: of several, some may see a signal a step later, or never.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.when = self.kept = ""
        self._arrived = self._handled = 0
        self._is_watched = self._is_raised = False

    @property
    def requested(self) -> bool:
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status of a stopped process, by the convention of shells."""
        return 128 + (self.number or signal.SIGINT)

    def _arrive(self, number: int) -> None:
        self._arrived += 1
        self.number = self.number or number
        if self._arrived == 1:
            when = f" as soon as {self.when}" if self.when else ""
            log.info(f"Stopping{when}. Ask again to stop at once.")
        elif self._arrived == 2:
            log.info("Stopping at once.")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Two signals that arrive during one operation cause only one call."""
        self._handled += 1
        self.number = self.number or number
        if not self._is_watched:
            self._arrive(number)
        if (not self.when or max(self._arrived, self._handled) > 1) and not self._is_raised:
            self._is_raised = True
            raise KeyboardInterrupt

    def _watch(self, pipe: int, over: threading.Event, last_words: Callable[["StopRequest"], None]) -> None:
        while (number := os.read(pipe, 1)[0]) != _END:
            if number in _SIGNALS:
                self._arrive(number)
            if self._arrived > 1:
                # One call of the handler may have stood for both signals.
                _thread.interrupt_main(signal.Signals(number))
                if not over.wait(_GRACE_S):
                    last_words(self)
                    os._exit(self.status)
                return


_of_command: StopRequest | None = None


@contextmanager
def watched(last_words: Callable[[StopRequest], None]) -> Iterator[StopRequest]:
    """Run a command in the main thread. After a second signal, if the process does not end within two seconds, it is
    ended, with `last_words` and the signal's exit status."""
    global _of_command
    request, over = StopRequest(), threading.Event()
    request._is_watched = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=request._watch, args=(reading, over, last_words), daemon=True)
    watcher.start()
    previous_pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _of_command = request
    try:
        with _handling(request):
            yield request
    finally:
        _of_command = None
        signal.set_wakeup_fd(previous_pipe)
        over.set()
        os.write(writing, bytes([_END]))
        watcher.join()
        os.close(reading)
        os.close(writing)


@contextmanager
def stopping_when(this: str) -> Iterator[StopRequest]:
    """For work that checks `requested` and ends by itself, once `this` is true.

    In a command, yields the command's request. In a library, signals are handled inside the block if it runs in the
    main thread; in another thread, the host program decides how the work stops.
    """
    request = _of_command or StopRequest()
    is_main = threading.current_thread() is threading.main_thread()
    request.when = this
    try:
        if request is _of_command or not is_main:
            yield request
        else:
            with _handling(request):
                yield request
    finally:
        request.when = ""


def say_kept(what: str) -> None:
    """Set what a command says about saved work if it is stopped now."""
    if _of_command is not None:
        _of_command.kept = what


@contextmanager
def _handling(request: StopRequest) -> Iterator[None]:
    previous: dict[int, Any] = {number: signal.signal(number, request._handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
