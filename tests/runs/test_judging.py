"""Where scores go: tried before anything is judged, printed before they are written, nothing left behind."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from distilsql.errors import RunError
from distilsql.files import check_writable, write_bytes, write_text


@pytest.fixture
def world(tmp_path):
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    golds = [f"SELECT count(*) FROM t WHERE a < {n}" for n in range(20)]
    lines = [json.dumps({"question": f"{n}?", "sql": sql}) for n, sql in enumerate(golds)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "predictions.sql").write_text("\n".join(golds))
    return tmp_path


def judge(world, *options, preexec=None):
    command = [sys.executable, "-m", "distilsql.cli", "evaluate", "predictions.sql", "--on", "pairs.jsonl"]
    command += ["--database", "t.sqlite", *options]
    # With small files, Python would leave half of a compiled module behind.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=world, capture_output=True, text=True, preexec_fn=preexec, env=environment
    )


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500))


def test_scores_are_printed_although_they_cannot_be_written(world):
    """A disk that fills up while judging: there is room for the trial, and not for the scores."""
    result = judge(world, "--out", "new/scores.json", preexec=small_files)
    assert result.returncode == 1
    assert "EX on pairs.jsonl: 100.0%" in result.stdout
    assert "File too large" in result.stderr
    assert os.listdir(world / "new") == []
    assert judge(world, "--out", "new/scores.json").returncode == 0
    assert json.loads((world / "new/scores.json").read_text())["correct"] == 20


def test_a_place_that_cannot_be_written_is_refused_before_judging(world):
    (world / "predictions.sql").unlink()  # would be the next complaint
    result = judge(world, "--out", "t.sqlite/scores.json")
    assert result.returncode == 1
    assert "t.sqlite/scores.json cannot be written (a part of its path is a file)" in " ".join(
        result.stderr.split()
    )
    assert "nothing was started" in result.stderr


def no_room(path):
    small = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, small[1]))
    try:
        check_writable(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, small)


def test_each_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    places = {
        tmp_path: "is a folder",
        tmp_path / "file" / "scores.json": "a part of its path is a file",
        tmp_path / "file" / "deep" / "scores.json": "a part of its path is a file",
        tmp_path / "loop" / "scores.json": "cannot be written",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / ("x" * 250): "File name too long",  # with the temporary name's ending
        tmp_path / ("x" * 300) / "scores.json": "File name too long",
    }
    if os.path.isdir("/proc/self"):
        places["/proc/scores.json"] = "cannot be written"
    for place, words in places.items():
        with pytest.raises(RunError, match=words):
            check_writable(tmp_path / place)
    with pytest.raises(RunError, match="File too large"):
        no_room(tmp_path / "scores.json")
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]
    check_writable(tmp_path / "new" / "scores.json")
    assert os.listdir(tmp_path / "new") == []


def test_a_protected_file_is_not_replaced(tmp_path, monkeypatch):
    file = tmp_path / "scores.json"
    file.write_text("precious")
    file.chmod(0o400)
    if os.access(file, os.W_OK):
        pytest.skip("root may write it")
    with pytest.raises(RunError, match="permissions do not allow writing"):
        check_writable(file)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        write_text(pipe, "scores")
        assert reader.stdout is not None
        assert reader.stdout.read() == "scores"
    assert pipe.is_fifo()


def test_a_write_that_fails_leaves_only_the_old_file(tmp_path):
    file = tmp_path / "scores.json"
    write_text(file, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bytes(file, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.json"]
