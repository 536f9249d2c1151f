"""Read, run (in worker processes) and judge predictions and their golds: one verdict per database file.

`evaluate` combines these into a whole evaluation, with its test suites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from distilsql.data.benchmark import Evaluator, SqlBenchmark
from distilsql.data.example import Example
from distilsql.data.golds import is_held_up, with_patience
from distilsql.data.layout import DECODING
from distilsql.databases.fingerprint import take_fingerprint
from distilsql.databases.job import Execution, Job, Outcome, make_job, require_available
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.url import Place, engine_of, file_of
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.metrics import bird
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.hardness import clauses_of, hardness
from distilsql.metrics.rules import is_result, near_miss, read_queries, results_equal
from distilsql.metrics.scores import Verdict, VerdictOutcome
from distilsql.progress import progress

_OUTCOMES = {
    Outcome.SQL_ERROR: VerdictOutcome.SQL_ERROR,
    Outcome.DENIED: VerdictOutcome.SQL_ERROR,
    Outcome.TIMEOUT: VerdictOutcome.TIMEOUT,
    Outcome.TOO_LARGE: VerdictOutcome.TOO_LARGE,
    Outcome.TOO_MANY_ROWS: VerdictOutcome.WRONG,
    Outcome.CRASHED: VerdictOutcome.CRASHED,
}


@dataclass(frozen=True)
class PendingVerdict:
    """One prediction on one database, read and ready to run. `draft` is its verdict if it is not run."""

    draft: Verdict
    path: Place
    gold_sql: str
    sql: str


@dataclass(frozen=True)
class Session:
    """What all pending verdicts of one evaluation share."""

    evaluator: Evaluator
    timeout_s: float
    gold_timeout_s: float
    pool: ExecutionPool
    golds: GoldResults
    places: Mapping[str, str]  # of own pairs, by id: what a person finds in the file
    states: dict[Place, tuple[int, ...]] = field(default_factory=dict)

    def check(self, execution: Execution, one: PendingVerdict, what: str) -> Execution:
        """`execution` itself. Raises DatabaseUnavailable if the database could not be read, or is in another state than
        when the first query ran on it: then no verdict on it means anything."""
        require_available(execution, one.path, f"{what} of {one.draft.example_id} ran")
        for state in execution.states:
            self.check_state(one.path, state)
        return execution

    def check_state(self, path: Place, state: tuple[int, ...]) -> None:
        if self.states.setdefault(path, state) != state:
            copy = f': sqlite3 {path.name} ".backup copy.sqlite"' if engine_of(path) == "sqlite" else ""
            raise DatabaseUnavailable(
                f"{path} changed during judging, so golds and predictions ran on different contents. Judge a copy "
                f"that does not change{copy}."
            )

    def fingerprints(self, benchmark: SqlBenchmark) -> dict[str, str]:
        """The fingerprint of each database that was judged on, by db_id; a database on a server has none."""
        taken = {}
        for db_id in sorted({example.db_id for example in benchmark.examples}):
            path = benchmark.databases[db_id].path
            if file_of(path) is None:
                continue
            fingerprint = take_fingerprint(path, self.pool)
            self.check_state(path, fingerprint.state)
            taken[db_id] = fingerprint.short
        return taken


def pending_verdict(
    prediction: str, example: Example, benchmark: SqlBenchmark, keep_distinct: bool
) -> PendingVerdict:
    """Raises DataError if the benchmark has no database for the example."""
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
    return PendingVerdict(draft, database.path, gold_sql, sql)


def judge(pending: Sequence[PendingVerdict], session: Session, what: str = "judging") -> list[Verdict]:
    """Every verdict. Those that would run the same statement on the same file share one execution."""
    golds = [
        session.check(gold, one, "the gold query")
        for one, gold in zip(pending, _gold_executions(pending, session), strict=True)
    ]
    verdicts = [one.draft for one in pending]
    waiting: dict[Job, list[int]] = {}
    for index, (one, gold) in enumerate(zip(pending, golds, strict=True)):
        if one.sql == one.gold_sql:
            verdicts[index] = _verdict(one, gold, _repeated(gold, session), session)
        elif one.sql.strip() or session.evaluator == "bird":
            # BIRD runs an empty one, too: it has no rows, and is right if the gold has none.
            waiting.setdefault(_job(one, gold, session), []).append(index)
    jobs, done = list(waiting), len(pending) - sum(map(len, waiting.values()))
    with progress(what, len(pending), done=done) as advance:

        def then(job_index: int, predicted: Execution) -> Execution:
            session.check(predicted, pending[waiting[jobs[job_index]][0]], "the prediction")
            for index in waiting[jobs[job_index]]:
                verdicts[index] = _verdict(pending[index], golds[index], predicted, session)
            advance(len(waiting[jobs[job_index]]))
            return replace(predicted, rows=())

        executions = session.pool.map(jobs, then)
    for job_index, execution in enumerate(executions):
        if is_held_up(execution, jobs[job_index].limits.timeout_s):
            first = pending[waiting[jobs[job_index]][0]]
            again = session.check(session.pool.run(with_patience(jobs[job_index])), first, "the prediction")
            is_starved = is_held_up(again, jobs[job_index].limits.timeout_s)
            for index in waiting[jobs[job_index]]:
                verdict = _verdict(pending[index], golds[index], again, session)
                verdicts[index] = _undecided(verdict) if is_starved else verdict
    return verdicts


def _undecided(verdict: Verdict) -> Verdict:
    message = "the machine was too busy to say whether the query keeps its time limit; judge it again"
    return replace(verdict, outcome=VerdictOutcome.UNDECIDED, message=message)


def _gold_executions(pending: Sequence[PendingVerdict], session: Session) -> list[Execution]:
    jobs = [gold_job(one.path, one.gold_sql, session.evaluator, session.gold_timeout_s) for one in pending]
    ids = [one.draft.example_id for one in pending]
    names = [session.places.get(example_id, example_id) for example_id in ids]
    return session.golds.fetch(jobs, names, session.pool, session.evaluator)


def gold_job(path: Place, gold_sql: str, evaluator: Evaluator, timeout_s: float) -> Job:
    """The job of a gold query, the same wherever it is run, so that its result is found again."""
    return make_job(path, gold_sql, timeout_s=timeout_s, decoding=DECODING[evaluator])


def _job(one: PendingVerdict, gold: Execution, session: Session) -> Job:
    """BIRD's results are sets, and gold and prediction share one time budget; the others' must have as many rows as
    the gold's, so one more row decides."""
    decoding = DECODING[session.evaluator]
    if session.evaluator == "bird":
        remaining_s = max(0.001, session.timeout_s - gold.cpu_seconds)
        return make_job(one.path, one.sql, timeout_s=remaining_s, decoding=decoding)
    rows = len(gold.rows)
    return make_job(one.path, one.sql, timeout_s=session.timeout_s, max_rows=rows, decoding=decoding)


