"""Judge predictions, each task by its own measure, and write scores/<benchmark>.json. Imports no torch."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from distilsql.data.benchmark import Benchmark, InstructBenchmark, SqlBenchmark
from distilsql.data.golds import GOLD_TIMEOUT_S, PREDICTION_TIMEOUT_S
from distilsql.databases.pool import ExecutionPool
from distilsql.errors import DataError, RunError
from distilsql.files import check_writable, write_text
from distilsql.metrics.compare import Comparison, compare_predictions
from distilsql.metrics.efficiency import measure_r_ves
from distilsql.metrics.evaluate import broken_golds, evaluate
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.predictions import count_stripped, read_predictions, read_responses
from distilsql.metrics.rouge import RougeComparison, RougeScores, compare_responses, judge_responses
from distilsql.metrics.scores import Scores, VerdictOutcome
from distilsql.metrics.suites.suite import load_suite
from distilsql.runs.folder import RunFolder, file_name

AnyScores = Scores | RougeScores
# What --leave-out calls the examples whose gold cannot judge anything.
BROKEN_GOLDS = "broken-golds"


@dataclass(frozen=True)
class Rules:
    """How text-to-SQL predictions are judged; instruction following knows none of it.

    `suite` is the folder of a test suite (TS instead of EX). `leave_out` holds ids of examples that are not judged, or
    BROKEN_GOLDS for all whose gold cannot judge. Time limits are in seconds; None: those of `data.golds`. `column` is
    the column of a CSV file that holds the SQL; it and `plug_values` are for prediction files, not for runs.
    """

    keep_distinct: bool = False
    suite: Path | None = None
    leave_out: Collection[str] = ()
    timeout_s: float | None = None
    gold_timeout_s: float | None = None
    plug_values: bool = False
    column: str | None = None

    @property
    def prediction_limit_s(self) -> float:
        return self.timeout_s or PREDICTION_TIMEOUT_S

    @property
    def gold_limit_s(self) -> float:
        return self.gold_timeout_s or GOLD_TIMEOUT_S

    @property
    def file_suffix(self) -> str:
        """What tells the scores by these rules from those by the default ones, in a run folder."""
        distinct = "-distinct-kept" if self.keep_distinct else ""
        suite = "" if self.suite is None else f"-{self.suite.name}"
        return distinct + suite + ("-some-left-out" if self.leave_out else "")


PLAIN = Rules()


def judge(predictions: Sequence[str], benchmark: Benchmark, golds: GoldResults | None = None) -> float:
    """The score of a task, 0 to 1: execution accuracy (EX) or mean ROUGE-L.

    A caller that judges several times passes the same `golds`. Raises DataError if a gold query does not run.
    """
    if isinstance(benchmark, InstructBenchmark):
        return judge_responses([predictions], benchmark).rouge_l
    return evaluate(predictions, benchmark, golds=golds).accuracy


def evaluate_predictions(
    predictions: Sequence[str] | Path | str, benchmark: Benchmark, **options: Any
) -> AnyScores:
    """Judge any system's predictions by running them as the benchmark's official evaluator does (see
    docs/evaluation.md), or responses to instructions by ROUGE-L.

    `predictions` is a list in the order of `benchmark.examples`, as `predict` returns it, or a prediction file. Options
    are those of `distilsql.metrics.evaluate.evaluate`, such as `keep_distinct`; for a file, the fields of `Rules` and
    the options of `evaluate_file`. Returns `Scores` with the `accuracy` (0 to 1), its 95 % `interval` and a verdict on
    each prediction, or `RougeScores` with the mean `rouge_l` (0 to 1).

    Raises:
        DataError: the predictions do not fit the benchmark, a gold query does not run, or a database cannot be read.
    """
    if isinstance(predictions, str | Path):
        rules = {field.name: options.pop(field.name) for field in fields(Rules) if field.name in options}
        return evaluate_file(Path(predictions), benchmark, Rules(**rules), **options)
    if isinstance(benchmark, InstructBenchmark):
        _refuse_sql_options(benchmark, *options.values())
        return judge_responses([predictions], benchmark)
    return evaluate(predictions, benchmark, **options)


def evaluate_file(
    path: Path,
    benchmark: Benchmark,
    rules: Rules = PLAIN,
    *,
    whole: Benchmark | None = None,
    is_own: bool = False,
) -> AnyScores:
    """Scores of a prediction file: EX, or TS on a test suite; or ROUGE-L.

    The file may hold predictions for all of `whole`, from which `benchmark` was drawn. In a run's own file (`is_own`)
    all predictions may be empty, since the model wrote them.

    Raises:
        DataError: the file does not fit the benchmark, or a rule is for text-to-SQL and the benchmark is not.
    """
    if isinstance(benchmark, InstructBenchmark):
        _refuse_sql_options(benchmark, rules != PLAIN)
        assert whole is None or isinstance(whole, InstructBenchmark), "a draw is of its own kind"
        responses = read_responses(path, benchmark, whole=whole)
        return judge_responses([responses], benchmark)
    assert whole is None or isinstance(whole, SqlBenchmark), "a draw is of its own kind"
    suite = load_suite(rules.suite) if rules.suite else None
    drawn = {example.example_id for example in benchmark.examples}
    golds = GoldResults()
    with ExecutionPool() as pool:
        unjudged = _reasons(rules.leave_out, whole or benchmark)
        if BROKEN_GOLDS in rules.leave_out:
            unjudged |= broken_golds(
                benchmark.without(unjudged),
                golds,
                keep_distinct=rules.keep_distinct,
                timeout_s=rules.gold_limit_s,
                pool=pool,
            )
        predictions = read_predictions(
            path, benchmark, column=rules.column, whole=whole, may_lack=unjudged, may_be_empty=is_own
        )
        scores = evaluate(
            predictions,
            benchmark,
            keep_distinct=rules.keep_distinct,
            timeout_s=rules.prediction_limit_s,
            gold_timeout_s=rules.gold_limit_s,
            leave_out={example_id: unjudged[example_id] for example_id in drawn & unjudged.keys()},
            suite=suite,
            plug_values=rules.plug_values,
            pool=pool,
            golds=golds,
        )
    return replace(scores, stripped=Counter(scores.stripped) + Counter(count_stripped(path)))


def _reasons(leave_out: Collection[str], benchmark: SqlBenchmark) -> dict[str, str]:
    """Why each example that is named is not judged, by its id. Raises DataError for an id that no example has: one
    mistyped would leave nothing out."""
    known = {example.example_id for example in benchmark.examples}
    ids = {name: benchmark.place_ids.get(name, name) for name in leave_out if name != BROKEN_GOLDS}
    for name, example_id in ids.items():
        if example_id not in known:
            raise DataError(
                f"{benchmark.name} has no example {name!r} to leave out; check the id, or leave out {BROKEN_GOLDS}."
            )
    return dict.fromkeys(ids.values(), "as was asked for")


def evaluate_run(
    run: RunFolder,
    benchmark: Benchmark,
    rules: Rules = PLAIN,
    *,
    temperature: float = 0.0,
    whole: Benchmark | None = None,
) -> AnyScores:
    """Scores of a run's predictions, also written into the run. Options, and what is raised: those of `judge_run`."""
    scores, place = judge_run(run, benchmark, rules, temperature=temperature, whole=whole)
    write_text(place, scores.to_json())
    return scores


