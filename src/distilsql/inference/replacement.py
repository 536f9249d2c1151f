"""Is a new run's student good enough to replace the one being served? Both answer the same questions."""

import logging
from dataclasses import dataclass, replace

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.example import Example
from distilsql.errors import DataError, DistilSQLError
from distilsql.inference.predict import load_student, predict, recipe_of
from distilsql.inference.prepare import load_data
from distilsql.metrics.compare import Comparison, compare_predictions
from distilsql.metrics.scores import Scores
from distilsql.runs.evaluate import evaluate_run
from distilsql.runs.folder import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replacement:
    """`old` and `new` as judged on the same questions, and how they differ, in shares of 1."""

    old_run: RunFolder
    new_run: RunFolder
    old: Scores
    new: Scores
    comparison: Comparison

    @property
    def is_worse(self) -> bool:
        """Whether the new one has fewer right, by however little: what is served was good enough until now."""
        return self.comparison.difference < 0

    def sentence(self) -> str:
        low, high = (100 * end for end in self.comparison.interval)
        return (
            f"{self.new_run.path} answers {self.new.accuracy:.1%} of the {len(self.new.verdicts)} questions of "
            f"{self.new.benchmark} right, {self.old_run.path} {self.old.accuracy:.1%}: "
            f"{100 * self.comparison.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, "
            f"{len(self.comparison.fixed)} won and {len(self.comparison.broken)} lost, "
            f"p = {self.comparison.mcnemar_p:.2g})."
        )


def compare_with_old(old: RunFolder, new: RunFolder, benchmark: SqlBenchmark) -> Replacement:
    """Judge both runs on `benchmark`, except for questions that either was trained on, which feedback may contain.
    Predictions that are missing in a run are made first.

    Raises:
        RunError: one is no run, or has no model yet.
        DataError: both were trained on every question, or their predictions are not of this benchmark.
    """
    for run in (old, new):
        path = run.predictions(benchmark.name)
        if not path.exists():
            predict(load_student(run), benchmark, path)
    judged = _not_trained_on(benchmark, (old, new))
    if not judged.examples:
        raise DataError(
            f"The runs were trained on every question of {benchmark.name}, so it cannot tell which is better; give "
            "questions that neither has seen: --on test.jsonl."
        )
    before, after = (_scores(run, benchmark, judged) for run in (old, new))
    return Replacement(old, new, before, after, compare_predictions(before, after))


def _scores(run: RunFolder, benchmark: SqlBenchmark, judged: SqlBenchmark) -> Scores:
    """Of the run's predictions for `benchmark`, on the examples of `judged`."""
    scores = evaluate_run(run, benchmark)
    assert isinstance(scores, Scores)
    kept = {example.example_id for example in judged.examples}
    return replace(scores, verdicts=tuple(each for each in scores.verdicts if each.example_id in kept))


def _not_trained_on(benchmark: SqlBenchmark, runs: tuple[RunFolder, ...]) -> SqlBenchmark:
    known = {_asked(example.question) for run in runs for example in _trained_on(run)}
    seen = {example.example_id for example in benchmark.examples if _asked(example.question) in known}
    if seen:
        log.warning(
            f"{len(seen)} of the {len(benchmark.examples)} questions of {benchmark.name} are left out of the "
            "comparison: one of the runs was trained on them."
        )
    return benchmark.without(seen)


def _trained_on(run: RunFolder) -> tuple[Example, ...]:
    """The examples of a run's training; none, with a warning, where they cannot be read any more."""
    try:
        trained_on, _ = load_data(recipe_of(run))
    except (DistilSQLError, OSError) as error:
        log.warning(
            f"What {run.path} was trained on cannot be read, so it is taken to be other questions: {error}"
        )
        return ()
    return trained_on.examples if isinstance(trained_on, SqlBenchmark) else ()


def _asked(question: str) -> str:
    return " ".join(question.lower().split())
