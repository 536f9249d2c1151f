"""Judge predictions, each task by its own measure, and write scores/<benchmark>.json. Imports no torch."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distilsql.data.benchmark import Benchmark, InstructBenchmark, SqlBenchmark
from distilsql.databases.suite import load_suite
from distilsql.errors import DataError, RunError
from distilsql.metrics.compare import Comparison, compare_predictions
from distilsql.metrics.efficiency import measure_r_ves
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.predictions import count_stripped, read_predictions, read_responses
from distilsql.metrics.rouge import RougeComparison, RougeScores, compare_responses, judge_responses
from distilsql.metrics.scores import Scores
from distilsql.runs.folder import RunFolder, file_name, write_text

AnyScores = Scores | RougeScores
OnProgress = Callable[[int, int], None]


def judge(predictions: Sequence[str], benchmark: Benchmark, golds: GoldResults | None = None) -> float:
    """The number that a task is judged by, 0 to 1: execution accuracy (EX) or mean ROUGE-L.

    `golds` is kept by a caller that judges several times. Raises DataError if a gold query does not run.
    """
    if isinstance(benchmark, InstructBenchmark):
        return judge_responses([predictions], benchmark).rouge_l
    return evaluate(predictions, benchmark, golds=golds).accuracy


def evaluate_file(
    path: Path,
    benchmark: Benchmark,
    *,
    column: str | None = None,
    keep_distinct: bool = False,
    suite: Path | None = None,
    plug_values: bool = False,
    whole: Benchmark | None = None,
    on_progress: OnProgress | None = None,
) -> AnyScores:
    """Scores of anyone's prediction file: EX, or TS on the test suite in the folder `suite`; or ROUGE-L.

    The file may hold predictions for all of `whole`, which `benchmark` was drawn from.

    Raises:
        DataError: the file does not fit the benchmark, or an option is for text-to-SQL and the benchmark is not.
    """
    if isinstance(benchmark, InstructBenchmark):
        _refuse_sql_options(benchmark, column, keep_distinct, suite, plug_values)
        assert whole is None or isinstance(whole, InstructBenchmark), "a draw is of its own kind"
        responses = read_responses(path, benchmark, whole=whole)
        return judge_responses([responses], benchmark, on_progress=on_progress)
    assert whole is None or isinstance(whole, SqlBenchmark), "a draw is of its own kind"
    predictions = read_predictions(path, benchmark, column=column, whole=whole)
    scores = evaluate(
        predictions,
        benchmark,
        keep_distinct=keep_distinct,
        suite=load_suite(suite) if suite else None,
        plug_values=plug_values,
        on_progress=on_progress,
    )
    return replace(scores, stripped=Counter(scores.stripped) + Counter(count_stripped(path)))


def evaluate_run(
    run: RunFolder,
    benchmark: Benchmark,
    *,
    keep_distinct: bool = False,
    suite: Path | None = None,
    temperature: float = 0.0,
    whole: Benchmark | None = None,
    on_progress: OnProgress | None = None,
) -> AnyScores:
    """Scores of a run's predictions, also written into the run: those on a suite, and those with DISTINCT kept, into
    files of their own. `whole` as in `evaluate_file`.

    At a `temperature` above 0, of all that were sampled at it: their mean over seeds (instruction following only).

    Raises:
        RunError: the run has no predictions for this benchmark.
        DataError: an option is for the other task.
    """
    if temperature:
        _refuse_sql_options(benchmark, keep_distinct, suite)
        return _evaluate_samples(run, benchmark, temperature, whole, on_progress)
    path = run.predictions(benchmark.name)
    if not path.exists():
        raise RunError(
            f"{path} does not exist: run `distilsql predict {run.path} --on {benchmark.name}` first."
        )
    scores = evaluate_file(
        path, benchmark, keep_distinct=keep_distinct, suite=suite, whole=whole, on_progress=on_progress
    )
    rules = ("-distinct-kept" if keep_distinct else "") + ("" if suite is None else f"-{suite.name}")
    write_text(run.scores(file_name(benchmark.name) + rules), scores.to_json())
    return scores


def _evaluate_samples(
    run: RunFolder,
    benchmark: Benchmark,
    temperature: float,
    whole: Benchmark | None,
    on_progress: OnProgress | None,
) -> RougeScores:
    files = run.samples(benchmark.name, temperature)
    if not files:
        raise RunError(
            f"{run.path} has no predictions for {benchmark.name} at temperature {temperature:g}: run `distilsql "
            f"predict {run.path} --on {benchmark.name} --temperature {temperature:g} --seed 1` first, for each seed."
        )
    if not isinstance(benchmark, InstructBenchmark):
        first = next(iter(files.values()))
        raise DataError(
            f"Sampled SQL is judged a file at a time: `distilsql evaluate {first} --on {benchmark.name}`."
        )
    assert whole is None or isinstance(whole, InstructBenchmark), "a draw is of its own kind"
    samples = [read_responses(path, benchmark, whole=whole) for path in files.values()]
    scores = judge_responses(
        samples, benchmark, temperature=temperature, seeds=tuple(files), on_progress=on_progress
    )
    write_text(run.scores(benchmark.name, temperature), scores.to_json())
    return scores


def _refuse_sql_options(benchmark: Benchmark, *options: object) -> None:
    if any(options):
        raise DataError(
            f"{benchmark.name} is judged by ROUGE-L here: columns, DISTINCT, suites, plugged values and R-VES are of "
            "text-to-SQL with greedy predictions. Leave the option out."
        )


def with_r_ves(scores: AnyScores, benchmark: Benchmark) -> Scores:
    """BIRD's scores with R-VES measured. Raises DataError if they are not BIRD's."""
    if isinstance(scores, RougeScores) or isinstance(benchmark, InstructBenchmark):
        raise DataError(f"R-VES is BIRD's; {scores.benchmark} is judged by ROUGE-L.")
    return measure_r_ves(scores, benchmark)


def compare_scores(first: AnyScores, second: AnyScores) -> Comparison | RougeComparison:
    """The paired comparison from `first` to `second`. Raises DataError unless they judge the same examples."""
    if isinstance(first, Scores) and isinstance(second, Scores):
        return compare_predictions(first, second)
    if isinstance(first, RougeScores) and isinstance(second, RougeScores):
        return compare_responses(first, second)
    raise DataError(f"{first.metric} and {second.metric} are of different tasks and do not compare.")


def score_lines(scores: AnyScores, *, tables: bool = False) -> Iterator[str]:
    """Scores for the terminal; with `tables`, also by hardness, clause and database, or by length."""
    return _rouge_lines(scores, tables) if isinstance(scores, RougeScores) else _sql_lines(scores, tables)


def _rouge_lines(scores: RougeScores, tables: bool) -> Iterator[str]:
    low, high = scores.interval
    yield (
        f"{scores.metric} on {scores.benchmark}: {100 * scores.rouge_l:.1f} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}), {len(scores.instructions)} examples"
    )
    if scores.temperature:
        each = ", ".join(
            f"{100 * mean:.1f} (seed {seed})"
            for seed, mean in zip(scores.seeds, scores.by_sample(), strict=True)
        )
        yield f"mean of {scores.samples} samples at temperature {scores.temperature:g}: {each}"
    if tables:
        yield "\nby length of the reference"
        yield from (
            f"  {name:<32} {100 * mean.rouge_l:6.1f}  {mean.total} examples"
            for name, mean in scores.by_length().items()
        )


def _sql_lines(scores: Scores, tables: bool) -> Iterator[str]:
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
    if scores.stripped:
        yield "judged without: " + ", ".join(f"{what} ({count})" for what, count in scores.stripped.items())
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
