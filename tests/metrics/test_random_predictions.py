"""Thousands of random and mutated strings as predictions: no crash, no hang, the verdict of a plain loop."""

import random
import sqlite3
import string
import time
from collections import Counter
from contextlib import closing
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilsql.databases.pool import ExecutionPool
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.execution import order_matters, read_gold, read_prediction
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.scores import VerdictOutcome

TIMEOUT_S = 1.0
WORDS = r"""
    SELECT DISTINCT FROM WHERE GROUP BY ORDER LIMIT UNION ALL count ( ) * , ; ' " -- /* */ = > < value NULL name shop
    sale city staff amount 1 2.5 'Ayr' AS T1 JOIN ON AND OR NOT IN LIKE BETWEEN PRAGMA ATTACH DELETE DROP é
    """.split()  # noqa: SIM905
WORDS += ["\x00", chr(0xD800)]  # no C string, and half of a surrogate pair


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=2) as pool:
        yield pool


def judge_plainly(prediction, gold, path):
    """The verdict as a reader of the rules would get it: one connection, one process, every order of columns."""
    predicted_sql = read_prediction(prediction, keep_distinct=False)
    if not predicted_sql.strip():
        return False
    gold_sql = read_gold(gold, keep_distinct=False)
    expected, found = (run_plainly(sql, path) for sql in (gold_sql, predicted_sql))
    if found is None or len(expected) != len(found):
        return False
    if not expected:
        return True
    if len(expected[0]) != len(found[0]):
        return False
    for order in permutations(range(len(found[0]))):
        permuted = [tuple(row[i] for i in order) for row in found]
        if permuted == expected if order_matters(gold_sql) else Counter(permuted) == Counter(expected):
            return True
    return False


def run_plainly(sql, path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda raw: raw.decode(errors="ignore")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        deadline = time.monotonic() + TIMEOUT_S
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
        try:
            return connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return None


def mutate(sql, dice):
    """A few edits of tokens or characters."""
    tokens = sql.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(tokens) + 1)
        match dice.randrange(5):
            case 0 if place < len(tokens) > 1:
                del tokens[place]
            case 1:
                tokens.insert(place, dice.choice(WORDS))
            case 2 if place < len(tokens):
                tokens[place] = dice.choice(WORDS)
            case 3 if place < len(tokens):
                tokens[place], tokens[0] = tokens[0], tokens[place]
            case _ if place < len(tokens):
                character = dice.choice(string.printable)
                tokens[place] = tokens[place][:1] + character + tokens[place][1:]
    return " ".join(tokens)


def check(predictions, benchmark, pool, golds):
    """Judges round by round, as many predictions as there are examples; returns how many were right."""
    size, right = len(benchmark.examples), 0
    path = benchmark.databases["shop"].path
    for start in range(0, len(predictions), size):
        part = predictions[start : start + size]
        part += ["SELECT"] * (size - len(part))
        scores = evaluate(part, benchmark, timeout_s=TIMEOUT_S, pool=pool, golds=golds)
        for example, verdict in zip(benchmark.examples, scores.verdicts, strict=True):
            expected = judge_plainly(verdict.predicted_sql, example.gold_sql, path)
            assert verdict.is_correct == expected, verdict
            assert verdict.outcome is not VerdictOutcome.CRASHED, verdict
        assert type(scores).from_json(scores.to_json()).correct == scores.correct
        right += scores.correct
    return right


@pytest.mark.parametrize("count", [240, pytest.param(6000, marks=pytest.mark.slow)])
def test_mutated_golds(count, shop, pool):
    dice = random.Random(count)
    golds = [example.gold_sql for example in shop.examples]
    predictions = [mutate(golds[i % len(golds)], dice) for i in range(count)]
    right = check(predictions, shop, pool, GoldResults())
    assert count * 0.02 < right < count * 0.6  # some edits change nothing, most do


def strings(count):
    texts = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
    return st.lists(texts, min_size=count, max_size=count)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(predictions=strings(6))
def test_random_strings(predictions, shop, pool):
    check(predictions, shop, pool, GoldResults())


@pytest.mark.slow
@settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))
@given(predictions=strings(6))
def test_thousands_of_random_strings(predictions, shop, pool):
    check(predictions, shop, pool, GoldResults())
