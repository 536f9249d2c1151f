"""No accuracy over questions whose database could not be read, or was another one when the golds ran."""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.check import check
from distilsql.data.load import load_benchmark
from distilsql.databases.job import Job
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.metrics.compare import compare_predictions
from distilsql.metrics.evaluate import evaluate, run_golds
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.query_check import check_teacher_queries
from distilsql.metrics.scores import Scores

GOLDS = ("SELECT count(*) FROM t WHERE a > 2", "SELECT b FROM t WHERE a = 7", "SELECT max(a) FROM t")
RIGHT = (
    "SELECT count(a) FROM t WHERE a > 2",
    "SELECT b FROM t WHERE +a = 7",
    "SELECT a FROM t ORDER BY a DESC LIMIT 1",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"{n:0400}") for n in range(400)])
        connection.commit()
    return path


@pytest.fixture
def shop(file: Path) -> SqlBenchmark:
    pairs = file.with_name("pairs.jsonl")
    lines = [json.dumps({"question": f"q{n}", "sql": sql}) for n, sql in enumerate(GOLDS)]
    pairs.write_text("\n".join(lines))
    benchmark = load_benchmark(str(pairs), database=file)
    assert isinstance(benchmark, SqlBenchmark)
    return benchmark


class Meddler(ExecutionPool):
    """Runs `then` before the statement `at` (counted from 0) of those that are asked for."""

    def __init__(self, at: int, then: Callable[[], object]) -> None:
        super().__init__(workers=1)
        self.at, self.then = at, then

    def run(self, job: Job):
        if self.at == 0:
            self.then()
        self.at -= 1
        return super().run(job)


def change(path: Path) -> None:
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO t (b) VALUES ('new')")
        writer.commit()


def replace_by_another(path: Path) -> None:
    other = path.with_name("other.sqlite")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xee" * 8 * 4096)


@pytest.mark.parametrize("meddle", [change, replace_by_another, damage, Path.unlink])
@pytest.mark.parametrize("at", [1, 3, 5, 6])
def test_a_database_that_changes_while_it_is_judged_gives_no_score(file, shop, meddle, at):
    """Between golds, between golds and predictions, between predictions, and after the last of them."""
    with Meddler(at, lambda: meddle(file)) as pool, pytest.raises(DatabaseUnavailable) as raised:
        evaluate(RIGHT, shop, pool=pool)
    said = {
        change: "changed during",
        replace_by_another: "changed during",
        damage: "",
        Path.unlink: "no database",
    }
    assert said[meddle] in str(raised.value)
    assert "shop.sqlite" in str(raised.value)


def test_predictions_are_not_judged_by_golds_of_another_state(file, shop):
    golds = GoldResults()
    run_golds(shop, golds)
    change(file)
    assert evaluate(RIGHT, shop, golds=golds).accuracy == 1.0, "the golds are run again"


def test_a_lock_is_not_the_predictions_error(file, shop):
    golds = GoldResults()
    run_golds(shop, golds)
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            DatabaseUnavailable, match=r"shop\.sqlite cannot be read while the prediction of pairs/"
        ):
            evaluate(RIGHT, shop, golds=golds, timeout_s=0.2)
        writer.execute("ROLLBACK")
    assert evaluate(RIGHT, shop, golds=golds).accuracy == 1.0


def test_scores_say_what_was_judged(file, shop):
    scores = evaluate(RIGHT, shop)
    assert scores.databases == {"shop": hashlib.sha256(file.read_bytes()).hexdigest()[:12]}
    assert Scores.from_json(scores.to_json()) == scores
    old = json.loads(scores.to_json())
    del old["databases"]
    assert Scores.from_json(json.dumps(old)).databases == {}, "scores of earlier versions are read"


def test_scores_on_different_contents_are_not_compared(file, shop):
    before = evaluate(RIGHT, shop)
    assert compare_predictions(before, before)
    change(file)
    with pytest.raises(DataError, match=r"shop.*changed"):
        compare_predictions(before, evaluate(RIGHT, shop))


def test_a_teachers_query_is_not_to_blame_either(file, shop):
    damage(file)
    with pytest.raises(DatabaseUnavailable, match=r"shop\.sqlite"):
        check_teacher_queries({shop.examples[0].example_id: RIGHT[0]}, shop)


def test_the_check_of_the_data_names_the_file_once(file, shop):
    damage(file)
    report = check(str(file.with_name("pairs.jsonl")), database=file)
    assert [(problem.kind, problem.file) for problem in report.problems] == [("unreadable", file)]
    assert "malformed" in report.problems[0].message
