"""The rules of the evaluators side by side: how queries are read, and when two results are equal.

Spider's and BIRD's are the official ones. "plain" is for own pairs: nothing in the SQL is rewritten, DISTINCT counts,
and results are compared as Spider compares them, but for its oddities.
"""

from collections.abc import Sequence

from sqlparse import lexer
from sqlparse.tokens import Keyword, Punctuation

from distilsql.data.golds import rounded
from distilsql.data.source import Evaluator
from distilsql.databases.execute import Row
from distilsql.metrics import bird, execution


def read_queries(
    prediction: str, gold_sql: str, evaluator: Evaluator, *, keep_distinct: bool = False
) -> tuple[str, str]:
    """The predicted and the gold SQL as they are run: as they stand, but Spider's are rewritten."""
    gold = read_gold(gold_sql, evaluator, keep_distinct=keep_distinct)
    if evaluator == "spider":
        return execution.read_prediction(prediction, keep_distinct=keep_distinct), gold
    return prediction, gold


def read_gold(gold_sql: str, evaluator: Evaluator, *, keep_distinct: bool = False) -> str:
    """The gold SQL as it is run."""
    return execution.read_gold(gold_sql, keep_distinct=keep_distinct) if evaluator == "spider" else gold_sql


def results_equal(gold_sql: str, gold: Sequence[Row], predicted: Sequence[Row], evaluator: Evaluator) -> bool:
    """Whether two whole results are equal; `gold_sql`, as `read_gold` gives it, says if the order of rows counts
    (never BIRD's)."""
    if evaluator == "bird":
        return bird.results_equal(gold, predicted)
    if evaluator == "spider":
        return execution.results_equal(gold, predicted, ordered=execution.order_matters(gold_sql))
    return execution.results_equal(gold, predicted, ordered=_orders_its_rows(gold_sql), official=False)


def near_miss(gold: Sequence[Row], predicted: Sequence[Row], evaluator: Evaluator) -> str:
    """What alone makes an own pair's wrong result differ, where a person may call it right; '' elsewhere.

    It explains a verdict and changes none. Numbers count as the same to nine digits.
    """
    if evaluator != "plain":
        return ""
    if execution.results_equal(gold, predicted, ordered=False, official=False):
        return "the gold's rows in another order"
    if execution.results_equal(rounded(gold), rounded(predicted), ordered=False, official=False):
        return "the gold's rows but for the last digits of numbers"
    return ""


def _orders_its_rows(sql: str) -> bool:
    """Whether ORDER BY is said of the result itself, not of a subquery or a window."""
    depth = 0
    for kind, text in lexer.tokenize(sql):
        if kind is Punctuation and text in "()":
            depth += 1 if text == "(" else -1
        elif kind is Keyword and depth == 0 and text.upper().split() == ["ORDER", "BY"]:
            return True
    return False


def is_result(columns: Sequence[str], evaluator: Evaluator) -> bool:
    """Whether what ran gave a result, if an empty one. An own pair's prediction must have columns: a comment, `;` or
    BEGIN has none."""
    return evaluator != "plain" or bool(columns)
