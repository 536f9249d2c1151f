"""Verdicts on a small benchmark: every outcome, the tables, and what is refused."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from distilsql.databases.execute import Job, make_job
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DataError
from distilsql.metrics.compare import compare_predictions
from distilsql.metrics.efficiency import measure_r_ves
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.scores import Scores, VerdictOutcome
from reporters import watching

HANG = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t"


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=2) as pool:
        yield pool


def golds_of(benchmark):
    return [example.gold_sql for example in benchmark.examples]


def test_gold_against_gold_is_all_correct(shop, bird_shop, pool):
    for benchmark in (shop, bird_shop):
        scores = evaluate(golds_of(benchmark), benchmark, pool=pool)
        assert scores.accuracy == 1.0
        assert scores.interval == (1.0, 1.0)
        assert scores.valid_sql_rate == 1.0
    assert scores.soft_f1 == 1.0


def test_outcomes_are_told_apart(shop, pool):
    predictions = [
        "SELECT count(*) + 0 FROM shop",
        "SELECT name FROM shop WHERE town = 'Ayr'",
        "SELECT name, staff FROM shops ORDER BY staff DESC",
        "",
        HANG,
        "SELECT name FROM shop",
    ]
    scores = evaluate(predictions, shop, timeout_s=2.0, pool=pool)
    assert [verdict.outcome for verdict in scores.verdicts] == [
        VerdictOutcome.CORRECT,
        VerdictOutcome.SQL_ERROR,
        VerdictOutcome.SQL_ERROR,
        VerdictOutcome.EMPTY,
        VerdictOutcome.TIMEOUT,
        VerdictOutcome.WRONG,
    ]
    assert scores.valid_sql_rate == pytest.approx(0.5)
    assert scores.invented("column") == {"town": 1}
    assert scores.invented("table") == {"shops": 1}
    assert scores.by_hardness()["easy"].total == 4
    assert scores.by_database()["shop"].correct == 1
    assert scores.by_clause()["WHERE"].total == 2
    assert Scores.from_json(scores.to_json()) == scores


@pytest.mark.parametrize(
    ("position", "sql", "default", "keep_distinct"),
    [
        (3, "SELECT city FROM shop GROUP BY city", False, True),  # the gold loses its DISTINCT: three rows
        (3, "SELECT city FROM shop", True, False),
        (1, "SELECT DISTINCT name FROM shop WHERE city = 'Ayr' ;", True, True),
        (2, "SELECT staff, name FROM shop ORDER BY staff DESC", True, True),
        (2, "SELECT name, staff FROM shop ORDER BY staff", False, False),
        (5, "SELECT * FROM sale WHERE amount > 100", True, True),  # both empty
        (0, "SELECT 3; SELECT 4", True, False),
        (0, "SELECT 3.0\tshop", True, True),
    ],
)
def test_spider_semantics_end_to_end(shop, pool, position, sql, default, keep_distinct):
    predictions = golds_of(shop)
    predictions[position] = sql
    for keep, expected in ((False, default), (True, keep_distinct)):
        verdict = evaluate(predictions, shop, keep_distinct=keep, pool=pool).verdicts[position]
        assert verdict.is_correct is expected, (keep, verdict)


@pytest.mark.parametrize(
    ("position", "sql", "correct"),
    [
        (2, "SELECT staff, name FROM shop", False),
        (2, "SELECT name, staff FROM shop ORDER BY staff", True),
        (3, "SELECT city FROM shop", True),
        (0, "SELECT 3; SELECT 3", False),
    ],
)
def test_bird_semantics_end_to_end(bird_shop, pool, position, sql, correct):
    predictions = golds_of(bird_shop)
    predictions[position] = sql
    assert evaluate(predictions, bird_shop, pool=pool).verdicts[position].is_correct is correct


def test_undecodable_text_is_ignored_by_spider_and_an_error_for_bird(shop, bird_shop, shop_file, pool):
    with closing(sqlite3.connect(shop_file)) as connection:
        connection.execute("INSERT INTO shop VALUES (4, CAST(x'41ff42' AS TEXT), 'Nairn', 2)")
        connection.commit()
    predictions = golds_of(shop)
    predictions[1] = "SELECT 'AB' FROM shop WHERE city = 'Nairn'"
    examples = (replace(shop.examples[1], gold_sql="SELECT name FROM shop WHERE city = 'Nairn'"),)
    assert evaluate(predictions[1:2], replace(shop, examples=examples), pool=pool).accuracy == 1.0
    with pytest.raises(DataError, match="Could not decode"):
        evaluate(predictions[1:2], replace(bird_shop, examples=examples), pool=pool)


@pytest.mark.parametrize(("position", "correct"), [(0, False), (5, True)])
def test_bird_runs_an_empty_prediction_and_spider_does_not(shop, bird_shop, pool, position, correct):
    """SQLite takes it for a statement without rows; the last gold has none either."""
    predictions = ["SELECT 99"] * 6
    predictions[position] = " "
    verdict = evaluate(predictions, bird_shop, pool=pool).verdicts[position]
    assert (verdict.is_correct, verdict.soft_f1) == (correct, float(correct))
    assert correct or verdict.outcome is VerdictOutcome.EMPTY
    assert evaluate(predictions, shop, pool=pool).verdicts[position].outcome is VerdictOutcome.EMPTY


def test_birds_gold_and_an_equal_prediction_share_one_budget(shop, bird_shop, shop_file, pool):
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT max(i) FROM n"
    seconds = pool.run(make_job(shop_file, slow)).cpu_seconds
    for benchmark, outcome in ((bird_shop, VerdictOutcome.TIMEOUT), (shop, VerdictOutcome.CORRECT)):
        slow_one = replace(benchmark, examples=(replace(benchmark.examples[0], gold_sql=slow),))
        assert evaluate([slow], slow_one, pool=pool, timeout_s=seconds).verdicts[0].outcome is outcome
        assert evaluate([slow], slow_one, pool=pool).accuracy == 1


@pytest.mark.parametrize(
    ("position", "sql", "correct"),
    [
        (1, "SELECT city FROM shop_value ORDER BY city", False),
        (1, "SELECT DISTINCT city FROM shop_value ORDER BY city DESC", False),
        (1, "SELECT city FROM shop_value GROUP BY city ORDER BY 1", True),
        (2, "SELECT 1, 'value' FROM shop_value LIMIT 1", True),
        (2, "SELECT 1, '1' FROM shop_value LIMIT 1", False),
    ],
)
def test_own_pairs_are_judged_as_they_stand(own_shop, pool, position, sql, correct):
    predictions = golds_of(own_shop)
    assert evaluate(predictions, own_shop, pool=pool).accuracy == 1, "each gold is right by itself"
    predictions[position] = sql
    assert evaluate(predictions, own_shop, pool=pool).verdicts[position].is_correct is correct
    with pytest.raises(DataError, match="DISTINCT as it stands"):
        evaluate(predictions, own_shop, pool=pool, keep_distinct=True)


@pytest.mark.parametrize(
    ("gold", "sql", "correct"),
    [
        ("SELECT city, 1.0, 1.5 FROM shop_value", "SELECT city, 1, 1.5 FROM shop_value", True),
        ("SELECT a FROM (SELECT 1 AS a UNION SELECT 2 ORDER BY 1)", "SELECT 2 UNION ALL SELECT 1", True),
        (
            "SELECT rank() OVER (ORDER BY a) FROM (SELECT 1 AS a UNION SELECT 2)",
            "SELECT 2 UNION ALL SELECT 1",
            True,
        ),
        ("SELECT a FROM (SELECT 1 AS a UNION SELECT 2) ORDER\n BY (a)", "SELECT 2 UNION ALL SELECT 1", False),
        ("SELECT city FROM shop_value WHERE city = 'ORDER BY'", "SELECT city FROM shop_value WHERE 0", True),
    ],
)
def test_spiders_oddities_are_not_an_own_pairs(own_shop, pool, gold, sql, correct):
    benchmark = replace(own_shop, examples=(replace(own_shop.examples[0], gold_sql=gold),))
    assert evaluate([sql], benchmark, pool=pool).verdicts[0].is_correct is correct


@pytest.mark.parametrize("sql", ["-- I cannot answer", ";", "BEGIN", "PRAGMA foreign_keys = 1"])
def test_what_has_no_result_is_no_empty_result_of_an_own_pair(own_shop, pool, sql):
    gold = "SELECT city FROM shop_value WHERE staff_value > 99"
    benchmark = replace(own_shop, examples=(replace(own_shop.examples[0], gold_sql=gold),))
    assert evaluate(["SELECT 1 WHERE 0"], benchmark, pool=pool).accuracy == 1
    verdict = evaluate([sql], benchmark, pool=pool).verdicts[0]
    assert (verdict.outcome, verdict.is_valid_sql) == (VerdictOutcome.EMPTY, False)


def test_no_prediction_changes_what_the_next_one_may_use(own_shop):
    """Some PRAGMAs are carried out while they are prepared, whatever becomes of the statement."""
    many = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t LIMIT 9000) SELECT count(DISTINCT a) FROM t"
    examples = tuple(replace(own_shop.examples[0], example_id=str(i), gold_sql=many) for i in range(2))
    predictions = ["PRAGMA hard_heap_limit = 100000; SELECT 1", f"{many} WHERE 1"]
    scores = evaluate(predictions, replace(own_shop, examples=examples), workers=1)
    assert [verdict.outcome for verdict in scores.verdicts] == [
        VerdictOutcome.SQL_ERROR,
        VerdictOutcome.CORRECT,
    ]


def test_a_gold_that_fails_is_never_scored(shop, pool):
    broken = replace(shop.examples[4], gold_sql="SELECT absent FROM shop")
    benchmark = replace(shop, examples=(*shop.examples[:4], broken))
    with pytest.raises(DataError, match=r"gold query of dev/4 does not run .* no such column: absent"):
        evaluate(["SELECT 1"] * 5, benchmark, pool=pool)


def test_wrong_numbers_and_missing_databases_are_refused(shop, pool):
    with pytest.raises(DataError, match="5 predictions for the 6 examples of shop:dev"):
        evaluate(["SELECT 1"] * 5, shop, pool=pool)
    with pytest.raises(DataError, match="which shop:dev lacks"):
        evaluate(golds_of(shop), replace(shop, databases={}), pool=pool)
    with pytest.raises(DataError, match="no examples"):
        evaluate([], replace(shop, examples=()), pool=pool)


class CountingPool(ExecutionPool):
    """Remembers what it was asked to run."""

    def __init__(self) -> None:
        super().__init__(workers=1)
        self.jobs: list[Job] = []

    def run(self, job):
        if job.task == "query":
            self.jobs.append(job)
        return super().run(job)


def test_golds_run_again_when_a_live_database_has_changed(tmp_path, pool):
    """What is committed to a database in WAL mode lies in its log while others have it open; its file stays."""
    path, golds = tmp_path / "live.sqlite", GoldResults(tmp_path / "golds")
    job = make_job(path, "SELECT count(*) FROM t")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        for rows in range(3):
            writer.execute("CREATE TABLE t (a)" if rows == 0 else "INSERT INTO t VALUES (1)")
            writer.commit()
            assert golds.fetch([job], ["first"], pool)[0].rows == ((rows,),)


def test_golds_run_once_in_a_process_and_once_on_disk(shop, shop_file, tmp_path):
    predictions = ["SELECT count(staff) FROM shop", *golds_of(shop)[1:]]
    with CountingPool() as pool:
        golds = GoldResults(tmp_path / "golds")
        first = evaluate(predictions, shop, pool=pool, golds=golds)
        assert len(pool.jobs) == 6 + 1  # a prediction that is its gold needs no run of its own
        pool.jobs.clear()
        second = evaluate(predictions, shop, pool=pool, golds=golds)
        assert second.correct == first.correct == 6
        assert len(pool.jobs) == 1
        pool.jobs.clear()
        evaluate(predictions, shop, pool=pool, golds=GoldResults(tmp_path / "golds"))
        assert len(pool.jobs) == 1
        with closing(sqlite3.connect(shop_file)) as connection:
            connection.execute("DELETE FROM sale")
            connection.execute("INSERT INTO shop VALUES (9, 'New', 'Ayr', 7)")
            connection.commit()
        pool.jobs.clear()
        again = evaluate(predictions, shop, pool=pool, golds=golds)
        assert len(pool.jobs) == 6 + 1  # the file has changed, so its golds are run again
        assert again.accuracy == 1.0


def test_plugged_values_forgive_a_wrong_value_and_say_so(shop, pool):
    predictions = golds_of(shop)
    predictions[1] = "SELECT name FROM shop WHERE city = 'Air'"
    predictions[5] = "SELECT name FROM shop WHERE staff > 2"
    assert evaluate(predictions, shop, pool=pool).correct == 4
    scores = evaluate(predictions, shop, plug_values=True, pool=pool)
    assert scores.correct == 6
    assert scores.metric == "EX with plugged values"
    assert (
        scores.verdicts[1].message == "right with the gold's values: SELECT name FROM shop WHERE city = 'Ayr'"
    )
    assert scores.verdicts[1].predicted_sql == predictions[1]


def test_r_ves_rewards_only_what_is_right(shop, bird_shop, pool):
    predictions = ["SELECT 0", *golds_of(bird_shop)[1:]]
    scores = measure_r_ves(evaluate(predictions, bird_shop, pool=pool), bird_shop, repeats=3)
    rewards = [verdict.reward for verdict in scores.verdicts]
    assert rewards[0] == 0
    assert all(0.25 <= reward <= 1.25 for reward in rewards[1:])
    assert 0 < scores.r_ves < 112
    with pytest.raises(DataError, match="R-VES is BIRD's"):
        measure_r_ves(evaluate(golds_of(shop), shop, pool=pool), shop)
    with pytest.raises(DataError, match="Spider's"):
        evaluate(predictions, bird_shop, plug_values=True, pool=pool)


def test_progress_ends_at_the_total(shop, pool):
    seen = []
    with watching(lambda work: seen.append((work.done, work.total)) if work.what == "judging" else None):
        evaluate(["SELECT 1"] * 6, shop, pool=pool)
    assert seen[-1] == (6, 6)
    assert seen == sorted(seen)


def test_compare_lists_what_was_fixed_and_broken(shop, pool):
    golds = golds_of(shop)
    before = evaluate(["SELECT 0", *golds[1:]], shop, pool=pool)
    after = evaluate([*golds[:4], "SELECT 0", "SELECT 0"], shop, pool=pool)
    comparison = compare_predictions(before, after)
    assert [change.after.example_id for change in comparison.fixed] == ["dev/0"]
    assert [change.after.example_id for change in comparison.broken] == ["dev/4", "dev/5"]
    assert comparison.difference == pytest.approx(-1 / 6)
    assert comparison.mcnemar_p == 1.0
    text = str(comparison)
    assert "1 fixed" in text
    assert "Question 4?" in text
    assert "wrong result" in text
    with pytest.raises(DataError, match="keep_distinct"):
        compare_predictions(before, evaluate(golds, shop, keep_distinct=True, pool=pool))
    with pytest.raises(DataError, match="different examples"):
        compare_predictions(before, replace(after, verdicts=after.verdicts[1:]))


def test_scores_that_are_not_scores():
    for text in ("", "[]", "{}", '{"benchmark": "x"}'):
        with pytest.raises(DataError, match="not a scores file"):
            Scores.from_json(text)
