"""Suites: variants keep the keys, neighbours are wrong, a build is seeded and goes on where it stopped."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.example import Example
from distilsql.databases.database import Database, open_database
from distilsql.databases.neighbours import constants, neighbours, with_ties_broken
from distilsql.databases.schema import introspect
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.lock import RunInUse
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.suites.build import SuiteLimits, build_suite
from distilsql.metrics.suites.suite import content_checksum, load_suite
from distilsql.metrics.suites.variants import read_template, write_variant
from reporters import watching

SCHOOL = """
CREATE TABLE teacher (id INTEGER PRIMARY KEY, name TEXT NOT NULL, town TEXT, age INTEGER,
    boss INTEGER REFERENCES teacher (id));
CREATE TABLE course (code TEXT PRIMARY KEY, title TEXT, teacher INTEGER NOT NULL REFERENCES teacher (id));
CREATE TABLE mark (course TEXT, pupil TEXT, points REAL, PRIMARY KEY (course, pupil),
    FOREIGN KEY (course) REFERENCES course (code));
INSERT INTO teacher VALUES (1, 'Ada', 'Bath', 40, NULL), (2, 'Bob', 'York', 35, 1), (3, 'Cy', 'Bath', 60, 1);
INSERT INTO course VALUES ('m1', 'Sets', 1), ('m2', 'Graphs', 1), ('h1', 'Rome', 3);
INSERT INTO mark VALUES ('m1', 'p', 3.5), ('m1', 'q', 5), ('m2', 'p', 4), ('h1', 'r', 2);
"""
GOLDS = (
    "SELECT count(*) FROM teacher WHERE age > 35",
    "SELECT name FROM teacher WHERE town = 'Bath' AND age >= 40",
    "SELECT T1.name, avg(T3.points) FROM teacher AS T1 JOIN course AS T2 ON T1.id = T2.teacher "
    "JOIN mark AS T3 ON T3.course = T2.code GROUP BY T1.id",
    "SELECT name FROM teacher ORDER BY age DESC LIMIT 1",
    "SELECT DISTINCT town FROM teacher",
)


@pytest.fixture
def school(tmp_path):
    path = tmp_path / "school.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHOOL)
    examples = tuple(Example(f"dev/{i}", "school", f"Question {i}?", gold) for i, gold in enumerate(GOLDS))
    return SqlBenchmark(
        "school:dev", examples, {"school": Database("school", path, introspect(path))}, "spider"
    )


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()
            for name in ("teacher", "course", "mark")
        }


def test_variants_keep_keys_and_follow_from_the_seed(school, tmp_path):
    pairs = [pair for gold in GOLDS for pair in constants(gold)]
    template = read_template(school.databases["school"].path, pairs)
    seen = []
    for number in range(60):
        path = tmp_path / f"variant-{number}.sqlite"
        write_variant(template, path, f"seed/{number}")
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        seen.append(rows_of(path))
    again = tmp_path / "again.sqlite"
    write_variant(template, again, "seed/7")
    assert rows_of(again) == seen[7]
    assert any(not rows["course"] for rows in seen)
    assert any(len(rows["mark"]) > 12 for rows in seen)
    assert len({repr(rows) for rows in seen}) > 50
    ages = {row[3] for rows in seen for row in rows["teacher"]}
    assert {34, 35, 36, 39, 41} <= ages  # the golds' constants and their near-misses
    assert any(row[2] in ("bATH", "Batha", "aBath", "Bat") for rows in seen for row in rows["teacher"])


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ("SELECT a FROM t WHERE b > 3 AND c = 'x'", "SELECT a FROM t WHERE b > 3"),
        ("SELECT a FROM t WHERE b > 3 AND c = 'x'", "SELECT a FROM t WHERE c = 'x'"),
        ("SELECT a FROM t WHERE b > 3 AND c = 'x'", "SELECT a FROM t WHERE b >= 3 AND c = 'x'"),
        ("SELECT a FROM t WHERE b > 3 AND c = 'x'", "SELECT a FROM t WHERE b > 3 or c = 'x'"),
        ("SELECT a FROM t WHERE b > 3 AND c = 'x'", "SELECT a FROM t WHERE b > 4 AND c = 'x'"),
        ("SELECT max(a) FROM t", "SELECT min( a ) FROM t"),
        ("SELECT DISTINCT a FROM t ORDER BY b", "SELECT a FROM t ORDER BY b"),
        ("SELECT DISTINCT a FROM t ORDER BY b", "SELECT DISTINCT a FROM t"),
        ("SELECT a FROM t ORDER BY b DESC LIMIT 1", "SELECT a FROM t ORDER BY b asc LIMIT 1"),
        ("SELECT a FROM t UNION SELECT b FROM u", "SELECT a FROM t intersect SELECT b FROM u"),
        ("SELECT a FROM t WHERE b BETWEEN 1 AND 2 AND c = 3", "SELECT a FROM t WHERE c = 3"),
        ("SELECT a FROM t WHERE b BETWEEN 1 AND 2 AND c = 3", "SELECT a FROM t WHERE b BETWEEN 1 AND 2"),
    ],
)
def test_neighbours(gold, expected):
    assert expected in neighbours(gold)
    assert "SELECT a FROM t WHERE b BETWEEN 1 or 2 AND c = 3" not in neighbours(gold)


def test_constants_know_their_column():
    sql = "SELECT a FROM t AS T1 WHERE T1.b >= 3 AND c LIKE '%x''y%' AND d BETWEEN 1.5 AND 2 AND e IN ('p', 'q')"
    assert list(constants(sql)) == [("b", 3), ("c", "x'y"), ("d", 1.5), ("d", 2), ("e", "p"), ("e", "q")]


def test_ties_are_broken_by_the_selected_columns():
    sql = "SELECT a, b FROM t WHERE c = (SELECT d FROM u ORDER BY e LIMIT 1) ORDER BY f DESC LIMIT 2"
    assert with_ties_broken(sql, "asc") == (
        "SELECT a , b FROM t WHERE c = ( SELECT d FROM u ORDER BY e , 1 asc LIMIT 1 ) "
        "ORDER BY f DESC , 1 asc, 2 asc LIMIT 2"
    )


WRONG = (
    "SELECT count(*) FROM teacher WHERE age >= 36",  # right: ages are whole
    "SELECT name FROM teacher WHERE town = 'Bath'",
    "SELECT T1.name, avg(T3.points) FROM teacher AS T1 JOIN course AS T2 ON T1.id = T2.teacher "
    "JOIN mark AS T3 ON T3.course = T2.code GROUP BY T1.name",
    "SELECT name FROM teacher ORDER BY age DESC LIMIT 1",
    "SELECT town FROM teacher GROUP BY town",
)


def test_a_suite_tells_what_the_original_lets_pass(school, tmp_path):
    folder = tmp_path / "suite"
    limits = SuiteLimits(candidates=60, patience=30)
    seen = []
    with watching(lambda work: seen.append((work.done, work.total))):
        suite = build_suite(school, folder, name="tiny", seed=1, limits=limits, workers=1)
    assert seen == [(1, 1)]
    report = suite.reports["school"]
    told = sum(variant["tells_apart"] for variant in report["variants"])
    assert told > 5
    assert report["neighbours"] == report["told_apart_by_the_original"] + told + len(
        report["never_told_apart"]
    )
    assert all(variant["tells_apart"] > 0 for variant in report["variants"])
    assert suite.label == f"tiny [{suite.checksum}]"

    golds = [example.gold_sql for example in school.examples]
    assert evaluate(golds, school, suite=suite, workers=1).accuracy == 1.0
    on_original = evaluate(WRONG, school, keep_distinct=True, workers=1)
    on_suite = evaluate(WRONG, school, keep_distinct=True, suite=suite, workers=1)
    assert [v.is_correct for v in on_original.verdicts] == [True] * 5
    assert [v.is_correct for v in on_suite.verdicts] == [True, False, False, True, True]
    assert on_suite.metric == f"TS on tiny [{suite.checksum}]"
    assert "variant-" in on_suite.verdicts[1].message

    other = build_suite(school, tmp_path / "other", name="tiny", seed=1, limits=limits, workers=1)
    assert other.checksum == suite.checksum
    assert build_suite(
        school, tmp_path / "third", name="tiny", seed=2, limits=limits, workers=1
    ).checksum != (suite.checksum)


def test_a_right_query_does_not_lose_under_a_tie(school, tmp_path):
    """Who is first among the oldest is SQLite's choice; two ways to choose are both right."""
    limits = SuiteLimits(candidates=60, patience=30)
    suite = build_suite(school, tmp_path / "suite", name="tiny", seed=1, limits=limits, workers=1)
    variants = suite.reports["school"]["variants"]
    assert any(variant["unstable_golds"] for variant in variants)
    golds = [example.gold_sql for example in school.examples]
    for direction in ("ASC", "DESC"):
        predictions = [
            *golds[:3],
            f"SELECT name FROM teacher ORDER BY age DESC, name {direction} LIMIT 1",
            golds[4],
        ]
        assert evaluate(predictions, school, suite=suite, workers=1).accuracy == 1.0


