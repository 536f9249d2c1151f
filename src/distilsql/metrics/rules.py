"""The rules of the evaluators side by side: how queries are read, and when two results are equal.

Spider's and BIRD's are the official ones. "plain" is for own pairs: nothing in the SQL is rewritten, DISTINCT counts,
and results are compared as Spider compares them, but for its oddities; SQL is read as SQLite reads it, where Spider's
order of rows depends on the letters `order by` and its first statement on sqlparse's tokens.
"""

from collections.abc import Sequence

from distilsql.data.golds import rounded
from distilsql.data.layout import Evaluator
from distilsql.databases.job import Row
from distilsql.databases.sql_tokens import orders_its_rows
from distilsql.databases.url import Engine
from distilsql.databases.written_sql import query_in
from distilsql.metrics import bird, execution


def read_queries(
    prediction: str, gold_sql: str, evaluator: Evaluator, *, keep_distinct: bool = False
) -> tuple[str, str]:
    """The predicted and the gold SQL as they are run: Spider's are rewritten, BIRD's run as they stand, and own pairs'
    predictions lose what chat models put around a query (see `databases.written_sql`)."""
    gold = read_gold(gold_sql, evaluator, keep_distinct=keep_distinct)
    if evaluator == "spider":
        return execution.read_prediction(prediction, keep_distinct=keep_distinct), gold
    return query_in(prediction).sql if evaluator == "plain" else prediction, gold


def read_gold(gold_sql: str, evaluator: Evaluator, *, keep_distinct: bool = False) -> str:
    """The gold SQL as it is run."""
    return execution.read_gold(gold_sql, keep_distinct=keep_distinct) if evaluator == "spider" else gold_sql


def results_equal(
    gold_sql: str,
    gold: Sequence[Row],
    predicted: Sequence[Row],
    evaluator: Evaluator,
    engine: Engine = "sqlite",
) -> bool:
    """Whether two whole results are equal; `gold_sql`, as `read_gold` gives it and `engine` reads it, says if the order
    of rows counts (never BIRD's)."""
    if evaluator == "bird":
        return bird.results_equal(gold, predicted)
    if evaluator == "spider":
        return execution.results_equal(gold, predicted, ordered=execution.order_matters(gold_sql))
    ordered = orders_its_rows(gold_sql, engine)
    return execution.results_equal(gold, predicted, ordered=ordered, official=False)


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


def is_result(columns: Sequence[str], evaluator: Evaluator) -> bool:
    """Whether what ran gave a result, if an empty one. An own pair's prediction must have columns: a comment, `;` or
    BEGIN has none."""
    return evaluator != "plain" or bool(columns)
