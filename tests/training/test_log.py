"""log.jsonl when a run resumes: nothing of what will be done again stays, and nothing else is lost."""

import json
import os

from distilsql.runs.folder import RunFolder, append_line, drop_lines_after
from run_folders import log_lines


def test_a_resumed_run_keeps_the_lines_up_to_its_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    drop_lines_after(run, 0)
    assert not run.log.exists(), "a new run has no log yet"
    lines = [{"step": 0, "teacher_completions": {}}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    lines += [{"step": 2, "valid_accuracy": 0.5}, {"step": 3, "loss": 0.5}]
    for line in lines:
        append_line(run, line)
    with run.log.open("a") as file:
        file.write('{"step": 1, "lo')  # cut off by a kill
    os.link(run.log, tmp_path / "before")
    before = run.log.read_text()
    drop_lines_after(run, 2)
    assert (tmp_path / "before").read_text() == before, "the log was whole until the new one took its name"
    assert log_lines(run) == lines[:4]
    append_line(run, lines[4])
    assert json.loads(run.log.read_text().splitlines()[-1]) == lines[4]
