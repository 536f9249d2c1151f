import json
from pathlib import Path

import pytest

from distilsql.data.check import check
from distilsql.data.plural import counted
from distilsql.errors import DataError
from reporters import watching

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def add(file: Path, *records: object) -> None:
    file.write_text(json.dumps([*json.loads(file.read_text()), *records]))


def test_a_sound_benchmark_has_no_problem(data_folder: Path) -> None:
    report = check("spider:dev", data_folder)
    (dev,) = report.benchmarks
    assert report.problems == ()
    assert (dev.examples, dev.databases, dev.gold_runs, dev.gold_empty) == (3, 2, 3, 0)


@pytest.mark.slow
def test_the_demo_is_checked_like_any_benchmark(tmp_path: Path) -> None:
    (test,) = check("demo:test", tmp_path).benchmarks
    (unseen,) = check("demo:test-unseen", tmp_path).benchmarks
    assert (test.name, test.examples, test.databases, test.gold_runs) == ("demo:test", 1040, 16, 1040)
    assert (unseen.examples, unseen.databases, unseen.gold_runs) == (320, 8, 320)


def test_every_fault_is_reported_at_once_with_its_place(data_folder: Path) -> None:
    file = data_folder / "spider/dev.json"
    add(
        file,
        {"db_id": "zoo", "question": "?"},
        {"db_id": "gone", "question": "?", "query": "SELECT c FROM t"},
        {"db_id": "zooo", "question": "?", "query": "SELECT 1"},
        {"db_id": "zoo", "question": "?", "query": "SELECT colour FROM animal"},
        "no record",
        {"db_id": "zoo", "question": "?", "query": "SELECT name FROM animal WHERE id = 99"},
    )
    report = check("spider:dev", data_folder)
    found = {(problem.kind, problem.record, problem.field) for problem in report.problems}
    assert found == {
        ("malformed", 3, "query"),
        ("missing_database", 4, "db_id"),
        ("unknown_db_id", 5, "db_id"),
        ("gold_fails", 6, "query"),
        ("malformed", 7, ""),
    }
    assert all(problem.file == file for problem in report.problems)
    assert "no such column: colour" in next(str(p) for p in report.problems if p.kind == "gold_fails")
    (dev,) = report.benchmarks
    assert (dev.examples, dev.gold_runs, dev.gold_empty) == (6, 4, 1)


def test_a_data_folder_is_checked_whole_and_a_benchmark_folder_alone(data_folder: Path) -> None:
    whole = check(data_folder)
    assert {checked.name for checked in whole.benchmarks} == {
        "spider:train",
        "spider:dev",
        "bird:train",
        "bird:dev",
        "bird:mini-dev",
    }
    alone = check(data_folder / "spider")
    assert {checked.name for checked in alone.benchmarks} == {"spider:train", "spider:dev"}
    # What the folder lacks is said: the mini-dev file, and the database of one training question.
    assert {(problem.kind, problem.file.name) for problem in whole.problems} == {
        ("unreadable", "mini_dev_sqlite.json"),
        ("missing_database", "train_spider.json"),
    }


def test_a_bad_tables_json_is_one_problem_not_one_for_each_record(data_folder: Path) -> None:
    (data_folder / "spider/tables.json").write_text("[")
    (problem,) = check("spider:dev", data_folder).problems
    assert (problem.kind, problem.file.name) == ("unreadable", "tables.json")


def test_a_damaged_database_is_named(data_folder: Path) -> None:
    damaged = data_folder / "spider/database/zoo/zoo.sqlite"
    damaged.write_bytes(b"no database" * 100)
    problems = check("spider:dev", data_folder).problems
    assert damaged in {problem.file for problem in problems if problem.kind == "unreadable"}


@pytest.mark.slow
def test_a_gold_that_never_ends_is_stopped_and_named(data_folder: Path) -> None:
    endless = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"
    add(data_folder / "spider/dev.json", {"db_id": "zoo", "question": "?", "query": endless})
    (problem,) = check("spider:dev", data_folder, timeout_s=2.0).problems
    assert (problem.kind, problem.record) == ("gold_fails", 3)
    assert "timeout" in problem.message


def test_own_pairs_are_checked_too(data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "mine.jsonl").write_text('{"question": "?", "gold_sql": "SELECT x FROM animal"}\n')
    report = check(folder, database=data_folder / "spider/database/zoo/zoo.sqlite")
    (problem,) = report.problems
    assert (problem.kind, problem.field) == ("gold_fails", "gold_sql")


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to check"):
        check(tmp_path)


def test_progress_reaches_the_number_of_different_golds(data_folder: Path) -> None:
    add(
        data_folder / "spider/dev.json",
        {"db_id": "zoo", "question": "Again?", "query": "SELECT name FROM animal"},
    )
    seen: list[tuple[int, int]] = []
    with watching(lambda work: seen.append((work.done, work.total))):
        check("spider:dev", data_folder)
    assert sorted(seen) == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the real benchmarks in ../shared/data")
@pytest.mark.slow
@pytest.mark.parametrize("spec", ["spider:dev", "spider-dk:dev", "bird:dev"])
def test_the_golds_that_fail_are_those_on_record(spec: str) -> None:
    (checked,) = check(spec, SHARED_DATA).benchmarks
    family = spec.split(":")[0]
    on_record = json.loads((SHARED_DATA / family / "gold_exec_check.json").read_text())
    file = {"spider-dk": "Spider-DK.json"}.get(family, "dev.json")
    assert checked.gold_runs == on_record[file]["ok"]
    assert checked.gold_empty == on_record[file]["ok_but_empty"]


def test_one_is_counted_as_one():
    assert [counted(1, "database"), counted(0, "problem"), counted(2, "query")] == [
        "1 database",
        "0 problems",
        "2 queries",
    ]
