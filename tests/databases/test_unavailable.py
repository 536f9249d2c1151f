"""A database's own trouble is never a statement's error, whoever asks; what is read is what is there."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from distilsql.databases import reading, sqlite_worker
from distilsql.databases.execute import shared_pool
from distilsql.databases.fingerprint import take_fingerprint
from distilsql.databases.job import Execution, Outcome, make_job
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.reading import read_rows
from distilsql.databases.schema import introspect
from distilsql.databases.values import matched_values, sample_values
from distilsql.errors import DatabaseUnavailable, DataError

COUNT = "SELECT count(*) FROM t"
PAGE = 4096

# A program that dies in the middle of its work: SIGKILL leaves the journal, or the log, as it is.
KILLED = """
import os, signal, sqlite3, sys
writer = sqlite3.connect(sys.argv[1], isolation_level=None)
writer.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
writer.execute("CREATE TABLE t (a TEXT)")
writer.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 400)
writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
writer.execute("PRAGMA cache_size = 5")
if sys.argv[2] == "delete":
    writer.execute("BEGIN")
writer.execute("DELETE FROM t WHERE rowid % 2")
writer.execute("UPDATE t SET a = 'y'")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[ExecutionPool]:
    with ExecutionPool(workers=1) as pool:
        yield pool


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Fifty pages of one table, with an index."""
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"{n:0400}") for n in range(400)])
        connection.execute("CREATE INDEX i ON t (b)")
        connection.commit()
    return path


def killed(path: Path, journal: str) -> Path:
    subprocess.run([sys.executable, "-c", KILLED, str(path), journal], check=False)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def damage_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(20 * PAGE)
        file.write(b"\xee" * 20 * PAGE)


def cut_the_end_off(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(10 * PAGE)


def damage_the_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = on")
        connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE t (' WHERE name = 't'")
        connection.commit()


def make_a_folder_of_it(path: Path) -> None:
    path.unlink()
    path.mkdir()


TROUBLE: dict[str, Callable[[Path], object]] = {
    "a damaged page": damage_a_page,
    "an end cut off": cut_the_end_off,
    "a damaged schema": damage_the_schema,
    "a header of zeros": lambda path: path.write_bytes(bytes(PAGE)),
    "no database": lambda path: path.write_text("<html>not found</html>" * 100),
    "an encrypted file": lambda path: path.write_bytes(bytes(range(7, 256)) * 100),
    "a folder": make_a_folder_of_it,
    "a log without its index": lambda path: Path(f"{killed(fresh(path), 'wal')}-shm").unlink(),
    "a write that was killed": lambda path: killed(fresh(path), "delete"),
}


def fresh(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize("kind", TROUBLE)
@pytest.mark.parametrize("mode", ["evaluation", "serving"])
def test_no_statement_is_to_blame(kind, mode, file, pool):
    """And nothing is changed, nor made beside it."""
    TROUBLE[kind](file)
    before = {} if file.is_dir() else contents(file.parent)
    execution = pool.run(make_job(file, "SELECT sum(length(t.a)) FROM t NOT INDEXED", mode=mode))
    assert execution.outcome is Outcome.UNAVAILABLE, execution
    assert execution.message
    assert not execution.rows
    assert before == ({} if file.is_dir() else contents(file.parent))


def test_what_cures_it_is_said(tmp_path, pool):
    path = killed(tmp_path / "t.sqlite", "delete")
    message = pool.run(make_job(path, COUNT)).message
    assert "t.sqlite-journal holds a write that was not finished" in message
    with closing(sqlite3.connect(path)) as connection:  # as the message says: a program that may write
        assert connection.execute(COUNT).fetchone() == (400,)
    assert pool.run(make_job(path, COUNT)).rows == ((400,),)


def test_a_journal_is_not_passed_over_because_the_file_says_wal(tmp_path, pool):
    """A change of the journal's mode that was killed: without locks, SQLite would not look at the journal at all."""
    path = killed(tmp_path / "t.sqlite", "delete")
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x02\x02")
    execution = pool.run(make_job(path, COUNT))
    assert (execution.outcome, execution.rows) == (Outcome.UNAVAILABLE, ())