def judge_run(
    run: RunFolder,
    benchmark: Benchmark,
    rules: Rules = PLAIN,
    *,
    temperature: float = 0.0,
    whole: Benchmark | None = None,
) -> tuple[AnyScores, Path]:
    """Scores of a run's predictions, and the file in the run where they belong: those on a suite, those with DISTINCT
    kept and those with examples left out have files of their own.

    At a `temperature` above 0, of all that were sampled at it: their mean over seeds (instruction following only).

    Raises:
        RunError: the run has no predictions for this benchmark, or the file could not be written.
        DataError: a rule is for the other task.
    """
    if temperature:
        _refuse_sql_options(benchmark, rules != PLAIN)
        place = run.scores(benchmark.name, temperature)
        check_writable(place)
        return _judge_samples(run, benchmark, temperature, whole=whole), place
    predictions = run.predictions(benchmark.name)
    if not predictions.exists():
        raise RunError(
            f"{predictions} does not exist: run `distilsql predict {run.path} --on {benchmark.name}` first."
        )
    place = run.scores(file_name(benchmark.name) + rules.file_suffix)
    check_writable(place)
    return evaluate_file(predictions, benchmark, rules, whole=whole, is_own=True), place


def _judge_samples(
    run: RunFolder,
    benchmark: Benchmark,
    temperature: float,
    *,
    whole: Benchmark | None,
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
            f"Sampled SQL is judged one file at a time: `distilsql evaluate {first} --on {benchmark.name}`."
        )
    assert whole is None or isinstance(whole, InstructBenchmark), "a draw is of its own kind"
    samples = [read_responses(path, benchmark, whole=whole) for path in files.values()]
    return judge_responses(samples, benchmark, temperature=temperature, seeds=tuple(files))


def _refuse_sql_options(benchmark: Benchmark, *options: object) -> None:
    if any(options):
        raise DataError(
            f"{benchmark.name} is judged by ROUGE-L here; options for columns, DISTINCT, suites, plugged values, "
            "R-VES, time limits and examples to leave out are only for greedy text-to-SQL predictions. Leave them out."
        )


def with_r_ves(scores: AnyScores, benchmark: Benchmark) -> Scores:
    """BIRD's scores with R-VES measured. Raises DataError if they are not BIRD's."""
    if isinstance(scores, RougeScores) or isinstance(benchmark, InstructBenchmark):
        raise DataError(f"R-VES is BIRD's; {scores.benchmark} is judged by ROUGE-L.")
    return measure_r_ves(scores, benchmark.without({example.example_id for example in scores.left_out}))


def compare_scores(first: AnyScores, second: AnyScores) -> Comparison | RougeComparison:
    """The paired comparison from `first` to `second`. Raises DataError unless they judge the same examples."""
    if isinstance(first, Scores) and isinstance(second, Scores):
        return compare_predictions(first, second)
    if isinstance(first, RougeScores) and isinstance(second, RougeScores):
        return compare_responses(first, second)
    raise DataError(f"{first.metric} and {second.metric} are from different tasks and cannot be compared.")


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
    for example in scores.left_out:
        yield f"left out: {example.example_id}, {example.reason}"
    undecided = scores.outcomes()[VerdictOutcome.UNDECIDED]
    if undecided:
        yield (
            f"{undecided} could not be decided, as the machine was too busy, and score nothing; judge again when it is "
            "idle, or with a longer --timeout"
        )
    near = Counter(v.message for v in scores.verdicts if v.message.startswith("the gold's rows "))
    for how, count in near.items():
        yield f"{count} wrong ones return {how} (a tie, or a sum in another order, may be all)"
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
