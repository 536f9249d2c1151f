"""Golds that cannot judge: named all at once, left out on request, given more time; and what a busy machine does."""

import json
import os
import signal
from dataclasses import replace

import pytest

from distilsql.data.load import load_benchmark
from distilsql.databases.job import Execution, Outcome, make_job
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DataError
from distilsql.metrics.compare import compare_predictions
from distilsql.metrics.evaluate import broken_golds, evaluate
from distilsql.metrics.golds import BrokenGolds, GoldResults
from distilsql.metrics.scores import Scores, VerdictOutcome
from distilsql.runs.evaluate import BROKEN_GOLDS, Rules, evaluate_file, score_lines

HANG = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t"
BROKEN = {
    "a missing comma": "SELECT name  T1.staff FROM shop AS T1",
    "no such table": "SELECT name FROM shops",
    "no such column": "SELECT title FROM shop",
    "no such function": "SELECT median(staff) FROM shop",
    "two statements": "SELECT 1; SELECT 2",
    "not closed": "SELECT 'Ayr",
    "ambiguous": "SELECT shop_id FROM shop JOIN sale",
    "misused": "SELECT name FROM shop WHERE count(*) > 1",
    "writes": "DELETE FROM shop",
    "attaches": "ATTACH 'other.sqlite' AS other",
    "a comment": "-- to do",
    "nothing": ";",
}


def with_golds(benchmark, *golds):
    examples = [
        replace(benchmark.examples[0], example_id=f"dev/{number}", gold_sql=gold)
        for number, gold in enumerate(golds)
    ]
    return replace(benchmark, examples=tuple(examples), evaluator="plain")


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_gold_is_named_and_left_out_on_request(shop, broken):
    benchmark = with_golds(shop, "SELECT 1", broken, "SELECT 3")
    predictions = ["SELECT 1", "SELECT 2", "SELECT 4"]
    with pytest.raises(BrokenGolds, match="gold query of dev/1 does not run"):
        evaluate(predictions, benchmark, workers=1)
    golds = GoldResults()
    found = broken_golds(benchmark, golds)
    assert list(found) == ["dev/1"]
    scores = evaluate(predictions, benchmark, golds=golds, leave_out=found, workers=1)
    assert (scores.metric, scores.correct, len(scores.verdicts)) == ("EX without 1 of 3", 1, 2)
    assert Scores.from_json(scores.to_json()) == scores
    assert any(line.startswith("left out: dev/1, its gold does not run") for line in score_lines(scores))


def test_all_broken_golds_are_named_at_once_and_a_comment_is_a_gold_of_spiders(shop):
    benchmark = with_golds(shop, *BROKEN.values())
    with pytest.raises(BrokenGolds) as raised:
        evaluate(["SELECT 1"] * len(BROKEN), benchmark, workers=1)
    assert [gold.name for gold in raised.value.broken] == [f"dev/{n}" for n in range(len(BROKEN))]
    assert all(f"dev/{n} " in str(raised.value) for n in range(len(BROKEN)))
    spider = replace(with_golds(shop, "-- to do"), evaluator="spider")
    assert evaluate(["SELECT 1"], spider, workers=1).correct == 0, "the official evaluator runs it"


def test_examples_left_out_are_counted_and_not_comparable_with_the_whole(shop, pool):
    predictions = [example.gold_sql for example in shop.examples]
    whole = evaluate(predictions, shop, pool=pool)
    part = evaluate(predictions, shop, pool=pool, leave_out={"dev/2": "mine"})
    assert [v.example_id for v in part.verdicts] == ["dev/0", "dev/1", "dev/3", "dev/4", "dev/5"]
    with pytest.raises(DataError, match="differ in metric"):
        compare_predictions(whole, part)
    with pytest.raises(DataError, match="no example 'dev/22' to leave out"):
        evaluate(predictions, shop, pool=pool, leave_out={"dev/22": "mistyped"})
    with pytest.raises(DataError, match=r"Every example .* is left out"):
        evaluate(predictions, shop, pool=pool, leave_out={f"dev/{n}": "" for n in range(6)})


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=1) as pool:
        yield pool


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("has_the_left_out", [True, False])
@pytest.mark.parametrize("leave_out", [("dev/1",), (BROKEN_GOLDS,)])
def test_a_file_may_hold_predictions_for_what_is_left_out(
    shop, tmp_path, suffix, has_the_left_out, leave_out
):
    benchmark = with_golds(shop, "SELECT 1", "SELECT nothing FROM shop", "SELECT 3")
    answers = {n: f"SELECT {n + 1}" for n in range(3) if has_the_left_out or n != 1}
    texts = {
        ".txt": "\n".join(answers.values()),
        ".jsonl": "\n".join(json.dumps({"example_id": f"dev/{n}", "sql": sql}) for n, sql in answers.items()),
        ".json": json.dumps({str(n): sql for n, sql in answers.items()}),
        ".csv": "\n".join(["sql", *answers.values()]),
    }
    path = tmp_path / f"p{suffix}"
    path.write_text(texts[suffix])
    scores = evaluate_file(path, benchmark, Rules(leave_out=leave_out))
    assert (scores.correct, len(scores.verdicts)) == (2, 2)
    drawn = evaluate_file(path, benchmark.take(2, 0), Rules(leave_out=leave_out), whole=benchmark)
    assert drawn.correct == len(drawn.verdicts)


