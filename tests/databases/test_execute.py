"""Execution of honest statements, and the pool of processes behind it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from distilsql.databases import pool as pool_module
from distilsql.databases.execute import execute
from distilsql.databases.job import MIB, Outcome, make_job
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.schema import introspect
from distilsql.errors import DataError, RunError

ENDLESS = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t"


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=2) as pool:
        yield pool


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a file? of #1.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"row {i}") for i in range(10)])
        connection.commit()
    return path


def test_every_kind_of_cell_comes_through(file):
    execution = execute(
        file, "SELECT NULL, 1, -9223372036854775808, 1.5, 1e999, 'é\U0001f600', '', x'00ff', x'' AS z"
    )
    assert execution.outcome is Outcome.ROWS
    assert execution.rows == ((None, 1, -(2**63), 1.5, float("inf"), "é\U0001f600", "", b"\x00\xff", b""),)
    assert [type(cell) for cell in execution.rows[0]][1:4] == [int, int, float]
    assert execution.columns[-1] == "z"


def test_shared_and_own_pools_agree(file, pool):
    for sql in ("SELECT * FROM t ORDER BY a", "SELECT nothing", "SELECT * FROM t WHERE a > 100"):
        shared, own = execute(file, sql), pool.run(make_job(file, sql))
        assert replace(shared, seconds=0, cpu_seconds=0) == replace(own, seconds=0, cpu_seconds=0)


def test_row_cap(file, pool):
    for cap, outcome in ((9, Outcome.TOO_MANY_ROWS), (10, Outcome.ROWS), (0, Outcome.TOO_MANY_ROWS)):
        execution = pool.run(make_job(file, "SELECT a FROM t", max_rows=cap))
        assert execution.outcome is outcome
        assert len(execution.rows) == min(cap, 10)


def test_a_limit_of_steps_stops_where_it_stops_everywhere(file, pool):
    counting = (
        "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t LIMIT 100000) SELECT count(*) FROM t"
    )
    free = make_job(file, counting)
    assert pool.run(replace(free, max_steps=100_000_000)).rows == ((100000,),)
    assert pool.run(replace(free, max_steps=50_000)).outcome is Outcome.TIMEOUT
    assert pool.run(free).rows == ((100000,),), "the limit is the job's, not the connection's"


def test_an_empty_result_is_not_an_error(file, pool):
    execution = pool.run(make_job(file, "SELECT a FROM t WHERE a > 100"))
    assert (execution.outcome, execution.rows, execution.columns) == (Outcome.ROWS, (), ("a",))


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(DataError, match="no database file"):
        execute(tmp_path / "none.sqlite", "SELECT 1")
    assert not (tmp_path / "none.sqlite").exists()


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to have a header " * 5)
    assert execute(path, "SELECT * FROM t").outcome is Outcome.UNAVAILABLE


def test_text_that_is_not_utf8(file, pool):
    sql = "SELECT CAST(x'41ff42' AS TEXT), 'é'"
    assert pool.run(make_job(file, sql)).rows == (("AB", "é"),)
    strict = pool.run(make_job(file, sql, decoding="strict"))
    assert strict.outcome is Outcome.SQL_ERROR


def test_a_changed_and_a_replaced_file_are_seen(file, tmp_path, pool):
    job = make_job(file, "SELECT count(*) FROM t")
    assert pool.run(job).rows == ((10,),)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DELETE FROM t WHERE a > 4")
        connection.commit()
    assert pool.run(job).rows == ((5,),)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (z)")
        connection.commit()
    other.replace(file)
    assert pool.run(job).rows == ((0,),)


def test_what_others_commit_to_a_live_database_in_wal_mode_is_seen(tmp_path):
    path = tmp_path / "live.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE t (a)")
        writer.commit()
    with ExecutionPool(workers=1) as one:  # one worker, which keeps its connection
        for mode in ("serving", "evaluation"):
            count = make_job(path, "SELECT count(*) FROM t", mode=mode)
            before = one.run(count).rows[0][0]
            with closing(sqlite3.connect(path)) as writer:
                for added in (1, 2, 3):
                    writer.execute("INSERT INTO t VALUES (1)")
                    writer.commit()
                    assert one.run(count).rows == ((before + added,),)


def test_a_log_without_its_index_is_named(tmp_path, pool):
    path, copied = tmp_path / "wal.sqlite", tmp_path / "copy" / "wal.sqlite"
    copied.parent.mkdir()
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE t (a)")
        writer.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copied}{suffix}")
    execution = pool.run(make_job(copied, "SELECT * FROM t"))
    assert execution.outcome is Outcome.UNAVAILABLE
    assert "wal.sqlite-shm, its index, is missing" in execution.message
    with pytest.raises(DataError, match="its index, is missing"):
        introspect(copied)
    assert {file.name for file in copied.parent.iterdir()} == {"wal.sqlite", "wal.sqlite-wal"}


def test_a_database_in_wal_mode(tmp_path, pool):
    path = tmp_path / "wal.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (7)")
        connection.commit()
    assert pool.run(make_job(path, "SELECT a FROM t", mode="serving")).rows == ((7,),)
    assert introspect(path).tables[0].name == "t"
    assert [entry.name for entry in tmp_path.iterdir()] == ["wal.sqlite"]


def test_map_keeps_the_order_and_stops_at_the_first_error(file, pool):
    jobs = [make_job(file, f"SELECT {i}") for i in range(200)]
    assert pool.map(jobs, lambda index, execution: (index, execution.rows[0][0])) == [
        (i, i) for i in range(200)
    ]

    def refuse(index, execution):
        raise KeyError(index)

    with pytest.raises(KeyError):
        pool.map(jobs, refuse)
    assert pool.run(jobs[3]).rows == ((3,),)


def test_a_stuck_worker_is_killed_and_replaced(file):
    """A stopped process answers to nothing, as one inside a single endless instruction would not."""
    with ExecutionPool(workers=1) as pool:
        pool.run(make_job(file, "SELECT 1"))
        (stuck,) = pool.process_ids()
        os.kill(stuck, signal.SIGSTOP)
        assert pool.run(make_job(file, "SELECT 1", timeout_s=0.2)).outcome is Outcome.TIMEOUT
        assert pool.run(make_job(file, "SELECT 2")).rows == ((2,),)
        assert pool.process_ids() != [stuck]


def test_a_worker_that_dies_is_an_outcome(file):
    with ExecutionPool(workers=1) as pool:
        pool.run(make_job(file, "SELECT 1"))
        (process_id,) = pool.process_ids()
        timer = threading.Timer(0.1, os.kill, (process_id, signal.SIGKILL))
        timer.start()
        assert pool.run(make_job(file, ENDLESS, timeout_s=60)).outcome is Outcome.CRASHED
        assert pool.run(make_job(file, "SELECT 2")).rows == ((2,),)


def test_workers_of_two_kinds_are_kept_and_no_more(file):
    """Going to and fro between them starts each once; a third takes the place of the one that was idle longest."""

    def worker_of(memory_mib):
        before = {*pool.process_ids()}
        assert pool.run(make_job(file, "SELECT 1", memory_bytes=memory_mib * MIB)).rows == ((1,),)
        return {*pool.process_ids()} - before

    with ExecutionPool(workers=1) as pool:
        assert [len(worker_of(memory_mib)) for memory_mib in (256, 512, 256, 512, 256)] == [1, 1, 0, 0, 0]
        kept = {*pool.process_ids()}
        assert len(worker_of(128)) == 1
        assert len(kept & {*pool.process_ids()}) == 1
        assert len(worker_of(256)) == 0


def test_several_threads_share_one_pool(file, pool):
    answers = []

    def ask(start):
        answers.extend(pool.run(make_job(file, f"SELECT {start + i}")).rows[0][0] for i in range(30))

    threads = [threading.Thread(target=ask, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [100 * i + j for i in range(4) for j in range(30)]


def test_a_closed_pool_says_so_and_leaves_no_process(file):
    with ExecutionPool(workers=2) as pool:
        pool.map([make_job(file, "SELECT 1")] * 10, lambda index, execution: None)
        ids = pool.process_ids()
        assert ids
    assert not any(Path(f"/proc/{process_id}").exists() for process_id in ids)
    with pytest.raises(RunError, match="closed"):
        pool.run(make_job(file, "SELECT 1"))


PARENT = """
import sys, threading
from distilsql.databases.job import make_job
from distilsql.databases.pool import ExecutionPool

