import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from distilsql.data.check import check
from distilsql.data.splits import query_key
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DataError
from distilsql.synthesis import synthesise as module
from distilsql.synthesis.checks import Checker, Verdict
from distilsql.synthesis.folder import QUERIES_FILE
from distilsql.synthesis.profile import profile
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from distilsql.synthesis.variants import write_variants

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def made(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "pairs"
    return synthesise(open_source(shop), folder, pairs=150, seed=3, workers=2)


def lines(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_as_many_pairs_as_were_asked_for(made):
    assert sum(made.pairs.values()) == 150
    assert {split: len(lines(made.folder, split)) for split in SPLITS} == made.pairs


def test_no_query_is_in_two_splits(made):
    keys = [{query_key(pair["sql"]) for pair in lines(made.folder, split)} for split in SPLITS]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def test_data_check_finds_no_fault_and_no_tie(made, shop):
    for split in SPLITS:
        report = check(made.folder / f"{split}.jsonl", database=shop)
        assert report.problems == ()
        assert report.warnings == ()
        assert report.benchmarks[0].gold_empty == 0


def test_the_same_seed_gives_the_same_pairs_on_any_number_of_workers(made, shop, tmp_path):
    synthesise(open_source(shop), tmp_path / "again", pairs=150, seed=3, workers=1)
    for split in SPLITS:
        assert (tmp_path / "again" / f"{split}.jsonl").read_bytes() == (
            made.folder / f"{split}.jsonl"
        ).read_bytes()


@pytest.mark.slow
def test_another_seed_gives_others(made, shop, tmp_path):
    synthesise(open_source(shop), tmp_path / "other", pairs=150, seed=4, workers=2)
    assert lines(tmp_path / "other", "train") != lines(made.folder, "train")


def test_an_interrupted_synthesis_goes_on_where_it_was(made, shop, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    batch = module._Maker._batch
    calls = []

    def stop_in_the_third(maker):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return batch(maker)

    monkeypatch.setattr(module._Maker, "_batch", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        synthesise(open_source(shop), folder, pairs=150, seed=3, workers=2)
    monkeypatch.setattr(module._Maker, "_batch", batch)
    with (folder / QUERIES_FILE).open("a") as file:
        file.write('{"sql": "SELECT 1", "pattern"')  # a kill in the middle of a line
    synthesise(open_source(shop), folder, pairs=150, seed=3, workers=2)
    for split in SPLITS:
        assert (folder / f"{split}.jsonl").read_bytes() == (made.folder / f"{split}.jsonl").read_bytes()


def test_a_folder_with_fewer_pairs_is_added_to(made, shop, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(made.folder, folder)
    synthesise(open_source(shop), folder, pairs=200, seed=3, workers=2)
    before = {(pair["question"], pair["sql"]) for split in SPLITS for pair in lines(made.folder, split)}
    after = {(pair["question"], pair["sql"]) for split in SPLITS for pair in lines(folder, split)}
    assert before < after
    assert len(after) == 200


def test_a_folder_with_another_synthesis_is_refused(made, shop, ugly, tmp_path):
    with pytest.raises(DataError, match=r"another synthesis: its seed differs.*--out"):
        synthesise(open_source(shop), made.folder, pairs=10, seed=9)
    with pytest.raises(DataError, match=r"another synthesis: its database differs.*--out"):
        synthesise(open_source(ugly), made.folder, pairs=10, seed=3)
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.docx").write_text("x")
    with pytest.raises(DataError, match=r"other files \(thesis.docx\)"):
        synthesise(open_source(shop), folder, pairs=10)


def test_edited_names_are_what_questions_say(shop, tmp_path):
    names = tmp_path / "names.toml"
    names.write_text(
        'database = "shop"\n[tables.customers]\none = "patron"\nmany = "patrons"\n'
        '[tables.orders]\none = "o"\nmany = ""\n[tables.order_lines]\none = "o"\nmany = ""\n'
        '[tables.products]\none = "o"\nmany = ""\n'
    )
    synthesise(open_source(shop), tmp_path / "out", pairs=30, names=names, workers=2)
    pairs = [pair for split in SPLITS for pair in lines(tmp_path / "out", split)]
    assert all("patron" in pair["question"] and "customers" in pair["sql"] for pair in pairs)


@pytest.mark.slow
def test_a_database_that_has_no_more_to_ask_says_so(tmp_path):
    path = tmp_path / "tiny.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE town (name TEXT, people INTEGER)")
        connection.executemany("INSERT INTO town VALUES (?, ?)", [("Ayr", 1), ("Leith", 2), ("Wick", 5)])
        connection.commit()
    made = synthesise(open_source(path), tmp_path / "out", pairs=5000, workers=2)
    assert made.is_exhausted
    assert 10 < sum(made.pairs.values()) < 1000


def test_a_database_without_rows_is_refused(tmp_path):
    path = tmp_path / "empty.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE town (name TEXT, people INTEGER)")
        connection.commit()
    with pytest.raises(DataError, match="none of its tables has rows"):
        synthesise(open_source(path), tmp_path / "out", pairs=5)


@pytest.mark.parametrize(
    ("sql", "verdict"),
    [
        ("SELECT name FROM customers WHERE age > 40", Verdict.KEPT),
        ("SELECT nme FROM customers", Verdict.FAILED),
        ("SELECT name FROM customers WHERE age > 400", Verdict.EMPTY),
        ("SELECT count(*) FROM customers WHERE age > 400", Verdict.EMPTY),
        ("SELECT name FROM customers WHERE age > 0", Verdict.TRIVIAL),
        ("SELECT name FROM customers WHERE age > 40 AND age > 30", Verdict.TRIVIAL),
        ("SELECT status FROM orders ORDER BY status LIMIT 3", Verdict.KEPT),
        ("SELECT order_id FROM orders ORDER BY status LIMIT 3", Verdict.TIED),
        ("SELECT a.name FROM customers AS a, orders AS b, orders AS c", Verdict.LARGE),
        pytest.param(
            "SELECT count(*) FROM orders a, orders b, orders c, orders d, orders e",
            Verdict.SLOW,
            marks=pytest.mark.slow,
        ),
        ("SELECT DISTINCT customer_id FROM customers WHERE age > 40", Verdict.AMBIGUOUS),
    ],
)
def test_what_is_kept_and_why_not(shop, tmp_path, sql, verdict):
    source = open_source(shop)
    with ExecutionPool(1) as pool:
        variants = write_variants(source, profile(source), tmp_path, 0)
        assert Checker(source, variants, pool).check(sql) is verdict


def test_two_spellings_of_a_query_are_the_same_on_every_variant(shop, tmp_path):
    source = open_source(shop)
    with ExecutionPool(1) as pool:
        checker = Checker(source, write_variants(source, profile(source), tmp_path, 0), pool)
        gold = "SELECT count(*) FROM customers WHERE age > 40"
        assert checker.same_everywhere(
            gold, "SELECT count(customer_id) FROM customers AS c WHERE NOT c.age <= 40"
        )
        assert not checker.same_everywhere(gold, "SELECT count(*) FROM customers WHERE age > 41")
        assert not checker.same_everywhere(gold, "SELECT count(*) FROM customer")
