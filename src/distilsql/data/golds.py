"""Golds: how long queries may take, when a gold cannot judge anything, and when a tie decides its result."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from distilsql.data.layout import Evaluator
from distilsql.databases.job import Execution, Job, Outcome, Row

# One policy for `evaluate`, `data check` and training, in seconds of the processor: a query that a busy machine held up
# is run again by itself. BIRD's gold and prediction share PREDICTION_TIMEOUT_S.
GOLD_TIMEOUT_S = 120.0
PREDICTION_TIMEOUT_S = 30.0

# A query that was held up is run again for its limit of the processor's time. By the clock it then has so many times
# its limit, and this much more.
PATIENCE = 4
PATIENCE_S = 30.0
# What used so much of its limit on the processor was stopped for its own sake.
_ITS_OWN_FAULT = 0.9
_CLOCK_ERROR_S = 0.05

_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_LEFT_OPEN = re.compile(r"\b(order|limit)\b", re.IGNORECASE)


def gold_fault(gold: Execution, evaluator: Evaluator) -> str:
    """Why a gold that was run judges nothing; '' if it does."""
    if gold.outcome is not Outcome.ROWS:
        return f"{gold.outcome.value}: {gold.message}"
    if evaluator == "plain" and not gold.columns:
        return "no result: what has no columns, such as a comment, is no query"
    return ""


def is_held_up(execution: Execution, timeout_s: float) -> bool:
    """Whether a query was stopped at its limit without having had the processor for that long: the machine's fault."""
    is_timeout = execution.outcome is Outcome.TIMEOUT
    return is_timeout and execution.cpu_seconds + _CLOCK_ERROR_S < _ITS_OWN_FAULT * timeout_s


def with_patience(job: Job) -> Job:
    """The same job, for a second run: its limit is of the processor's time, by the clock it has more."""
    timeout_s = job.limits.timeout_s
    return replace(
        job, limits=replace(job.limits, timeout_s=PATIENCE * timeout_s + PATIENCE_S, cpu_s=timeout_s)
    )


def may_have_ties(sql: str) -> bool:
    """Whether a query orders or cuts its rows, and so may leave open which come first."""
    return bool(_LEFT_OPEN.search(sql))


def tie(sql: str, gold: Sequence[Row], others: Sequence[Sequence[Row]], evaluator: Evaluator) -> str:
    """Which part of a gold's result depends on a tie, '' if none: `others` are its results with ties broken otherwise.

    Numbers count as the same to nine digits: a sum in another order is no tie.
    """
    rows = rounded(gold)
    results = [rounded(other) for other in others]
    if any(Counter(result) != Counter(rows) for result in results):
        return "a tie decides which rows the gold returns"
    if evaluator != "bird" and _ORDERED.search(sql) and any(result != rows for result in results):
        return "a tie decides in which order the gold returns its rows, and order counts"
    return ""


def rounded(rows: Sequence[Row]) -> list[Row]:
    """The same rows with numbers of nine digits: what a sum in another order leaves equal."""
    return [tuple(float(f"{cell:.9g}") if isinstance(cell, float) else cell for cell in row) for row in rows]
