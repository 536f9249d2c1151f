"""Judge predictions as the official evaluators do, in worker processes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distilsql.data.benchmark import Evaluator, SqlBenchmark
from distilsql.data.example import Example
from distilsql.data.golds import GOLD_TIMEOUT_S, PREDICTION_TIMEOUT_S, is_held_up, with_patience
from distilsql.data.source import DECODING
from distilsql.databases.execute import Execution, Job, Outcome, make_job, require_available
from distilsql.databases.fingerprint import take_fingerprint
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.written_sql import query_in
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.metrics import bird
from distilsql.metrics.golds import BrokenGolds, GoldResults
from distilsql.metrics.hardness import clauses_of, hardness
from distilsql.metrics.plugging import plugged
from distilsql.metrics.rules import is_result, near_miss, read_gold, read_queries, results_equal
from distilsql.metrics.scores import LeftOut, Scores, Verdict, VerdictOutcome
from distilsql.progress import progress

if TYPE_CHECKING:
    from distilsql.databases.suite import Suite


_OUTCOMES = {
    Outcome.SQL_ERROR: VerdictOutcome.SQL_ERROR,
    Outcome.DENIED: VerdictOutcome.SQL_ERROR,
    Outcome.TIMEOUT: VerdictOutcome.TIMEOUT,
    Outcome.TOO_LARGE: VerdictOutcome.TOO_LARGE,
    Outcome.TOO_MANY_ROWS: VerdictOutcome.WRONG,
    Outcome.CRASHED: VerdictOutcome.CRASHED,
}


@dataclass(frozen=True)
class _Task:
    """One prediction on one database file, read and ready to run. `draft` is its verdict if it is not run."""

    draft: Verdict
    path: Path
    gold_sql: str
    sql: str


@dataclass(frozen=True)
class _Session:
    """What all tasks of one evaluation share."""

    evaluator: Evaluator
    timeout_s: float
    gold_timeout_s: float
    pool: ExecutionPool
    golds: GoldResults
    places: Mapping[str, str]  # of own pairs, by id: what a person finds in the file
    states: dict[Path, tuple[int, ...]] = field(default_factory=dict)

    def check(self, execution: Execution, task: "_Task", what: str) -> Execution:
        """`execution` itself. Raises DatabaseUnavailable if the database could not be read, or is in another state than
        when the first query ran on it: then no verdict on it means anything."""
        require_available(execution, task.path, f"{what} of {task.draft.example_id} ran")
        for state in execution.states:
            self.check_state(task.path, state)
        return execution

    def check_state(self, path: Path, state: tuple[int, ...]) -> None:
        if self.states.setdefault(path, state) != state:
            raise DatabaseUnavailable(
                f"{path} changed while it was judged, so golds and predictions ran on different contents. Judge a copy "
                f'that stands still: sqlite3 {path.name} ".backup copy.sqlite".'
            )

    def fingerprints(self, benchmark: SqlBenchmark) -> dict[str, str]:
        """By database id, what was judged on."""
        taken = {}
        for db_id in sorted({example.db_id for example in benchmark.examples}):
            path = benchmark.databases[db_id].path
            fingerprint = take_fingerprint(path, self.pool)
            self.check_state(path, fingerprint.state)
            taken[db_id] = fingerprint.short
        return taken


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
    database is missing, cannot be read or changes meanwhile: what is the database's fault is never a prediction's.
    """
    _check(predictions, benchmark, keep_distinct, suite, plug_values)
    left_out = _left_out(benchmark, leave_out or {})
    unjudged = {example.example_id for example in left_out}
    tasks = [
        _read(prediction, example, benchmark, keep_distinct)
        for prediction, example in zip(predictions, benchmark.examples, strict=True)
        if example.example_id not in unjudged
    ]
    if not tasks:
        raise DataError(f"Every example of {benchmark.name} is left out, so there is nothing to judge.")
    with ExecutionPool(workers) if pool is None else nullcontext(pool) as open_pool:
        session = _Session(
            benchmark.evaluator,
            timeout_s,
            gold_timeout_s,
            open_pool,
            golds or GoldResults(),
            _places(benchmark),
        )
        verdicts = _judge_everywhere(tasks, suite, session)
        if plug_values:
            verdicts = _judge_plugged(verdicts, tasks, suite, session)
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
    """What own pairs' predictions were judged without (see `read_queries`)."""
    if benchmark.evaluator != "plain":
        return {}
    return dict(Counter(what for prediction in predictions for what in query_in(prediction).stripped))