def test_a_circle_of_keys_is_kept(tmp_path):
    path = tmp_path / "circle.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """CREATE TABLE club (id INTEGER PRIMARY KEY, captain INTEGER REFERENCES player (id));
            CREATE TABLE player (id INTEGER PRIMARY KEY, club INTEGER NOT NULL REFERENCES club (id));
            CREATE VIEW captains AS SELECT captain FROM club;
            INSERT INTO club VALUES (10, 71), (20, 72);
            INSERT INTO player VALUES (71, 10), (72, 20), (73, 20);"""
        )
    template = read_template(path, [])
    sizes = set()
    for number in range(30):
        variant = tmp_path / f"variant-{number}.sqlite"
        write_variant(template, variant, str(number))
        with closing(sqlite3.connect(variant)) as connection:
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            clubs = connection.execute("SELECT count(*) FROM club").fetchone()
            assert connection.execute("SELECT count(*) FROM captains").fetchone() == clubs, "views are kept"
            sizes.update(connection.execute("SELECT count(*) FROM player").fetchone())
    assert len(sizes) > 5


@pytest.mark.parametrize(
    ("script", "gold"),
    [
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, p REAL, q INT, pq AS (p * q) STORED);"
         "INSERT INTO t (p, q) VALUES (2.5, 3), (1.5, 1)", "SELECT a FROM t WHERE pq > 2"),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y')",
         "SELECT b FROM t WHERE a > 1.5 AND b > 'a'"),
        ("CREATE TABLE t (b TEXT, n INTEGER) STRICT; INSERT INTO t VALUES ('x', 3), ('y', 4)",
         "SELECT b FROM t WHERE n > 2.5"),
        ("CREATE TABLE t (b TEXT, n INTEGER); INSERT INTO t VALUES ('x', 9223372036854775807), ('y', 4)",
         "SELECT b FROM t WHERE n >= 9223372036854775807"),
        ("CREATE VIRTUAL TABLE t USING fts5(title, body); INSERT INTO t VALUES ('hello', 'world'), ('good', 'bye')",
         "SELECT title FROM t WHERE title = 'hello'"),
        ("CREATE VIRTUAL TABLE t USING rtree(id, low, high); INSERT INTO t VALUES (1, 0, 1), (2, 1, 2)",
         "SELECT id FROM t WHERE low > 0.5"),
    ],
    ids=["generated", "key", "strict", "largest", "fts5", "rtree"],
)  # fmt: skip
def test_whatever_a_schema_refuses_variants_are_made(tmp_path, script, gold):
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    database = Database("own", path, introspect(path))
    benchmark = SqlBenchmark("own", (Example("own/0", "own", "Which?", gold),), {"own": database}, "plain")
    limits = SuiteLimits(candidates=40, patience=40)
    suite = build_suite(benchmark, tmp_path / "suite", name="own", limits=limits, workers=1)
    assert suite.size > 0
    assert evaluate([gold], benchmark, suite=suite, workers=1).accuracy == 1


_ODD_TABLES_FILE = Path(__file__).parents[1] / "databases" / "odd_tables.sql"
ODD_TABLES = dict(section.split("\n", 1) for section in _ODD_TABLES_FILE.read_text().split("-- # ")[1:])


@pytest.mark.parametrize("kind", ODD_TABLES)
def test_odd_tables_have_variants_with_their_keys(tmp_path, kind):
    """Many seeds: a rowid that is no row's number had one in five delete for ever."""
    path = tmp_path / "odd.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("own_function", 1, str, deterministic=True)
        connection.executescript(ODD_TABLES[kind])
    template = read_template(path, constants("SELECT name FROM emp WHERE id >= 1 AND name <> 'zzz'"))
    filled = 0
    for seed in range(40):
        variant = tmp_path / f"{seed}.sqlite"
        write_variant(template, variant, str(seed))
        with closing(sqlite3.connect(variant)) as connection:
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            filled += connection.execute("SELECT count(*) > 0 FROM emp").fetchone()[0]
    assert filled > 20


