"""Measure BIRD's R-VES: how fast right predictions are compared with their golds."""

from dataclasses import replace

from distilsql.data.benchmark import SqlBenchmark
from distilsql.databases.job import Job, Outcome, make_job, require_available
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DataError
from distilsql.metrics import bird
from distilsql.metrics.scores import Scores, Verdict
from distilsql.progress import progress

OFFICIAL_REPEATS = 100


def measure_r_ves(
    scores: Scores,
    benchmark: SqlBenchmark,
    *,
    repeats: int = OFFICIAL_REPEATS,
    timeout_s: float = bird.BUDGET_S,
) -> Scores:
    """The same scores with every verdict's `reward`. Gold and prediction run in turn, one at a time, `repeats` times.

    A wrong prediction's reward is 0. Raises DataError if `scores` are not BIRD's or not of this benchmark.
    """
    if scores.evaluator != "bird":
        raise DataError(f"R-VES is BIRD's; {scores.benchmark} is judged by {scores.evaluator}'s rules.")
    if [verdict.example_id for verdict in scores.verdicts] != [e.example_id for e in benchmark.examples]:
        raise DataError(f"These scores are not of {benchmark.name}; give the benchmark they were judged on.")
    rewards = []
    with ExecutionPool(workers=1) as pool, progress("timing queries", len(scores.verdicts)) as advance:
        for verdict in scores.verdicts:
            rewards.append(_reward(verdict, benchmark, repeats, timeout_s, pool))
            advance()
    pairs = zip(scores.verdicts, rewards, strict=True)
    return replace(scores, verdicts=tuple(replace(verdict, reward=reward) for verdict, reward in pairs))


def _reward(
    verdict: Verdict, benchmark: SqlBenchmark, repeats: int, timeout_s: float, pool: ExecutionPool
) -> float:
    if not verdict.is_correct:
        return 0.0
    path = benchmark.databases[verdict.db_id].path
    gold = make_job(path, verdict.gold_sql, timeout_s=timeout_s, decoding="strict")
    predicted = make_job(path, verdict.predicted_sql, timeout_s=timeout_s, decoding="strict")
    seconds = [(_seconds(predicted, pool), _seconds(gold, pool)) for _ in range(repeats)]
    return bird.reward(bird.speed_ratio([g for _, g in seconds], [p for p, _ in seconds]))


def _seconds(job: Job, pool: ExecutionPool) -> float:
    execution = require_available(pool.run(job), job.path)
    if execution.outcome is not Outcome.ROWS:
        raise DataError(
            f"A query that ran before now fails ({execution.message}): {job.sql!r}. Is the machine busy, or has the "
            "database changed?"
        )
    return execution.seconds