pool = ExecutionPool(workers=2)
jobs = [make_job(sys.argv[1], sys.argv[2], timeout_s=600)] * 2
pool.map([make_job(sys.argv[1], "SELECT 1")] * 8, lambda index, execution: None)
threading.Timer(0.2, lambda: print(*pool.process_ids(), flush=True)).start()
pool.map(jobs, lambda index, execution: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_its_parent(file, end):
    """Ctrl-C, a polite and an impolite end, all in the middle of endless queries; no `__main__` guard is needed."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file), ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with parent:
        ids = parent.stdout.readline().split()
        assert len(ids) == 2
        parent.send_signal(end)
        parent.wait(timeout=60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{int(i)}").exists() for i in ids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{int(i)}").exists() for i in ids)


def test_workers_import_neither_torch_nor_the_parent(file, pool):
    pool.run(make_job(file, "SELECT 1"))
    for process_id in pool.process_ids():
        maps = Path(f"/proc/{process_id}/maps").read_text()
        assert "torch" not in maps
        assert "numpy" not in maps
        assert "DISTILSQL_TEST_SECRET" not in Path(f"/proc/{process_id}/environ").read_text()


def test_sqlites_worker_imports_the_standard_library_and_two_files_of_ours():
    python, *rest = pool_module._command(pool_module._Kind(2**30, "sqlite"))
    command = [python, "-X", "importtime", *rest]
    seen = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in seen.splitlines()} - {"imported package"}
    assert {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "distilsql",
        "distilsql.databases",
        "distilsql.databases.sqlite_worker",
        "distilsql.databases.worker_process",
    }


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("DISTILSQL_TEST_SECRET", "1")


def test_a_worker_that_is_killed_while_it_starts_is_replaced(file, monkeypatch):
    started = []
    wait = pool_module.WorkerProcess.wait_until_ready

    def killed_twice(worker):
        started.append(worker.process_id)
        if len(started) < 3:
            os.kill(worker.process_id, signal.SIGKILL)
        wait(worker)

    monkeypatch.setattr(pool_module.WorkerProcess, "wait_until_ready", killed_twice)
    with ExecutionPool(workers=1) as pool:
        assert pool.run(make_job(file, "SELECT 1")).rows == ((1,),)
        assert pool.process_ids() == started[2:]
    monkeypatch.setattr(pool_module, "STARTS", 2)
    started.clear()
    with ExecutionPool(workers=1) as pool, pytest.raises(RunError, match="did not start"):
        pool.run(make_job(file, "SELECT 1"))
    assert len(started) == 2
