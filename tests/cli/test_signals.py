"""SIGINT and SIGTERM, sent to real commands: heard at once, nothing lost, and a second one ends the process."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distilsql.interrupt import StopRequest, stopping_when

LIMIT_S = 120.0  # generous: what is waited for comes in a second on an idle machine
SIGNALS = [signal.SIGINT, signal.SIGTERM]


class Command:
    """A process whose standard error is read as it comes. It leads a session, so that nothing else gets its signals."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.path = cwd / "stderr.txt"
        with self.path.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], cwd=cwd, stdout=errors, stderr=errors, start_new_session=True
            )

    def said(self) -> str:
        return self.path.read_text()

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        return self.process.wait(LIMIT_S)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Command]]:
    """`start(*arguments)` starts Python in the test's folder. What still runs at the end is killed."""
    started: list[Command] = []

    def begin(*arguments: str) -> Command:
        started.append(Command(*arguments, cwd=tmp_path))
        return started[-1]

    yield begin
    for command in started:
        command.process.kill()
        command.process.wait()


STUCK = """
import hashlib, sys
from distilsql import cli
from distilsql.interrupt import say_kept, stopping_when

@cli.app.command()
def stuck(overwrite: bool = False):
    with stopping_when("this step is finished and saved") as stop:
        say_kept("The checkpoint after step 7 of 9 is saved in runs/x.")
        print("begun", flush=True)
        # One operation of hours, as a large kernel's would be: other threads run, but no handler before it ends.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

sys.argv = ["distilsql", "stuck", "--overwrite"]
cli.main()
"""


@pytest.mark.parametrize("number", [SIGNALS[0], pytest.param(SIGNALS[1], marks=pytest.mark.slow)])
def test_a_process_stuck_in_one_operation_hears_the_first_signal_and_ends_at_the_second(start, number):
    command = start("-c", STUCK)
    command.wait_for("begun")
    command.signal(number)
    command.wait_for("Stopping as soon as this step is finished and saved. Ask again to stop at once.")
    command.signal(number)
    assert command.status() == 128 + number
    assert (
        "The checkpoint after step 7 of 9 is saved in runs/x. To resume: distilsql stuck\n" in command.said()
    )


WAITING = """
import sys, time
from distilsql import cli
from distilsql.interrupt import stopping_when

@cli.app.command()
def waiting():
    with stopping_when("this step is finished and saved") as stop:
        print("begun", flush=True)
        try:
            while not stop.requested:
                time.sleep(0.01)
        finally:
            print("cleaned up", flush=True)
        raise KeyboardInterrupt

sys.argv = ["distilsql", "waiting"]
cli.main()
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_work_ends_by_itself_where_nothing_is_lost(start, number):
    command = start("-c", WAITING)
    command.wait_for("begun")
    command.signal(number)
    assert command.status() == 128 + number
    assert "cleaned up" in command.said()
    assert "stopped. To resume: distilsql waiting" in command.said()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_library_is_interrupted_by_the_second_signal_only(caplog, number):
    caplog.set_level("INFO", "distilsql")
    before = signal.getsignal(number)
    with stopping_when("this step is saved") as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert stop.status == 128 + number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)  # while it cleans up, it is left in peace
    assert signal.getsignal(number) is before
    assert caplog.messages == [
        "Stopping as soon as this step is saved. Ask again to stop at once.",
        "Stopping at once.",
    ]


def test_two_signals_that_one_call_of_the_handler_stands_for_are_two():
    stop = StopRequest()
    stop.when, stop._is_watched = "this step is saved", True
    stop._arrive(signal.SIGTERM)
    stop._arrive(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stop._handle(signal.SIGTERM, None)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_evaluate_ends_and_takes_its_endless_queries_along(start, tmp_path, number):
    """A worker is in a session of its own, where no signal to the command reaches it, and its query ends by itself no
    sooner than in half a minute."""
    with sqlite3.connect(tmp_path / "shop.sqlite") as database:
        database.executescript("CREATE TABLE item (price INTEGER); INSERT INTO item VALUES (1);")
    database.close()
    pairs = [{"question": f"{i}?", "sql": f"SELECT count(*) + {i} FROM item"} for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "answers.txt").write_text(f"{ENDLESS}\n" * 4)
    options = ["--on", "pairs.jsonl", "--database", "shop.sqlite"]
    command = start("-m", "distilsql.cli", "evaluate", "answers.txt", *options)
    command.wait_for("judging: 0 of 4")
    workers = _children(command.process.pid)
    assert workers
    command.signal(number)
    assert command.status() == 128 + number
    assert "Stopping. Ask again to stop at once." in command.said()
    assert "stopped. To resume: distilsql evaluate answers.txt --on pairs.jsonl" in command.said()
    assert "Traceback" not in command.said()
    deadline = time.monotonic() + LIMIT_S
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _children(process_id: int) -> list[str]:
    return Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split() or [
        child
        for task in os.listdir(f"/proc/{process_id}/task")
        for child in Path(f"/proc/{process_id}/task/{task}/children").read_text().split()
    ]