def test_a_virtual_table_that_cannot_be_read_stops_no_suite(tmp_path):
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(ODD_TABLES["a module that is not loaded"])
    gold = "SELECT count(*) FROM emp WHERE id >= 1 AND name <> 'zzz'"
    database = Database("own", path, introspect(path))
    benchmark = SqlBenchmark("own", (Example("own/0", "own", "Which?", gold),), {"own": database}, "plain")
    suite = build_suite(benchmark, tmp_path / "suite", name="own", limits=SuiteLimits(40, 40), workers=1)
    assert suite.size > 0


BUILDING = """
import sys
from pathlib import Path
from distilsql.lock import hold

with hold(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_two_builds_do_not_share_a_folder(school, tmp_path):
    folder = tmp_path / "suite"
    with subprocess.Popen(
        [sys.executable, "-c", BUILDING, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(RunInUse, match="Another process is working"):
            build_suite(school, folder, name="tiny", limits=SuiteLimits(3, 3), workers=1)
        other.stdin.close()
        other.wait()
    assert build_suite(school, folder, name="tiny", limits=SuiteLimits(3, 3), workers=1)


def test_a_database_that_changes_while_its_suite_is_begun_is_refused(school, monkeypatch, tmp_path):
    path = school.databases["school"].path

    def read_and_change(*arguments):
        template = read_template(*arguments)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM mark")
            connection.commit()
        return template

    monkeypatch.setattr("distilsql.metrics.suites.build.read_template", read_and_change)
    with pytest.raises(DatabaseUnavailable, match=r"school\.sqlite changed"):
        build_suite(school, tmp_path / "suite", name="tiny", limits=SuiteLimits(3, 3), workers=1)


def test_a_checksum_is_of_what_a_database_holds(tmp_path):
    """The same rows in files that another version of SQLite, or another order of work, wrote differently."""
    made = [tmp_path / name for name in ("one", "two", "other")]
    for path in made:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, x'00'), ('1', 1.0)")
            if path.name == "two":
                connection.executescript("INSERT INTO t VALUES (3, 3); DELETE FROM t WHERE a = 3")
            if path.name == "other":
                connection.executescript("UPDATE t SET b = 1 WHERE b = 1.0")
    assert made[0].read_bytes() != made[1].read_bytes()
    one, two, other = map(content_checksum, made)
    assert one == two != other


def test_birds_questions_get_no_suite(school, tmp_path):
    with pytest.raises(DataError, match="BIRD is judged without"):
        build_suite(replace(school, evaluator="bird"), tmp_path / "suite", name="none")


def test_a_suite_without_variants_says_so(school, tmp_path):
    suite = build_suite(school, tmp_path / "none", name="none", limits=SuiteLimits(0, 0), workers=1)
    assert suite.label == "none [no variants]"


def test_a_build_goes_on_where_it_stopped_and_refuses_what_does_not_fit(school, tmp_path):
    folder = tmp_path / "suite"
    limits = SuiteLimits(candidates=20, patience=20)
    suite = build_suite(school, folder, name="tiny", limits=limits, workers=1)
    finished = (folder / "school/report.json").stat().st_mtime_ns
    build_suite(school, folder, name="tiny", limits=limits, workers=1)
    assert (folder / "school/report.json").stat().st_mtime_ns == finished
    (folder / "school/report.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        load_suite(folder)
    assert build_suite(school, folder, name="tiny", limits=limits, workers=1).checksum == suite.checksum
    with pytest.raises(DataError, match="different settings"):
        build_suite(school, folder, name="tiny", seed=5, limits=limits, workers=1)

    fewer = school.take(3, 0)
    with pytest.raises(DataError, match="other gold queries"):
        build_suite(fewer, folder, name="tiny", limits=limits, workers=1)
    with closing(sqlite3.connect(school.databases["school"].path)) as connection:
        connection.execute("UPDATE teacher SET age = 41 WHERE id = 1")
        connection.commit()
    with pytest.raises(DataError, match="has changed since"):
        build_suite(school, folder, name="tiny", limits=limits, workers=1)

    report = json.loads((folder / "school/report.json").read_text())
    (folder / "school" / report["variants"][0]["file"]).write_bytes(b"changed")
    with pytest.raises(DataError, match="was changed, or built by"):
        load_suite(folder)
    with pytest.raises(DataError, match="no test suite"):
        load_suite(tmp_path)
    with pytest.raises(DataError, match="not built for this gold"):
        suite.databases("school", "SELECT 1")
    with pytest.raises(DataError, match="no databases for zoo"):
        suite.databases("zoo", "SELECT 1")


def test_a_suite_is_made_of_sqlite_files_alone(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with duckdb.connect(str(tmp_path / "own.duckdb")) as connection:
        connection.execute("CREATE TABLE t (a int)")
    database = open_database(f"duckdb:///{tmp_path}/own.duckdb")
    examples = (Example("own/0", "own", "?", "SELECT a FROM t"),)
    with pytest.raises(DataError, match="made of SQLite files"):
        build_suite(SqlBenchmark("own", examples, {"own": database}, "plain"), tmp_path / "s", name="s")
