"""The quality of a teacher's queries before a student is trained on them: how many parse, run, and are right."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlglot
from sqlglot.errors import SqlglotError

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.example import Example
from distilsql.data.layout import DECODING
from distilsql.databases.job import Execution, Job, Outcome, make_job, require_available
from distilsql.databases.normalise import without_comments
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.url import DIALECTS, Engine
from distilsql.databases.written_sql import query_in
from distilsql.metrics.rules import read_queries, results_equal
from distilsql.progress import progress

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
# A teacher is expected to write SQL that runs; below this share something is wrong with it or with its prompt.
LOW_SHARE_THAT_RUNS = 0.8


@dataclass(frozen=True)
class TeacherCheck:
    """Of `completions`, how many parse, run within their limits, and return what gold returns.

    `judged` are those whose gold query runs: the others can be neither right nor wrong.
    """

    completions: int
    parse: int
    run: int
    judged: int
    match_gold: int

    @property
    def share_that_runs(self) -> float:
        return self.run / self.completions

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "share_that_parses": self.parse / self.completions,
            "share_that_runs": self.share_that_runs,
            "share_that_matches_gold": self._share_that_matches,
        }

    @property
    def _share_that_matches(self) -> float | None:
        return self.match_gold / self.judged if self.judged else None

    def say(self) -> None:
        """Log the shares; warn of queries that mostly do not run."""
        matches = "unknown" if self._share_that_matches is None else f"{self._share_that_matches:.1%}"
        log.info(
            f"The teacher's {self.completions:,} queries: {self.parse / self.completions:.1%} parse, "
            f"{self.share_that_runs:.1%} run, {matches} return the gold's result."
        )
        if self.share_that_runs < LOW_SHARE_THAT_RUNS:
            log.warning(
                f"Only {self.share_that_runs:.1%} of the teacher's queries run, and the student is trained on all of "
                "them. Fine-tune the teacher on this data first (method sft), lower generation.temperature, or choose "
                "a method that trains on gold."
            )


def queries_that_run(queries: Mapping[str, str], benchmark: SqlBenchmark, pool: ExecutionPool) -> set[str]:
    """The example ids whose query runs within its limits. Raises DatabaseUnavailable if a database cannot be read."""
    examples = [example for example in benchmark.examples if queries.get(example.example_id)]
    jobs = [_job(example, _read(queries, example, benchmark)[0], benchmark) for example in examples]
    results = pool.map(jobs, lambda index, execution: require_available(execution, jobs[index].path))
    return {
        example.example_id
        for example, execution in zip(examples, results, strict=True)
        if execution.outcome is Outcome.ROWS
    }


def _text(queries: Mapping[str, str], example: Example, benchmark: SqlBenchmark) -> str:
    """The query as a prediction is read."""
    return without_comments(
        query_in(queries[example.example_id]).sql, benchmark.databases[example.db_id].engine
    )


def _read(queries: Mapping[str, str], example: Example, benchmark: SqlBenchmark) -> tuple[str, str]:
    """The query and its gold as the benchmark's evaluator runs them."""
    return read_queries(_text(queries, example, benchmark), example.gold_sql, benchmark.evaluator)


def check_teacher_queries(
    queries: Mapping[str, str], benchmark: SqlBenchmark, *, workers: int | None = None
) -> TeacherCheck:
    """Parse and run the query of each example id, and compare its result with gold's as the benchmark's evaluator
    does. `queries` holds at least one; an empty one runs nothing. Raises DatabaseUnavailable if a database cannot be
    read."""
    examples = [example for example in benchmark.examples if example.example_id in queries]
    engines = [benchmark.databases[example.db_id].engine for example in examples]
    texts = [_text(queries, example, benchmark) for example in examples]
    read = [_read(queries, example, benchmark) for example in examples]
    jobs = [_job(example, sql, benchmark) for example, (sql, _) in zip(examples, read, strict=True)]
    gold_jobs = [_job(example, gold, benchmark) for example, (_, gold) in zip(examples, read, strict=True)]
    with ExecutionPool(workers) as pool, progress("running the teacher's queries", len(jobs)) as advance:

        def judge(index: int, gold: Execution) -> tuple[bool, bool | None]:
            path = gold_jobs[index].path
            require_available(gold, path)
            found = require_available(pool.run(jobs[index]), path) if texts[index] else None
            advance()
            runs = found is not None and found.outcome is Outcome.ROWS
            if gold.outcome is not Outcome.ROWS:
                return runs, None
            return runs, found is not None and runs and results_equal(
                gold_jobs[index].sql, gold.rows, found.rows, benchmark.evaluator, gold_jobs[index].engine
            )

        verdicts = pool.map(gold_jobs, judge)
    judged = [matches for _, matches in verdicts if matches is not None]
    return TeacherCheck(
        completions=len(examples),
        parse=sum(map(parses, texts, engines)),
        run=sum(runs for runs, _ in verdicts),
        judged=len(judged),
        match_gold=sum(judged),
    )


def parses(sql: str, engine: Engine = "sqlite") -> bool:
    try:
        return sqlglot.parse_one(sql, dialect=DIALECTS[engine]) is not None
    except (SqlglotError, RecursionError):
        return False


def _job(example: Example, sql: str, benchmark: SqlBenchmark) -> Job:
    """A job without the evaluator's limit on rows, since whether a query runs does not depend on its gold."""
    path, decoding = benchmark.databases[example.db_id].path, DECODING[benchmark.evaluator]
    return make_job(path, sql, timeout_s=TIMEOUT_S, decoding=decoding)
