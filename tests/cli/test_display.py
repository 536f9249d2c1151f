"""What a running command shows: bars in a terminal, plain lines elsewhere, and one voice of several processes."""

import io
import logging
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from distilsql.cli.display import Bars, Lines
from distilsql.cli.training import train as train_command
from distilsql.progress import progress, reporting_to
from distilsql.runs.folder import RunFolder


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("distilsql.progress.time.monotonic", found)
    return found


def test_lines_come_soon_then_now_and_then_and_at_the_end(clock):
    written: list[str] = []
    lines = Lines(written.append, clock)

    def wait(seconds: int) -> None:
        for _ in range(2 * seconds):
            clock.now += 0.5
            lines.tick()

    with reporting_to(lines), progress("training", 200, done=100, unit="step") as advance:
        wait(1)
        assert written == []
        wait(1)
        assert written.pop() == "training: step 100 of 200, 2 s so far"
        advance(10, detail="loss 0.412")
        wait(14)
        assert written == []
        wait(34)
        assert written == [
            "training: step 110 of 200, loss 0.412, 17 s so far, about 2 min 33 s left",
            "training: step 110 of 200, loss 0.412, 32 s so far, about 4 min 48 s left",
            "training: step 110 of 200, loss 0.412, 47 s so far, about 7 min 3 s left",
        ], "a step that takes long is shown to be alive"
        written.clear()
        with progress("judging", 5) as judge:
            judge(2)
            wait(2)
            assert written.pop() == "judging: 2 of 5, 2 s so far, about 3 s left"
            judge(3)
        assert written.pop() == "judging: 5 of 5, 2 s in all"
        advance(90, detail="loss 0.2")
    assert written == ["training: step 200 of 200, loss 0.2, 52 s in all"]
    wait(60)
    assert len(written) == 1, "nothing is under way"


def test_short_work_is_not_worth_a_line_but_a_long_row_of_it_is(clock):
    written: list[str] = []
    lines = Lines(written.append, clock)
    with reporting_to(lines):
        for _ in range(40):
            with progress("judging", 1) as advance:
                clock.now += 1
                lines.tick()
                advance()
    assert written.count("judging: 0 of 1, 1 s so far") == 2


def test_work_that_stops_half_way_is_not_called_done(clock):
    written: list[str] = []
    lines = Lines(written.append, clock)

    def stopped() -> None:
        with progress("training", 4):
            clock.now += 3
            lines.tick()
            raise KeyboardInterrupt

    with reporting_to(lines), pytest.raises(KeyboardInterrupt):
        stopped()
    assert written == ["training: 0 of 4, 3 s so far"]


def test_bars_show_all_work_under_way_and_vanish(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    shown = io.StringIO()
    bars = Bars(Console(file=shown, force_terminal=True, width=120))
    with reporting_to(bars), progress("1/2 [kid]: training", 200, unit="step") as advance:
        advance(3, detail="loss 0.412")
        with progress("starting"):
            pass
    text = shown.getvalue()
    for words in ("1/2 [kid]: training", "3/200", "loss 0.412", "starting"):
        assert words in text
    assert text.rstrip().endswith("\x1b[2K\x1b[?25h"), (
        "in the end the bars are cleared away and the cursor is back"
    )


WORK = """
import logging, sys, time
from distilsql.cli import display
from distilsql.progress import progress
display._FIRST_LINE_S, display._LOOK_EVERY_S = 0.0, 0.01
log = logging.getLogger("distilsql.training.train")
with display.displaying(), progress("training", 2) as advance:
    log.info("a sentence with [brackets] and a path of some length: " + "/".join(["folder"] * 20))
    log.warning("a fault")
    advance(detail="loss 0.1")
    time.sleep(0.5)
    advance(detail="loss 0.2")
"""
SENTENCE = "a sentence with [brackets] and a path of some length: " + "/".join(["folder"] * 20)


def test_a_file_gets_plain_lines_whatever_the_environment_forces():
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "40"}
    result = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, env=environment, check=True
    )
    lines = result.stderr.splitlines()
    assert lines[:2] == [SENTENCE, "Warning: a fault"]
    assert lines[2].startswith("training: 1 of 2, loss 0.1")
    assert lines[-1].startswith("training: 2 of 2, loss 0.2")
    assert "\x1b" not in result.stderr
    assert "\r" not in result.stderr
    assert result.stdout == ""


def test_a_terminal_gets_bars_and_whole_sentences():
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen([sys.executable, "-c", WORK], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end has gone
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0
    os.close(ours)
    text = shown.decode()
    assert "1/2" in text
    assert "━" in text
    assert SENTENCE in text.replace("\r\n", "\n")
    assert "Warning: a fault" in text


def test_of_several_processes_the_first_alone_speaks():
    for rank, speaks in (("0", True), ("1", False)):
        result = subprocess.run(
            [sys.executable, "-c", WORK],
            capture_output=True,
            text=True,
            env=os.environ | {"RANK": rank},
            check=True,
        )
        assert bool(result.stderr) == speaks


@pytest.mark.parametrize(("rank", "speaks"), [("0", True), ("3", False)])
def test_the_last_line_is_the_first_processs_too(rank, speaks, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("distilsql.training.train.train", lambda recipe, out, overwrite: RunFolder(out))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('method = "sft"\nstudent.path = "s"\ndata.train = "spider:train"\ntrain.steps = 1\n')
    train_command(recipe)
    assert ("Finished" in capsys.readouterr().out) == speaks


def test_a_reader_who_has_gone_stops_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run([sys.executable, "-c", WORK + "\nprint('done')"], stdout=-1, stderr=writing)
    finally:
        os.close(writing)
    assert process.stdout.split() == [b"done"]


def test_logging_is_left_as_it_was():
    from distilsql.cli.display import displaying

    logger = logging.getLogger("distilsql")
    before = (logger.level, list(logger.handlers))
    with displaying():
        assert logger.level == logging.INFO
    assert (logger.level, list(logger.handlers)) == before
