"""Spider's semantics: reading queries and comparing results, on pairs made by hand."""

import itertools
import random
from collections import Counter

import pytest
import sqlparse
from hypothesis import given, settings
from hypothesis import strategies as st

from distilsql.metrics.execution import (
    first_statement_without_distinct,
    order_matters,
    read_gold,
    read_prediction,
    results_equal,
)

EQUAL, DIFFERENT = True, False
# (gold rows, predicted rows, whether order matters, equal?)
PAIRS = [
    ([], [], False, EQUAL),
    ([], [], True, EQUAL),
    ([], [(None,)], False, DIFFERENT),
    ([(1,)], [], False, DIFFERENT),
    ([(None,)], [(None,)], False, EQUAL),
    ([(None,)], [(0,)], False, DIFFERENT),
    ([(None,)], [("",)], False, DIFFERENT),
    ([(1,)], [(1.0,)], False, EQUAL),
    ([(1,)], [(1.0,)], True, EQUAL),
    ([(1,)], [("1",)], False, DIFFERENT),
    ([(0.1 + 0.2,)], [(0.3,)], False, DIFFERENT),
    ([("a",)], [("A",)], False, DIFFERENT),
    ([("a",)], [("a ",)], False, DIFFERENT),
    ([(b"a",)], [("a",)], False, DIFFERENT),
    ([(b"a",)], [(b"a",)], False, EQUAL),
    ([(1,), (2,)], [(2,), (1,)], False, EQUAL),
    ([(1,), (2,)], [(2,), (1,)], True, DIFFERENT),
    ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False, DIFFERENT),
    ([(1,), (1,)], [(1,)], False, DIFFERENT),
    ([(1, 2)], [(2, 1)], False, EQUAL),
    ([(1, 2)], [(2, 1)], True, EQUAL),
    ([(1, 2), (3, 4)], [(2, 1), (3, 4)], False, DIFFERENT),
    ([(1, 2), (3, 4)], [(2, 1), (4, 3)], False, EQUAL),
    ([(1, 2), (3, 4)], [(4, 3), (2, 1)], False, EQUAL),
    ([(1, 2), (3, 4)], [(4, 3), (2, 1)], True, DIFFERENT),
    ([(1, 2, 3)], [(3, 1, 2)], True, EQUAL),
    ([(1, 1)], [(1, 1)], False, EQUAL),
    ([(1, 1)], [(1, 2)], False, DIFFERENT),
    ([(1, 2)], [(1, 2, 2)], False, DIFFERENT),
    ([(1, 2)], [(1,)], False, DIFFERENT),
    ([(1, "a"), (1, "b")], [("a", 1), ("b", 1)], False, EQUAL),
    ([(1, 2), (2, 1)], [(1, 1), (2, 2)], False, DIFFERENT),
    ([(1, 2), (2, 1), (1, 1)], [(2, 1), (1, 2), (1, 1)], True, EQUAL),
    ([(0, 1, 2), (1, 2, 0)], [(0, 2, 1), (1, 0, 2)], False, EQUAL),
    ([(0, 1, 2), (1, 2, 0)], [(0, 1, 2), (2, 1, 0)], False, DIFFERENT),
    # Every row has the same cells, the columns as lists are another bag.
    ([(0, 1, 0, 1, 0, 1), (0, 1, 0, 1, 1, 0)], [(0, 1, 0, 1, 0, 1), (0, 1, 1, 0, 1, 0)], True, DIFFERENT),
    # The official evaluator sorts a row's cells by their text before it compares them: '1.5' < '1<' but '1.0' < '1.5'.
    ([(1, 1.5)], [(1.0, 1.5)], False, DIFFERENT),
    ([(1, 2.5)], [(1.0, 2.5)], False, EQUAL),
    ([(None, 1)], [(1, None)], False, EQUAL),
    ([(True,)], [(1,)], False, EQUAL),
]


@pytest.mark.parametrize(("gold", "predicted", "ordered", "equal"), PAIRS)
def test_result_pairs(gold, predicted, ordered, equal):
    assert results_equal(gold, predicted, ordered=ordered) is equal


cells = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["a", "b", ""]), st.just(0.5))
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[cells] * width), min_size=1, max_size=6)
)


@given(tables, st.randoms(use_true_random=False))
def test_any_order_of_rows_and_columns_is_equal(rows, dice):
    order = dice.sample(range(len(rows[0])), len(rows[0]))
    permuted = [tuple(row[i] for i in order) for row in rows]
    assert results_equal(rows, permuted, ordered=True)
    dice.shuffle(permuted)
    assert results_equal(rows, permuted, ordered=False)


@given(tables, tables)
def test_equality_is_symmetric_and_implied_by_ordered_equality(first, second):
    for ordered in (False, True):
        assert results_equal(first, second, ordered=ordered) == results_equal(second, first, ordered=ordered)
    if results_equal(first, second, ordered=True):
        assert results_equal(first, second, ordered=False)


@settings(deadline=2000)
@given(st.integers(0, 1000))
def test_many_look_alike_columns_are_compared_at_once(seed):
    """Twelve columns that hold the same values have half a billion orders; trying them one by one would hang."""
    dice = random.Random(seed)
    columns = [tuple(dice.sample([0, 0, 0, 1, 1, 1], 6)) for _ in range(12)]
    rows = list(zip(*columns, strict=True))
    shuffled = list(zip(*dice.sample(columns, 12), strict=True))
    assert results_equal(rows, dice.sample(shuffled, 6), ordered=False)


