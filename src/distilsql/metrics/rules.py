"""The rules of the two official evaluators side by side: how queries are read, and when two results are equal."""

from collections.abc import Sequence

from distilsql.data.source import Evaluator
from distilsql.databases.execute import Row
from distilsql.metrics import bird, execution


def read_queries(
    prediction: str, gold_sql: str, evaluator: Evaluator, *, keep_distinct: bool = False
) -> tuple[str, str]:
    """The predicted and the gold SQL as they are run: BIRD's as they stand, Spider's rewritten."""
    if evaluator == "bird":
        return prediction, gold_sql
    return (
        execution.read_prediction(prediction, keep_distinct=keep_distinct),
        execution.read_gold(gold_sql, keep_distinct=keep_distinct),
    )


def results_equal(gold_sql: str, gold: Sequence[Row], predicted: Sequence[Row], evaluator: Evaluator) -> bool:
    """Whether two whole results are equal; `gold_sql`, as `read_queries` gives it, says if Spider compares order."""
    if evaluator == "bird":
        return bird.results_equal(gold, predicted)
    return execution.results_equal(gold, predicted, ordered=execution.order_matters(gold_sql))
