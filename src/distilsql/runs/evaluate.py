"""Judge predictions by execution and write scores/<benchmark>.json. Imports no torch."""

from collections.abc import Callable
from pathlib import Path

from distilsql.data.benchmark import Benchmark
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
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of anyone's prediction file."""
    predictions = read_predictions(path, benchmark, column=column)
    return evaluate(predictions, benchmark, keep_distinct=keep_distinct, on_progress=on_progress)


def evaluate_run(
    run: RunFolder,
    benchmark: Benchmark,
    *,
    keep_distinct: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of a run's predictions, also written into the run.

    Raises:
        RunError: the run has no predictions for this benchmark.
    """
    path = run.predictions(benchmark.name)
    if not path.exists():
        raise RunError(
            f"{path} does not exist: run `distilsql predict {run.path} --on {benchmark.name}` first."
        )
    scores = evaluate_file(path, benchmark, keep_distinct=keep_distinct, on_progress=on_progress)
    write_text(run.scores(benchmark.name), scores.to_json())
    return scores