def test_a_gold_gets_the_time_it_is_given(shop):
    slow = with_golds(shop, HANG)
    assert broken_golds(slow, GoldResults(), timeout_s=0.2)["dev/0"].startswith(
        "its gold does not run (timeout"
    )


def test_spider_dk_can_be_judged(shared, tmp_path):
    """The published gold of Spider-DK/76 lacks a comma."""
    benchmark = load_benchmark("spider-dk:dev", root=shared / "data")
    kept = [i for i, example in enumerate(benchmark.examples) if example.db_id == "new_pets_1"]
    benchmark = replace(benchmark, examples=tuple(benchmark.examples[i] for i in kept))
    path = tmp_path / "golds.txt"
    path.write_text("\n".join(example.gold_sql for example in benchmark.examples))
    with pytest.raises(BrokenGolds, match="Spider-DK/76") as raised:
        evaluate_file(path, benchmark)
    assert len(raised.value.broken) == 1
    scores = evaluate_file(path, benchmark, Rules(leave_out=(BROKEN_GOLDS,)))
    assert (scores.accuracy, len(scores.verdicts)) == (1.0, len(kept) - 1)


def stop_workers(pool):
    """As a machine does that gives the worker no time: it is there and does not come to its turn."""
    pool.run(make_job(os.devnull, "SELECT 1"))  # a worker that is there to be stopped
    for process_id in pool.process_ids():
        os.kill(process_id, signal.SIGSTOP)


class StarvedPool(ExecutionPool):
    def run(self, job) -> Execution:
        if job.task == "fingerprint":
            return super().run(job)
        super().run(replace(job, sql="SELECT 1"))
        for process_id in self.process_ids():
            os.kill(process_id, signal.SIGSTOP)
        return super().run(job)


@pytest.mark.slow
def test_a_query_that_was_held_up_once_is_run_again(shop):
    benchmark = with_golds(shop, "SELECT count(*) FROM shop")
    golds = GoldResults()
    with ExecutionPool(workers=1) as pool:
        stop_workers(pool)
        assert broken_golds(benchmark, golds, timeout_s=1, pool=pool) == {}
        stop_workers(pool)
        scores = evaluate(["SELECT 3"], benchmark, timeout_s=1, pool=pool, golds=golds)
    assert scores.correct == 1


@pytest.mark.slow
def test_a_query_that_is_always_held_up_is_not_called_wrong(shop, monkeypatch):
    monkeypatch.setattr("distilsql.data.golds.PATIENCE_S", 0.0)
    benchmark = with_golds(shop, "SELECT count(*) FROM shop")
    golds = GoldResults()
    assert broken_golds(benchmark, golds) == {}
    with StarvedPool(workers=1) as pool:
        scores = evaluate(["SELECT 3"], benchmark, timeout_s=0.5, pool=pool, golds=golds)
    assert scores.verdicts[0].outcome is VerdictOutcome.UNDECIDED
    assert any("the machine was too busy" in line for line in score_lines(scores))
    assert Scores.from_json(scores.to_json()) == scores


def test_a_second_run_ends_by_the_processors_time(shop_file, pool):
    job = make_job(shop_file, HANG, timeout_s=400)
    execution = pool.run(replace(job, limits=replace(job.limits, cpu_s=0.2)))
    assert execution.outcome is Outcome.TIMEOUT
    assert 0.2 <= execution.cpu_seconds < 100


@pytest.mark.parametrize(
    ("gold", "sql", "words"),
    [
        (
            "SELECT name FROM shop ORDER BY city = 'Ayr'",
            "SELECT name FROM shop ORDER BY city = 'Ayr', name DESC",
            "another order",
        ),
        ("SELECT avg(amount) / 3 FROM sale", "SELECT sum(amount) / 12 + 1e-14 FROM sale", "last digits"),
        ("SELECT name FROM shop", "SELECT city FROM shop", ""),
        ("SELECT avg(amount) FROM sale", "SELECT avg(amount) + 0.001 FROM sale", ""),
    ],
)
def test_an_own_pairs_verdict_says_what_alone_differs(shop, gold, sql, words, pool):
    benchmark = with_golds(shop, gold)
    scores = evaluate([sql], benchmark, pool=pool)
    (verdict,) = scores.verdicts
    assert verdict.outcome is VerdictOutcome.WRONG
    assert (words in verdict.message) if words else verdict.message == ""
    assert any(words in line for line in score_lines(scores))
    spider = evaluate([sql], replace(benchmark, evaluator="spider"), pool=pool).verdicts[0]
    assert spider.message == ""
