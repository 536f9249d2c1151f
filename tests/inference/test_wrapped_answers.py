"""What stood around a query is stripped, kept in the prediction file and counted; official rules strip nothing."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from distilsql.data.load import load_benchmark
from distilsql.inference.decoder import Decoder
from distilsql.inference.predict import write_predictions
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.query_check import check_teacher_queries
from distilsql.metrics.scores import Scores
from distilsql.runs.evaluate import evaluate_file, score_lines

GOLD = "SELECT count(*) FROM t"
WRITTEN = "<think>It's a count.</think>Here it is:\n```sql\nSELECT count(*) -- all\nFROM t\n```"


@pytest.fixture
def own(tmp_path):
    with closing(sqlite3.connect(tmp_path / "own.sqlite")) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"question": f"q{n}", "sql": GOLD}) + "\n" for n in range(2)))
    return load_benchmark(str(pairs), database=tmp_path / "own.sqlite")


def answer(text):
    tokenizer = SimpleNamespace(decode=lambda completion, skip_special_tokens: text)
    return Decoder(None, tokenizer, 0, 0).answer([], "sql")


def test_an_answer_is_the_query_and_says_what_it_was_stripped_of():
    assert answer(WRITTEN).text == "SELECT count(*) FROM t"
    assert answer(WRITTEN).stripped == ("thoughts", "fence")
    assert answer(WRITTEN).written == WRITTEN
    assert answer(GOLD).stripped == ()


def test_prediction_files_keep_the_answer_and_scores_count(own, tmp_path):
    wrapped = answer(WRITTEN)
    first, second = (example.example_id for example in own.examples)
    around = {first: {"stripped": list(wrapped.stripped), "written": wrapped.written}}
    write_predictions({first: wrapped.text, second: GOLD}, own, tmp_path / "p.jsonl", around)
    first, second = map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())
    assert (first["sql"], first["written"]) == (GOLD, WRITTEN)
    assert set(second) == {"example_id", "question", "sql"}
    scores = evaluate_file(tmp_path / "p.jsonl", own)
    assert scores.accuracy == 1
    assert scores.stripped == {"thoughts": 1, "fence": 1}
    assert "judged without: thoughts (1), fence (1)" in list(score_lines(scores))
    assert Scores.from_json(scores.to_json()).stripped == scores.stripped


def test_own_pairs_are_judged_without_the_wrapping_and_official_benchmarks_with_it(own):
    scores = evaluate([WRITTEN, GOLD], own)
    assert (scores.accuracy, scores.stripped) == (1, {"thoughts": 1, "fence": 1})
    for evaluator in ("spider", "bird"):
        official = evaluate([WRITTEN, GOLD], replace(own, evaluator=evaluator))
        assert (official.accuracy, official.stripped) == (0.5, {})


def test_a_teachers_wrapped_query_is_read_as_an_answer_is(own):
    found = check_teacher_queries({own.examples[0].example_id: WRITTEN}, own)
    assert (found.run, found.match_gold) == (1, 1)