@pytest.mark.parametrize(
    ("line", "sql"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  SELECT 1 \n", "SELECT 1"),
        ("SELECT 1\tconcert_singer", "SELECT 1"),
        ("", ""),
        ("\t", ""),
        ("SELECT a FROM t WHERE b = 'value'", "SELECT a FROM t WHERE b = '1'"),
        ("SELECT invalue_d FROM t", "SELECT in1_d FROM t"),
        ("SELECT a FROM t WHERE b = Value", "SELECT a FROM t WHERE b = Value"),
        (
            "SELECT a FROM t WHERE b > = 1 AND c < = 2 AND d ! = 3",
            "SELECT a FROM t WHERE b >= 1 AND c <= 2 AND d != 3",
        ),
        ("SELECT YEAR(CURDATE()) - 1", "SELECT 2020- 1"),
        ("SELECT year ( curdate ( ) )", "SELECT 2020"),
        ("SELECT DISTINCT a FROM t", "SELECT  a FROM t"),
        ("SELECT count(distinct a) FROM t", "SELECT count( a) FROM t"),
        ("SELECT a FROM t WHERE b = 'distinct'", "SELECT a FROM t WHERE b = 'distinct'"),
        ("SELECT 1; SELECT 2", "SELECT 1; "),
        ("SELECT ';' ; SELECT 2", "SELECT ';' ; "),
        ("SELECT 1 ;", "SELECT 1 ;"),
    ],
)
def test_prediction_lines(line, sql):
    assert read_prediction(line, keep_distinct=False) == sql


def test_keeping_distinct_keeps_the_statement_as_it_is():
    sql = "SELECT DISTINCT a FROM t; SELECT DISTINCT b FROM t"
    assert read_prediction(sql, keep_distinct=True) == sql
    assert read_gold(sql, keep_distinct=True) == sql


def test_value_is_replaced_in_predictions_only():
    assert read_gold("SELECT value FROM t", keep_distinct=False) == "SELECT value FROM t"


@pytest.mark.parametrize(
    ("gold", "matters"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order by a", True),
        ("SELECT a FROM t ORDER  BY a", False),
        ("SELECT a FROM (SELECT a FROM t ORDER BY b LIMIT 1)", True),
        ("SELECT a FROM t WHERE b = 'order by'", True),
        ("SELECT a FROM t", False),
    ],
)
def test_order_matters_as_the_official_evaluator_says(gold, matters):
    assert order_matters(gold) is matters


pieces = st.sampled_from(
    [
        "select",
        " ",
        "distinct",
        "DISTINCT(",
        "a",
        ".",
        ";",
        "'",
        '"',
        "--x\n",
        "/*",
        "*/",
        "(",
        ")",
        "case ",
        "end ",
        "begin",
        "go\n",
        "$$",
    ]
)


@settings(max_examples=100)
@given(st.lists(pieces, max_size=25).map("".join))
def test_short_cuts_equal_the_full_parse(sql):
    """The tokens without sqlparse's grouping, and no tokens at all where nothing can change, give its text."""
    statements = sqlparse.parse(sql)
    expected = (
        "".join(t.value for t in statements[0].flatten() if t.value.lower() != "distinct")
        if statements
        else ""
    )
    assert first_statement_without_distinct(sql) == expected


def test_a_query_that_sqlparse_refuses_runs_nothing():
    assert first_statement_without_distinct("SELECT " + "(" * 300 + "1" + ")" * 300) == ""


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2, 400, 1500])
def test_any_number_of_columns_is_compared(columns):
    """In the opposite order, all of them different, and with one cell changed."""
    rows = [tuple(row * columns + column for column in range(columns)) for row in range(3)]
    turned = [row[::-1] for row in rows]
    assert results_equal(rows, turned, ordered=False)
    assert results_equal(rows, turned, ordered=True)
    wrong = [*turned[:-1], (*turned[-1][:-1], -1)]
    assert not results_equal(rows, wrong, ordered=False)


def test_columns_are_matched_by_whole_rows():
    """The same cells in every column, and only one of the orders is right; of others none is."""
    gold = [(0, 0, 1), (0, 1, 0), (1, 1, 1), (1, 0, 1)]
    for order in itertools.permutations(range(3)):
        predicted = [tuple(row[index] for index in order) for row in gold]
        assert results_equal(gold, predicted[::-1], ordered=False, official=False)
    assert not results_equal([(0, 0), (1, 1)], [(0, 1), (1, 0)], ordered=False, official=False)
    assert not results_equal([(0, 0, 0), (1, 1, 1)], [(0, 0, 1), (1, 1, 0)], ordered=False, official=False)


@given(st.data())
def test_matching_columns_agrees_with_trying_every_order(data):
    width = data.draw(st.integers(1, 4))
    cell = st.sampled_from([0, 1, 1.0, "a", None])
    rows = st.lists(st.tuples(*[cell] * width), min_size=1, max_size=5)
    gold = data.draw(rows)
    order = data.draw(st.permutations(range(width)))
    predicted = data.draw(st.one_of(rows, st.just([tuple(row[i] for i in order) for row in gold[::-1]])))
    expected = any(
        Counter(tuple(row[i] for i in order) for row in predicted) == Counter(gold)
        for order in itertools.permutations(range(width))
    )
    assert results_equal(gold, predicted, ordered=False, official=False) == expected
