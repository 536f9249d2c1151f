"""Judge predictions by execution and write scores/<benchmark>.json. Imports no torch."""

from collections.abc import Callable, Iterator
from pathlib import Path

from distilsql.data.benchmark import Benchmark
from distilsql.databases.suite import load_suite
from distilsql.errors import RunError
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.predictions import read_predictions
from distilsql.metrics.scores import Scores
from distilsql.runs.folder import RunFolder, write_text


def evaluate_file(
    path: Path,
    benchmark: Benchmark,
    *,
    column: str | None = None,
    keep_distinct: bool = False,
    suite: Path | None = None,
    plug_values: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of anyone's prediction file: EX, or TS on the test suite in the folder `suite`."""
    predictions = read_predictions(path, benchmark, column=column)
    return evaluate(
        predictions,
        benchmark,
        keep_distinct=keep_distinct,
        suite=load_suite(suite) if suite else None,
        plug_values=plug_values,
        on_progress=on_progress,
    )


def evaluate_run(
    run: RunFolder,
    benchmark: Benchmark,
    *,
    keep_distinct: bool = False,
    suite: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of a run's predictions, also written into the run (those on a suite under the suite's name too).

    Raises:
        RunError: the run has no predictions for this benchmark.
    """
    path = run.predictions(benchmark.name)
    if not path.exists():
        raise RunError(
            f"{path} does not exist: run `distilsql predict {run.path} --on {benchmark.name}` first."
        )
    scores = evaluate_file(path, benchmark, keep_distinct=keep_distinct, suite=suite, on_progress=on_progress)
    name = benchmark.name if suite is None else f"{benchmark.name}-{suite.name}"
    write_text(run.scores(name), scores.to_json())
    return scores


def score_lines(scores: Scores, *, tables: bool = False) -> Iterator[str]:
    """Scores for the terminal; with `tables`, also by hardness, clause and database."""
    low, high = scores.interval
    yield (
        f"{scores.metric} on {scores.benchmark}: {scores.accuracy:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}), {scores.correct} of {len(scores.verdicts)}"
    )
    for name, value in (("soft-F1", scores.soft_f1), ("R-VES", scores.r_ves)):
        if value is not None:
            yield f"{name}: {value:.1%}" if name == "soft-F1" else f"{name}: {value:.1f}"
    yield f"valid SQL: {scores.valid_sql_rate:.1%}"
    yield ", ".join(f"{outcome.value}: {count}" for outcome, count in scores.outcomes().items() if count)
    if not tables:
        return
    for kind in ("table", "column"):
        names = scores.invented(kind)
        if names:
            shown = ", ".join(f"{name} ({count})" for name, count in list(names.items())[:10])
            yield f"{kind}s that do not exist: {sum(names.values())} times: {shown}"
    for title, table in (
        ("hardness", scores.by_hardness()),
        ("clause of the gold", scores.by_clause()),
        ("database", scores.by_database()),
    ):
        yield f"\nby {title}"
        yield from (
            f"  {name:<32} {tally.accuracy:6.1%}  {tally.correct} of {tally.total}"
            for name, tally in table.items()
        )