def _repeated(gold: Execution, session: Session) -> Execution:
    """What running the gold once more gives, as a prediction: too late if BIRD's budget for both is over."""
    if session.evaluator == "bird" and 2 * gold.cpu_seconds > session.timeout_s:
        message = f"gold and prediction together take longer than {session.timeout_s:g} s"
        return Execution(Outcome.TIMEOUT, message=message, seconds=gold.seconds)
    return gold


def _verdict(one: PendingVerdict, gold: Execution, predicted: Execution, session: Session) -> Verdict:
    draft = replace(one.draft, message=predicted.message, seconds=predicted.seconds)
    has_result = predicted.outcome is Outcome.ROWS
    if session.evaluator == "bird":
        draft = replace(draft, soft_f1=bird.soft_f1(gold.rows, predicted.rows) if has_result else 0.0)
    if not has_result:
        return replace(draft, outcome=_OUTCOMES[predicted.outcome])
    if not is_result(predicted.columns, session.evaluator):
        return replace(draft, outcome=VerdictOutcome.EMPTY)
    is_equal = results_equal(one.gold_sql, gold.rows, predicted.rows, session.evaluator, engine_of(one.path))
    if is_equal:
        return replace(draft, outcome=VerdictOutcome.CORRECT)
    message = near_miss(gold.rows, predicted.rows, session.evaluator)
    outcome = VerdictOutcome.WRONG if one.sql.strip() else VerdictOutcome.EMPTY
    return replace(draft, outcome=outcome, message=message)
