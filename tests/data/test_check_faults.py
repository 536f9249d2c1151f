"""`data check` reports every fault, whatever stands in its way, and says what hangs on a tie."""

import ctypes
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from distilsql.data.check import check
from distilsql.data.load import load_benchmark
from distilsql.errors import DataError

# linux/capability.h: root reads everything by these two.
CAPABILITIES_VERSION = 0x20080522
READ_EVERYTHING = 1 << 1 | 1 << 2


@contextmanager
def as_somebody():
    """Root may read everything; not so without the capabilities to."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] = effective & ~READ_EVERYTHING
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0


@pytest.fixture
def databases(data_folder):
    """A folder that anybody may enter, with the databases a and b."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for db_id in "ab":
            (folder / db_id).mkdir()
            content = (data_folder / "spider/database/zoo/zoo.sqlite").read_bytes()
            (folder / db_id / f"{db_id}.sqlite").write_bytes(content)
        pairs = [
            ("SELECT name FROM animal", "a"),
            ("SELECT id FROM animal", "b"),
            ("SELECT nope FROM animal", "b"),
        ]
        lines = [json.dumps({"question": "?", "sql": sql, "db_id": db_id}) for sql, db_id in pairs]
        (folder / "pairs.jsonl").write_text("\n".join(lines))
        yield folder


def forbid_the_file(folder):
    (folder / "a/a.sqlite").chmod(0)


def forbid_the_folder(folder):
    (folder / "a").chmod(0)


def make_it_a_folder(folder):
    (folder / "a/a.sqlite").unlink()
    (folder / "a/a.sqlite").mkdir()


def make_it_unreadable(folder):
    (folder / "a/a.sqlite").unlink()
    (folder / "a/a.sqlite").symlink_to("/proc/self/mem")


def make_it_a_loop(folder):
    (folder / "a/a.sqlite").unlink()
    (folder / "a/a.sqlite").symlink_to("a.sqlite")


def make_a_file_of_its_folder(folder):
    (folder / "a/a.sqlite").unlink()
    (folder / "a").rmdir()
    (folder / "a").write_text("")


def damage_it(folder):
    (folder / "a/a.sqlite").write_bytes(b"no database" * 100)


def empty_it(folder):
    (folder / "a/a.sqlite").write_bytes(b"")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(
            forbid_the_file,
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="the processes that root starts may read it"),
        ),
        forbid_the_folder,
        make_it_a_folder,
        make_it_unreadable,
        make_it_a_loop,
        make_a_file_of_its_folder,
        damage_it,
        empty_it,
    ],
)
def test_one_database_that_cannot_be_read_hides_no_other_fault(databases, spoil):
    spoil(databases)
    with as_somebody():
        report = check(databases / "pairs.jsonl", database=databases)
        with pytest.raises(DataError, match=r"a\.sqlite"):
            load_benchmark(str(databases / "pairs.jsonl"), database=databases)
    (databases / "a").chmod(0o755)
    kinds = [problem.kind for problem in report.problems]
    assert kinds in (["unreadable", "gold_fails"], ["missing_database", "gold_fails"])
    assert "a.sqlite" in str(report.problems[0])
    assert "record 2" in str(report.problems[1])
    assert "no such column: nope" in str(report.problems[1])
    assert report.benchmarks[0].gold_runs == 1


@pytest.mark.parametrize("db_id", ["x" * 300, "nul\0", "../../../.."])
def test_names_that_no_database_has(databases, db_id):
    record = {"question": "?", "sql": "SELECT 1", "db_id": db_id}
    (databases / "pairs.jsonl").write_text(json.dumps(record))
    (problem,) = check(databases / "pairs.jsonl", database=databases).problems
    assert problem.kind in ("missing_database", "unreadable")


def own(databases, *golds):
    lines = [json.dumps({"question": f"{n}?", "sql": sql, "db_id": "b"}) for n, sql in enumerate(golds)]
    (databases / "own.jsonl").write_text("\n".join(lines))
    return check(databases / "own.jsonl", database=databases)


TIED = "(SELECT 'x' AS k, 1 AS n UNION ALL SELECT 'y', 1 UNION ALL SELECT 'z', 2)"


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        (f"SELECT k FROM {TIED} ORDER BY n LIMIT 1", "which rows"),
        (f"SELECT k FROM {TIED} WHERE k = (SELECT k FROM {TIED} ORDER BY n LIMIT 1)", "which rows"),
        ("SELECT name FROM animal LIMIT 1", "which rows"),
        (f"SELECT k FROM {TIED} ORDER BY n", "in which order"),
        (f"SELECT k FROM {TIED} ORDER BY n, k", ""),
        (f"SELECT k FROM {TIED} ORDER BY n DESC LIMIT 1", ""),
        (f"SELECT n FROM {TIED} ORDER BY n LIMIT 1", ""),
        ("SELECT name FROM animal", ""),
        ("SELECT name FROM animal LIMIT 2", ""),
        ("SELECT sum(a) FROM (SELECT 0.1 AS a UNION ALL SELECT 0.2 UNION ALL SELECT 0.3) ORDER BY 1", ""),
    ],
)
def test_a_gold_that_a_tie_decides_is_a_note_and_no_problem(databases, gold, words):
    report = own(databases, gold)
    assert report.problems == ()
    assert [words in warning.message for warning in report.warnings] == ([True] if words else [])