def test_the_log_of_a_writer_that_was_killed_is_read_and_left_as_it_is(tmp_path, pool):
    path = killed(tmp_path / "t.sqlite", "wal")
    before = contents(tmp_path)
    assert set(before) == {"t.sqlite", "t.sqlite-wal", "t.sqlite-shm"}
    for mode in ("evaluation", "serving"):
        assert pool.run(make_job(path, COUNT, mode=mode)).rows == ((200,),)
    assert introspect(path).tables[0].name == "t"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("links", [1, 2])
def test_a_link_is_the_file_that_it_leads_to(tmp_path, pool, journal, links):
    """Also the link of a link, and a link to the folder; a log and a journal lie beside the file, not beside a link."""
    store = tmp_path / "store"
    store.mkdir()
    link = store / "ab12"
    with closing(sqlite3.connect(link)) as writer:
        writer.execute(f"PRAGMA journal_mode = {journal}")
        writer.execute("CREATE TABLE t (a)")
        writer.commit()
        for number in range(links):
            before, link = link, tmp_path / f"link {number}.sqlite"
            link.symlink_to(before)
        (tmp_path / "by folder").symlink_to(store)
        for rows in range(1, 4):
            writer.execute("INSERT INTO t VALUES (1)")
            writer.commit()
            for path in (link, store / "ab12", tmp_path / "by folder" / "ab12"):
                for mode in ("evaluation", "serving"):
                    assert pool.run(make_job(path, COUNT, mode=mode)).rows == ((rows,),), path


def test_a_link_to_nothing_is_a_missing_file(tmp_path, pool):
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "gone.sqlite")
    with pytest.raises(DatabaseUnavailable, match="no database file"):
        pool.run(make_job(tmp_path / "link.sqlite", COUNT))


@pytest.mark.parametrize("timeout_s", [0.4, 0.001])
def test_a_lock_is_a_lock_however_little_time_a_statement_has(file, pool, timeout_s):
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        for mode in ("evaluation", "serving"):
            execution = pool.run(make_job(file, COUNT, mode=mode, timeout_s=timeout_s))
            assert (execution.outcome, execution.message) == (Outcome.UNAVAILABLE, "database is locked")
        writer.execute("ROLLBACK")
    assert pool.run(make_job(file, COUNT)).rows == ((400,),)


def test_a_writer_that_is_soon_done_is_waited_for(file, pool):
    """Its commit holds the lock; a reader that gave up at once would call the file locked."""
    program = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); c.execute('DELETE FROM t WHERE a > 9'); print(flush=True); "
        "time.sleep(0.3); c.execute('COMMIT')"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert pool.run(make_job(file, COUNT)).rows == ((10,),)


@pytest.mark.slow
def test_what_reads_for_itself_says_so_too(file):
    schema = introspect(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("UPDATE t SET b = 'x'")  # another state, so that nothing is known of it
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable, match=r"locked.*wait until the program"):
            sample_values(file, schema, 2)


OTHER = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None)
try:
    other.execute("INSERT INTO t (b) VALUES ('other')")
    print("wrote")
except sqlite3.OperationalError as error:
    print(error)