def _places(benchmark: SqlBenchmark) -> dict[str, str]:
    return {example_id: place for place, example_id in benchmark.place_ids.items()}


def _left_out(benchmark: SqlBenchmark, leave_out: Mapping[str, str]) -> tuple[LeftOut, ...]:
    """Raises DataError for an id that no example has: one mistyped would leave nothing out."""
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
        _gold_job(
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
    """The examples whose gold query cannot judge anything, by id, and why: what `evaluate` can leave out."""
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


def _read(prediction: str, example: Example, benchmark: SqlBenchmark, keep_distinct: bool) -> _Task:
    database = benchmark.databases.get(example.db_id)
    if database is None:
        raise DataError(
            f"Example {example.example_id} is about {example.db_id}, which {benchmark.name} lacks."
        )
    sql, gold_sql = read_queries(
        prediction, example.gold_sql, benchmark.evaluator, keep_distinct=keep_distinct
    )
    level: str = example.difficulty or "unlabelled"
    if benchmark.evaluator != "bird":
        level = hardness(example.gold_sql)
    draft = Verdict(
        example_id=example.example_id,
        db_id=example.db_id,
        level=level,
        clauses=clauses_of(example.gold_sql),
        question=example.question,
        gold_sql=example.gold_sql,
        predicted_sql=prediction,
        outcome=VerdictOutcome.EMPTY,
    )
    return _Task(draft, database.path, gold_sql, sql)


def _judge(tasks: Sequence[_Task], session: _Session, what: str = "judging") -> list[Verdict]:
    """The verdict on each task. Tasks that would run the same statement on the same file share one execution."""
    golds = [
        session.check(gold, task, "the gold query")
        for task, gold in zip(tasks, _gold_executions(tasks, session), strict=True)
    ]
    verdicts = [task.draft for task in tasks]
    waiting: dict[Job, list[int]] = {}
    for index, (task, gold) in enumerate(zip(tasks, golds, strict=True)):
        if task.sql == task.gold_sql:
            verdicts[index] = _verdict(task, gold, _repeated(gold, session), session)
        elif task.sql.strip() or session.evaluator == "bird":
            # BIRD runs an empty one, too: it has no rows, and is right if the gold has none.
            waiting.setdefault(_job(task, gold, session), []).append(index)
    jobs, done = list(waiting), len(tasks) - sum(map(len, waiting.values()))
    with progress(what, len(tasks), done=done) as advance:

        def then(job_index: int, predicted: Execution) -> Execution:
            session.check(predicted, tasks[waiting[jobs[job_index]][0]], "the prediction")
            for index in waiting[jobs[job_index]]:
                verdicts[index] = _verdict(tasks[index], golds[index], predicted, session)
            advance(len(waiting[jobs[job_index]]))
            return replace(predicted, rows=())

        executions = session.pool.map(jobs, then)
    for job_index, execution in enumerate(executions):
        if is_held_up(execution, jobs[job_index].limits.timeout_s):
            first = tasks[waiting[jobs[job_index]][0]]
            again = session.check(session.pool.run(with_patience(jobs[job_index])), first, "the prediction")
            is_starved = is_held_up(again, jobs[job_index].limits.timeout_s)
            for index in waiting[jobs[job_index]]:
                verdict = _verdict(tasks[index], golds[index], again, session)
                verdicts[index] = _undecided(verdict) if is_starved else verdict
    return verdicts


def _undecided(verdict: Verdict) -> Verdict:
    message = "the machine was too busy to say whether the query keeps its time limit; judge it again"
    return replace(verdict, outcome=VerdictOutcome.UNDECIDED, message=message)


def _gold_executions(tasks: Sequence[_Task], session: _Session) -> list[Execution]:
    jobs = [_gold_job(task.path, task.gold_sql, session.evaluator, session.gold_timeout_s) for task in tasks]
    ids = [task.draft.example_id for task in tasks]
    names = [session.places.get(example_id, example_id) for example_id in ids]
    return session.golds.fetch(jobs, names, session.pool, session.evaluator)


def _gold_job(path: Path, gold_sql: str, evaluator: Evaluator, timeout_s: float) -> Job:
    return make_job(path, gold_sql, timeout_s=timeout_s, decoding=DECODING[evaluator])


def _job(task: _Task, gold: Execution, session: _Session) -> Job:
    """BIRD's results are sets, and gold and prediction share one time budget; the others' must have as many rows as
    the gold's, so one more row decides."""
    decoding = DECODING[session.evaluator]
    if session.evaluator == "bird":
        remaining_s = max(0.001, session.timeout_s - gold.cpu_seconds)
        return make_job(task.path, task.sql, timeout_s=remaining_s, decoding=decoding)
    rows = len(gold.rows)
    return make_job(task.path, task.sql, timeout_s=session.timeout_s, max_rows=rows, decoding=decoding)


def _repeated(gold: Execution, session: _Session) -> Execution:
    """What running the gold once more gives, as a prediction: too late if BIRD's budget for both is over."""
    if session.evaluator == "bird" and 2 * gold.cpu_seconds > session.timeout_s:
        message = f"gold and prediction together take longer than {session.timeout_s:g} s"
        return Execution(Outcome.TIMEOUT, message=message, seconds=gold.seconds)
    return gold


def _verdict(task: _Task, gold: Execution, predicted: Execution, session: _Session) -> Verdict:
    draft = replace(task.draft, message=predicted.message, seconds=predicted.seconds)
    has_result = predicted.outcome is Outcome.ROWS
    if session.evaluator == "bird":
        draft = replace(draft, soft_f1=bird.soft_f1(gold.rows, predicted.rows) if has_result else 0.0)
    if not has_result:
        return replace(draft, outcome=_OUTCOMES[predicted.outcome])
    if not is_result(predicted.columns, session.evaluator):
        return replace(draft, outcome=VerdictOutcome.EMPTY)
    is_equal = results_equal(task.gold_sql, gold.rows, predicted.rows, session.evaluator)
    if is_equal:
        return replace(draft, outcome=VerdictOutcome.CORRECT)
    message = near_miss(gold.rows, predicted.rows, session.evaluator)
    outcome = VerdictOutcome.WRONG if task.sql.strip() else VerdictOutcome.EMPTY
    return replace(draft, outcome=outcome, message=message)


def _suite_databases(suite: "Suite", draft: Verdict, evaluator: Evaluator) -> tuple[Path, ...]:
    return suite.databases(draft.db_id, read_gold(draft.gold_sql, evaluator, keep_distinct=True))


def _judge_everywhere(tasks: Sequence[_Task], suite: "Suite | None", session: _Session) -> list[Verdict]:
    verdicts = _judge(tasks, session)
    return verdicts if suite is None else _judge_on_suite(verdicts, tasks, suite, session)


def _judge_plugged(
    verdicts: Sequence[Verdict], tasks: Sequence[_Task], suite: "Suite | None", session: _Session
) -> list[Verdict]:
    """Wrong predictions again, right if any exchange of their values is right on every database."""
    wrong = [index for index, verdict in enumerate(verdicts) if not verdict.is_correct]
    copies = [
        (index, replace(tasks[index], sql=sql))
        for index in wrong
        for sql in plugged(tasks[index].sql, tasks[index].gold_sql)
    ]
    found = list(verdicts)
    tried = _judge_everywhere([copy for _, copy in copies], suite, session)
    for (index, copy), verdict in zip(copies, tried, strict=True):
        if verdict.is_correct and not found[index].is_correct:
            found[index] = replace(verdict, message=f"right with the gold's values: {copy.sql}")
    return found


def _judge_on_suite(
    verdicts: Sequence[Verdict], tasks: Sequence[_Task], suite: "Suite", session: _Session
) -> list[Verdict]:
    """Every database of the suite must agree; a prediction that is wrong already is not run again.

    The message of a prediction that the suite finds out names the first database that told it from the gold.
    """
    passed = [index for index, verdict in enumerate(verdicts) if verdict.is_correct]
    copies = [
        (index, replace(tasks[index], path=path))
        for index in passed
        for path in _suite_databases(suite, tasks[index].draft, session.evaluator)
    ]
    found = list(verdicts)
    judged = _judge([copy for _, copy in copies], session, "judging on the suite")
    for (index, copy), verdict in zip(copies, judged, strict=True):
        if found[index].is_correct and not verdict.is_correct:
            message = f"on {copy.path.name}: {verdict.message or verdict.outcome.value}"
            found[index] = replace(verdict, message=message)
    return found
