"""Judge predictions as the official evaluators do, in worker processes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distilsql.data.benchmark import Evaluator, SqlBenchmark
from distilsql.data.golds import GOLD_TIMEOUT_S, PREDICTION_TIMEOUT_S
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.written_sql import query_in
from distilsql.errors import DataError
from distilsql.metrics.golds import BrokenGolds, GoldResults
from distilsql.metrics.judging import PendingVerdict, Session, gold_job, judge, pending_verdict
from distilsql.metrics.plugging import plugged
from distilsql.metrics.rules import read_gold
from distilsql.metrics.scores import LeftOut, Scores, Verdict

if TYPE_CHECKING:
    from distilsql.metrics.suites.suite import Suite


def evaluate(
    predictions: Sequence[str],
    benchmark: SqlBenchmark,
    *,
    keep_distinct: bool = False,
    timeout_s: float = PREDICTION_TIMEOUT_S,
    gold_timeout_s: float = GOLD_TIMEOUT_S,
    leave_out: Mapping[str, str] | None = None,
    workers: int | None = None,
    suite: "Suite | None" = None,
    plug_values: bool = False,
    pool: ExecutionPool | None = None,
    golds: GoldResults | None = None,
) -> Scores:
    """The verdict on each prediction, in the order of the benchmark's examples, by the benchmark's own evaluator.

    Time limits are of the processor's time: a query that reaches one by the clock without having had the processor for
    so long is run again by itself. With a `suite`, a prediction must be right on the benchmark's database and on every
    database of the suite (not BIRD's). With `plug_values` a wrong prediction is tried again with the gold's values in
    place of its own, and the metric's name says so (not BIRD's). `leave_out` maps ids of examples that are not judged
    to the reason (see `broken_golds`); the metric's name counts them. `pool` and `golds` are kept by a caller that
    judges several files; otherwise they are made here. Raises DataError if the number of predictions is not that of
    the examples or an option is not the benchmark's; BrokenGolds if gold queries do not run; DatabaseUnavailable if a
    database is missing, cannot be read or changes meanwhile: that is never counted against a prediction.
    """
    _check(predictions, benchmark, keep_distinct, suite, plug_values)
    left_out = _left_out(benchmark, leave_out or {})
    unjudged = {example.example_id for example in left_out}
    pending = [
        pending_verdict(prediction, example, benchmark, keep_distinct)
        for prediction, example in zip(predictions, benchmark.examples, strict=True)
        if example.example_id not in unjudged
    ]
    if not pending:
        raise DataError(f"Every example of {benchmark.name} is left out, so there is nothing to judge.")
    with ExecutionPool(workers) if pool is None else nullcontext(pool) as open_pool:
        session = Session(
            benchmark.evaluator,
            timeout_s,
            gold_timeout_s,
            open_pool,
            golds or GoldResults(),
            _places(benchmark),
        )
        verdicts = _judge_everywhere(pending, suite, session)
        if plug_values:
            verdicts = _judge_plugged(verdicts, pending, suite, session)
        databases = session.fingerprints(benchmark)
    metric = ("EX" if suite is None else f"TS on {suite.label}") + (
        " with plugged values" if plug_values else ""
    )
    if left_out:
        metric += f" without {len(left_out)} of {len(benchmark.examples)}"
    return Scores(
        benchmark.name,
        benchmark.evaluator,
        metric,
        keep_distinct,
        tuple(verdicts),
        left_out,
        databases=databases,
        stripped=_stripped(predictions, benchmark),
    )


def _stripped(predictions: Sequence[str], benchmark: SqlBenchmark) -> dict[str, int]:
    """How many own-pair predictions had text around the query removed, by kind (see `read_queries`)."""
    if benchmark.evaluator != "plain":
        return {}
    return dict(Counter(what for prediction in predictions for what in query_in(prediction).stripped))


def _places(benchmark: SqlBenchmark) -> dict[str, str]:
    return {example_id: place for place, example_id in benchmark.place_ids.items()}


def _left_out(benchmark: SqlBenchmark, leave_out: Mapping[str, str]) -> tuple[LeftOut, ...]:
    """Raises DataError for an unknown id, since a mistyped one would leave nothing out."""
    reasons = {benchmark.place_ids.get(name, name): reason for name, reason in leave_out.items()}
    known = {example.example_id for example in benchmark.examples}
    unknown = next((name for name in reasons if name not in known), None)
    if unknown is not None:
        raise DataError(f"{benchmark.name} has no example {unknown!r} to leave out; check the id.")
    return tuple(
        LeftOut(example.example_id, reasons[example.example_id])
        for example in benchmark.examples
        if example.example_id in reasons
    )


def run_golds(
    benchmark: SqlBenchmark,
    golds: GoldResults,
    *,
    keep_distinct: bool = False,
    timeout_s: float = GOLD_TIMEOUT_S,
    workers: int | None = None,
    pool: ExecutionPool | None = None,
) -> None:
    """Run every gold query into `golds`, for `evaluate` to find there. Raises BrokenGolds if any do not run."""
    jobs = [
        gold_job(
            benchmark.databases[example.db_id].path,
            read_gold(example.gold_sql, benchmark.evaluator, keep_distinct=keep_distinct),
            benchmark.evaluator,
            timeout_s,
        )
        for example in benchmark.examples
    ]
    with ExecutionPool(workers) if pool is None else nullcontext(pool) as open_pool:
        places = _places(benchmark)
        names = [places.get(example.example_id, example.example_id) for example in benchmark.examples]
        golds.fetch(jobs, names, open_pool, benchmark.evaluator)


def broken_golds(
    benchmark: SqlBenchmark,
    golds: GoldResults,
    *,
    keep_distinct: bool = False,
    timeout_s: float = GOLD_TIMEOUT_S,
    pool: ExecutionPool | None = None,
) -> dict[str, str]:
    """The examples whose gold query cannot be used, by id, with the reason; `evaluate` can leave them out."""
    try:
        run_golds(benchmark, golds, keep_distinct=keep_distinct, timeout_s=timeout_s, pool=pool)
    except BrokenGolds as error:
        return {
            benchmark.place_ids.get(gold.name, gold.name): f"its gold does not run ({gold.fault})"
            for gold in error.broken
        }
    return {}


def _check(
    predictions: Sequence[str],
    benchmark: SqlBenchmark,
    keep_distinct: bool,
    suite: "Suite | None",
    plug_values: bool,
) -> None:
    if not benchmark.examples:
        raise DataError(f"{benchmark.name} has no examples, so there is nothing to judge.")
    if len(predictions) != len(benchmark.examples):
        raise DataError(
            f"{len(predictions)} predictions for the {len(benchmark.examples)} examples of {benchmark.name}; give "
            "one prediction for each example, in the benchmark's order."
        )
    if (suite is not None or plug_values) and benchmark.evaluator == "bird":
        raise DataError("Test suites and plugged values are Spider's; judge BIRD without them.")
    if keep_distinct and benchmark.evaluator != "spider":
        raise DataError(
            f"{benchmark.name} is judged with every DISTINCT as it stands; keep_distinct is for Spider, whose "
            "evaluator removes it. Leave the option out."
        )


def _suite_databases(suite: "Suite", draft: Verdict, evaluator: Evaluator) -> tuple[Path, ...]:
    return suite.databases(draft.db_id, read_gold(draft.gold_sql, evaluator, keep_distinct=True))


def _judge_everywhere(
    pending: Sequence[PendingVerdict], suite: "Suite | None", session: Session
) -> list[Verdict]:
    verdicts = judge(pending, session)
    return verdicts if suite is None else _judge_on_suite(verdicts, pending, suite, session)


def _judge_plugged(
    verdicts: Sequence[Verdict], pending: Sequence[PendingVerdict], suite: "Suite | None", session: Session
) -> list[Verdict]:
    """Judge wrong predictions again: right if any exchange of their values is right on every database."""
    wrong = [index for index, verdict in enumerate(verdicts) if not verdict.is_correct]
    copies = [
        (index, replace(pending[index], sql=sql))
        for index in wrong
        for sql in plugged(pending[index].sql, pending[index].gold_sql)
    ]
    found = list(verdicts)
    tried = _judge_everywhere([copy for _, copy in copies], suite, session)
    for (index, copy), verdict in zip(copies, tried, strict=True):
        if verdict.is_correct and not found[index].is_correct:
            found[index] = replace(verdict, message=f"right with the gold's values: {copy.sql}")
    return found


def _judge_on_suite(
    verdicts: Sequence[Verdict], pending: Sequence[PendingVerdict], suite: "Suite", session: Session
) -> list[Verdict]:
    """A right prediction must be right on every database of the suite; one that is already wrong is not run again.

    If the suite shows a prediction to be wrong, its message names the first database where it differs.
    """
    passed = [index for index, verdict in enumerate(verdicts) if verdict.is_correct]
    copies = [
        (index, replace(pending[index], path=path))
        for index in passed
        for path in _suite_databases(suite, pending[index].draft, session.evaluator)
    ]
    found = list(verdicts)
    judged = judge([copy for _, copy in copies], session, "judging on the suite")
    for (index, copy), verdict in zip(copies, judged, strict=True):
        if found[index].is_correct and not verdict.is_correct:
            message = f"on {copy.path.name}: {verdict.message or verdict.outcome.value}"
            found[index] = replace(verdict, message=message)
    return found
