"""Jobs in processes of their own: their events, their failures, and how they are stopped."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from distilsql.errors import RunError
from distilsql.runs.side_by_side import Event, Job, run_side_by_side

_JOB = """
import json, signal, sys, time
from pathlib import Path

def tell(**event):
    print(json.dumps(event), flush=True)

def saved(number, frame):
    Path(sys.argv[2]).write_text("saved")
    sys.exit(130)

signal.signal(signal.SIGTERM, saved)
Path(sys.argv[2] + ".ready").touch()
tell(doing="begun")
if sys.argv[1] == "fail":
    while not Path(sys.argv[3]).exists():
        time.sleep(0.05)
    tell(error="The disk is full.")
    sys.exit(1)
if sys.argv[1] == "crash":
    sys.exit(3)
while sys.argv[1] == "wait":
    time.sleep(0.05)
tell(doing="over")
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Job]:
    """Makes a job of a name that works as told: end, fail, crash, or wait until it is stopped."""
    (tmp_path / "a_job_of_the_tests.py").write_text(_JOB)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return lambda name, how: Job(
        name, "a_job_of_the_tests", (how, str(tmp_path / name), str(tmp_path / "waits.ready"))
    )


def test_every_event_of_every_job_arrives_in_its_order(job):
    events: dict[str, list[Event]] = {"a": [], "b": [], "c": []}
    run_side_by_side(
        [job(name, "end") for name in events], lambda name, event: events[name].append(event), at_once=2
    )
    for seen in events.values():
        assert seen == [{"doing": "begun"}, {"doing": "over"}, {"ended": True}]


def test_no_more_run_than_are_asked_for(job):
    running, most = set(), []

    def on_event(name: str, event: Event) -> None:
        running.discard(name) if "ended" in event else running.add(name)
        most.append(len(running))

    run_side_by_side([job(name, "end") for name in "abc"], on_event, at_once=1)
    assert max(most) == 1


def test_a_job_that_fails_says_why_and_the_others_save(job, tmp_path):
    with pytest.raises(RunError, match="The disk is full"):
        run_side_by_side([job("waits", "wait"), job("fails", "fail")], _ignore, at_once=2)
    assert (tmp_path / "waits").read_text() == "saved"


def test_a_job_that_crashes_is_named_with_its_status(job):
    with pytest.raises(RunError, match="bad ended with status 3"):
        run_side_by_side([job("bad", "crash")], _ignore)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_every_job_once_it_has_saved(job, tmp_path, number):
    begun = set()

    def on_event(name: str, event: Event) -> None:
        begun.add(name)
        if len(begun) == 2:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        run_side_by_side([job(name, "wait") for name in "ab"], on_event, at_once=2)
    assert {name: (tmp_path / name).read_text() for name in "ab"} == {"a": "saved", "b": "saved"}


def test_it_works_outside_the_main_thread(job):
    failures = []

    def work() -> None:
        try:
            run_side_by_side([job("a", "end")], _ignore)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def _ignore(name: str, event: Event) -> None:
    pass