"""


@pytest.mark.parametrize("journal", ["delete", "wal", "truncate"])
def test_reading_drops_no_lock_of_the_callers(file, tmp_path, journal):
    """POSIX forgets a process's locks on a file when it closes any descriptor of it."""

    def other() -> str:
        command = [sys.executable, "-c", OTHER, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with closing(sqlite3.connect(file, isolation_level=None)) as mine, ExecutionPool(workers=1) as pool:
        mine.execute(f"PRAGMA journal_mode = {journal}")
        mine.execute("BEGIN IMMEDIATE")
        mine.execute("UPDATE t SET b = 'mine' WHERE a < 3")
        assert other() == "database is locked"
        schema = introspect(file)
        sample_values(file, schema, 2)
        matched_values(file, "mine", cache_folder=tmp_path / "cache")
        take_fingerprint(file, pool)
        pool.run(make_job(file, COUNT))
        assert other() == "database is locked"
        mine.execute("COMMIT")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM t WHERE b = 'mine'").fetchone() == (3,)


def test_this_process_never_opens_a_database(file, tmp_path):
    """Whatever reads a schema or values: no descriptor of the file, so no lock to lose (and no other SQLite either)."""
    program = """
import sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, args: opened.append((event, args)) if event in ("open", "sqlite3.connect") else None)
from distilsql.databases.job import make_job
from distilsql.databases.execute import shared_pool
from distilsql.databases.fingerprint import take_fingerprint
from distilsql.databases.reading import read_rows
from distilsql.databases.schema import introspect
from distilsql.databases.values import matched_values, sample_values
from distilsql.metrics.suites.variants import read_template

path = Path(sys.argv[1])
sample_values(path, introspect(path), 2)
matched_values(path, "x", cache_folder=path.parent / "cache")
read_template(path, ())
take_fingerprint(path, shared_pool())
print([each for each in opened if str(path) in str(each)])
"""
    command = [sys.executable, "-c", program, str(file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_fingerprint_is_of_the_file_and_its_log(file, tmp_path, pool):
    plain = take_fingerprint(file, pool)
    digest = subprocess.run(["sha256sum", str(file)], capture_output=True, text=True, check=True).stdout
    assert plain.sha256 == digest.split()[0]
    copy = tmp_path / "copy.sqlite"
    shutil.copy(file, copy)
    assert take_fingerprint(copy, pool).sha256 == plain.sha256
    with closing(sqlite3.connect(copy)) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        before = take_fingerprint(copy, pool)
        writer.execute("DELETE FROM t WHERE a = 1")
        writer.commit()
        assert take_fingerprint(copy, pool).sha256 != before.sha256


def worker_job(path: Path, sql: str) -> dict[str, Any]:
    job = make_job(path, sql)
    return {**vars(job), **vars(job.limits), "limits": None}


@pytest.mark.parametrize("changes", [1, 9])
def test_a_file_that_changes_while_it_is_read_without_locks_is_read_again(tmp_path, monkeypatch, changes):
    """A WAL file without a log is read without locks, and what others write meanwhile could tear what is read."""
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE t (a)")
        writer.commit()
    written = 0
    fetch = sqlite_worker.fetch

    def fetch_while_others_write(connection, job, deadline):
        nonlocal written
        answer = fetch(connection, job, deadline)
        if written < changes:
            written += 1
            with closing(sqlite3.connect(path)) as writer:  # which leaves no log behind
                writer.execute("INSERT INTO t VALUES (1)")
                writer.commit()
        return answer

    monkeypatch.setattr(sqlite_worker, "fetch", fetch_while_others_write)
    answer = sqlite_worker.Worker(2**30).run(worker_job(path, COUNT))
    if changes == 1:
        assert (answer["outcome"], answer["rows"]) == ("ROWS", [(1,)])
        assert answer["states"] == [sqlite_worker.database_state(str(path))]
    else:
        assert (answer["outcome"], answer["message"]) == ("UNAVAILABLE", "it changed while it was read")


def test_a_column_whose_name_is_not_utf8_is_left_out_and_blamed_on_no_statement(tmp_path, pool):
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (naXXe TEXT, b TEXT); INSERT INTO t VALUES ('x', 'y')")
    path.write_bytes(path.read_bytes().replace(b"naXXe", b"na\xff\xfee"))
    schema = introspect(path)
    assert [column.name for column in schema.tables[0].columns] == ["b"]
    assert sample_values(path, schema, 2) == {("t", "b"): ("y",)}
    assert pool.run(make_job(path, "SELECT b FROM t")).rows == (("y",),)
    execution = pool.run(make_job(path, "SELECT * FROM t"))
    assert (execution.outcome, execution.message) == (Outcome.UNAVAILABLE, "a name in it is not UTF-8")
    assert (
        pool.run(make_job(path, "SELECT CAST(x'ff' AS TEXT)", decoding="strict")).outcome is Outcome.SQL_ERROR
    )


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_read_of_ours_outlives_a_worker_that_was_killed(deaths, tmp_path, monkeypatch):
    path, pool, runs = tmp_path / "t.sqlite", shared_pool(), []
    with closing(sqlite3.connect(path)) as plain, plain:
        plain.execute("CREATE TABLE t (a TEXT)")

    class Killing:
        def run(self, job):
            runs.append(job)
            if len(runs) <= deaths:
                return Execution(Outcome.CRASHED, message="the worker ended with status -9")
            return pool.run(job)

    monkeypatch.setattr(reading, "shared_pool", Killing)
    if deaths == 1:
        assert read_rows(path, COUNT) == ((0,),)
    else:
        with pytest.raises(DataError, match="the worker ended with status -9"):
            read_rows(path, COUNT)
    assert len(runs) == 2
