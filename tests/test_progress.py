"""How far work is: told to the reporter that is installed, and to nobody in a library."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from distilsql.progress import Work, duration, progress, reporting_to, titled


class Recorder:
    """What a reporter is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def began(self, work: Work) -> None:
        self.told.append(("began", work.what, work.done, work.total))

    def advanced(self, work: Work) -> None:
        self.told.append(("advanced", work.what, work.done, work.detail))

    def ended(self, work: Work) -> None:
        self.told.append(("ended", work.what, work.done))


def test_a_reporter_is_told_of_work_within_work():
    recorder = Recorder()
    with reporting_to(recorder), titled("2/5 kid"), progress("training", 4, done=2, unit="step") as advance:
        advance(detail="loss 0.5")
        with progress("judging", 9) as judge:
            judge(9)
    with progress("training", 4) as advance:
        advance()
    assert recorder.told == [
        ("began", "2/5 kid: training", 2, 4),
        ("advanced", "2/5 kid: training", 3, "loss 0.5"),
        ("began", "2/5 kid: judging", 0, 9),
        ("advanced", "2/5 kid: judging", 9, ""),
        ("ended", "2/5 kid: judging", 9),
        ("ended", "2/5 kid: training", 3),
    ]


def test_work_that_fails_has_ended():
    recorder = Recorder()
    with reporting_to(recorder), pytest.raises(KeyError), progress("training", 4):
        raise KeyError
    assert recorder.told[-1] == ("ended", "training", 0)


def test_threads_may_advance_the_same_work():
    recorder = Recorder()
    with reporting_to(recorder), progress("judging", 4000) as advance, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: advance(), range(4000)))
    assert recorder.told[-1] == ("ended", "judging", 4000)


def test_what_is_left_is_reckoned_by_what_this_process_did():
    work = Work("training", total=100, done=40, began_s=1000.0)
    assert work.seconds_left(1010.0) is None, "nothing is done yet"
    work.done = 50
    assert work.seconds_left(1020.0) == 100.0, "two seconds for each of ten steps, and fifty are left"
    assert Work("starting").seconds_left(5.0) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (8000, "2 h 13 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_library_says_nothing_unless_logging_is_configured():
    code = (
        "import logging, distilsql\n{}"
        "log = logging.getLogger('distilsql.runs.train')\nlog.info('a step'); log.warning('a fault')"
    )
    for configured, said in (("", ""), ("logging.basicConfig(level=logging.INFO)\n", "fault")):
        result = subprocess.run(
            [sys.executable, "-c", code.format(configured)], capture_output=True, text=True
        )
        assert result.stdout == ""
        assert said in result.stderr
        assert bool(result.stderr) == bool(said)
    assert logging.getLogger("distilsql").level == logging.NOTSET
