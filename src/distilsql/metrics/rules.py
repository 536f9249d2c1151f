"""The rules of the evaluators side by side: how queries are read, and when two results are equal.

Spider's and BIRD's are the official ones. "plain" is for own pairs: nothing in the SQL is rewritten, DISTINCT counts,
and results are compared as Spider compares them.
"""

from collections.abc import Sequence

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
    # Spider finds ORDER BY only where one space is in it.
    text = gold_sql if evaluator == "spider" else " ".join(gold_sql.split())
    return execution.results_equal(gold, predicted, ordered=execution.order_matters(text))
