"""`distilsql demo`: distil, evaluate and compare on an embedded benchmark, in minutes, on a CPU.

Real SQLite databases and questions are generated from a seed; students made of half of the embedded teacher's layers
are distilled by several methods with the same examples, start and number of updates, each in a process of its own;
every predicted query is run; and what was measured is shown, whatever the order. Run again, it resumes.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from rich.console import Console

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.demo.noise import RESTYLED_SHARE, WRONG_SHARE
from distilsql.data.load import load_sql_benchmark
from distilsql.databases.execute import execute
from distilsql.databases.job import Outcome
from distilsql.experiments.demo.progress import progress_of_jobs
from distilsql.experiments.demo.task import TEST, DemoTask
from distilsql.experiments.side_by_side import Job, run_side_by_side
from distilsql.metrics.compare import compare_predictions
from distilsql.metrics.scores import Scores
from distilsql.metrics.statistics import holm
from distilsql.models.embedded import DEMO_TEACHER, read_record, resolve
from distilsql.progress import titled
from distilsql.report import (
    AnsweredQuestion,
    Reference,
    Score,
    comparison_table,
    load_runs,
    to_terminal,
    write_report,
)
from distilsql.runs.folder import RunFolder
from distilsql.shown import shown

log = logging.getLogger(__name__)

METHODS = ("sft", "rkd", "kid", "gkd-rkl")
STUDENT_STEPS = 300
# Differences that chance makes in fewer than one of twenty such demos are called larger than chance.
_SIGNIFICANT = 0.05


def run_demo(
    out: Path,
    *,
    train_teacher: bool = False,
    teacher_steps: int | None = None,
    student_steps: int = STUDENT_STEPS,
    questions: int | None = None,
    console: Console | None = None,
) -> None:
    """Distil, judge and report into `out`, from the embedded teacher or from a new one, trained in `out/own-teacher`.

    `questions` of the test are asked, by default all of them. If interrupted, it resumes where it stopped.

    Raises:
        RunError: a student could not be made; what the others have is kept.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once every student has saved.
    """
    console = console or Console(stderr=True)
    console.print("[bold]distilsql demo[/bold]: students by four methods, and what each is worth")
    teacher = _own_teacher(out / "own-teacher", teacher_steps) if train_teacher else DEMO_TEACHER
    task = DemoTask(teacher, questions=questions)
    test = task.test()
    record = read_record(Path(resolve(teacher)))
    console.print(
        f"{len(test.examples):,} test questions on {len(test.databases)} generated databases; a teacher of "
        f"{record['parameters'] / 1e6:.1f} M parameters, trained in {record['train_seconds'] / 60:.0f} minutes\n"
        f"students train on questions like real ones: {WRONG_SHARE:.0%} of their queries are wrong, "
        f"{RESTYLED_SHARE:.0%} in another style",
        highlight=False,
    )
    teacher_run = RunFolder(out / "own-teacher" if train_teacher else out / "teacher")
    runs = [RunFolder(out / method) for method in METHODS]
    # The longest first, so that nothing is left for one core alone.
    jobs = [_job(run, replace(task, method=run.path.name, steps=student_steps)) for run in reversed(runs)]
    jobs.append(_job(teacher_run, task))
    with progress_of_jobs([job.name for job in jobs], console) as on_event:
        run_side_by_side(jobs, on_event)
    scores = {run.path.name: _scores(run) for run in runs} | {"teacher": _scores(teacher_run)}
    _show(out, runs, record["parameters"], scores, test)


def _own_teacher(out: Path, steps: int | None) -> str:
    # Imported here: only this needs torch, and everybody else need not wait for it.
    from distilsql.experiments.demo.teacher import STEPS, make_teacher

    log.info(f"Training a teacher in {out}: this takes the better part of an hour. Ctrl-C is safe.")
    with titled("teacher"):
        return str(make_teacher(out, steps=steps or STEPS))


def _job(run: RunFolder, task: DemoTask) -> Job:
    return Job(run.path.name, "distilsql.experiments.demo.model", (str(run.path), task.to_json()))


def _scores(run: RunFolder) -> Scores:
    return Scores.from_json(run.scores(TEST).read_text(encoding="utf-8"))


def headline(scores: dict[str, Scores]) -> str:
    """Which differences between the students are larger than chance in the questions, in one or two sentences.

    Every pair is tested by McNemar's exact test, and the p-values are Holm's for as many tests as there are pairs.
    """
    pairs = [
        (first, second) if scores[first].accuracy >= scores[second].accuracy else (second, first)
        for first, second in combinations(METHODS, 2)
    ]
    compared = [compare_predictions(scores[worse], scores[better]) for better, worse in pairs]
    p_values = holm([comparison.mcnemar_p for comparison in compared])
    larger, level = [], []
    for (better, worse), comparison, p in zip(pairs, compared, p_values, strict=True):
        if p < _SIGNIFICANT:
            points = f"{100 * comparison.difference:.1f} points, p = {p:.2g}"
            larger.append(f"{better} above {worse} ({points})")
        else:
            level.append(f"{better} and {worse}")
    said = [f"Larger than chance: {'; '.join(larger)}." if larger else "No difference is larger than chance."]
    if larger and level:
        said.append(f"Not told apart: {'; '.join(level)}.")
    said.append(
        f"({len(next(iter(scores.values())).verdicts):,} questions, one training each; McNemar's exact test with "
        f"Holm's correction for {len(pairs)} pairs.)"
    )
    return " ".join(said)


def _show(
    out: Path,
    runs: Sequence[RunFolder],
    teacher_parameters: int,
    scores: dict[str, Scores],
    test: SqlBenchmark,
) -> None:
    records = load_runs([run.path for run in runs])
    reference = _reference(teacher_parameters, scores["teacher"])
    said = headline(scores)
    best = max(METHODS, key=lambda method: scores[method].accuracy)
    answers = [_answer(test, index, scores[best], best) for index in _varied(test, scores[best])]
    paths = write_report(
        records,
        out / "report",
        title="distilsql demo",
        headline=said,
        benchmark_order=[TEST],
        answers=answers,
        teacher=reference,
    )
    terminal = Console()
    terminal.print(
        to_terminal(comparison_table(records, benchmark_order=[TEST], teacher=reference), "Measured")
    )
    unseen = {example.db_id for example in load_sql_benchmark("demo:test-unseen").examples}
    for name in ("teacher", *METHODS):
        terminal.print(_by_kind(name, scores[name], unseen), highlight=False)
    terminal.print(f"\n[bold]{said}[/bold]", highlight=False)
    terminal.print(
        f"\nThree test questions and the answers of [bold]{best}[/bold]'s student: the first it got right, the "
        "first it got wrong, and the first on a database that training never saw"
    )
    for answer in answers:
        mark = "right" if answer.is_correct else "wrong"
        terminal.print(f"\n  {answer.question} [{answer.db_id}]", highlight=False, markup=False)
        terminal.print(f"  {shown(answer.predicted_sql)}  ({mark})", highlight=False, markup=False)
        terminal.print(f"  {shown(_rows(answer))}", highlight=False, markup=False)
    terminal.print(f"\nPage: {paths.page}", highlight=False)
    for figure in paths.accuracy_against_cost.values():
        terminal.print(f"Figure: {figure}", highlight=False)


def _by_kind(name: str, scores: Scores, unseen: set[str]) -> str:
    """How much is right on databases that training knew, and on those that it never saw."""
    parts = []
    for kind, is_unseen in (("seen", False), ("unseen", True)):
        right = [v.is_correct for v in scores.verdicts if (v.db_id in unseen) is is_unseen]
        parts.append(f"{sum(right) / len(right):.1%} of {len(right)} on {kind} databases")
    return f"{name}: {', '.join(parts)}; {scores.valid_sql_rate:.1%} valid SQL"


def _reference(parameters: int, scores: Scores) -> Reference:
    score = Score(
        benchmark=TEST, accuracy=scores.accuracy, interval=scores.interval, total=len(scores.verdicts)
    )
    return Reference("teacher", {TEST: score}, parameters)


def _varied(test: SqlBenchmark, scores: Scores) -> list[int]:
    """The first question answered rightly, the first answered wrongly, and the first on a database that training
    never saw: one of each kind, where there is one, and none twice."""
    unseen = {example.db_id for example in load_sql_benchmark("demo:test-unseen").examples}
    kinds = (
        [index for index, verdict in enumerate(scores.verdicts) if verdict.is_correct],
        [index for index, verdict in enumerate(scores.verdicts) if not verdict.is_correct],
        [index for index, example in enumerate(test.examples) if example.db_id in unseen],
    )
    chosen: list[int] = []
    for kind in kinds:
        chosen += [index for index in kind if index not in chosen][:1]
    return chosen


def _answer(test: SqlBenchmark, index: int, scores: Scores, model: str) -> AnsweredQuestion:
    example, verdict = test.examples[index], scores.verdicts[index]
    database = test.databases[example.db_id]
    result = execute(database.path, verdict.predicted_sql, mode="serving")
    return AnsweredQuestion(
        question=example.question,
        db_id=example.db_id,
        gold_sql=example.gold_sql,
        predicted_sql=verdict.predicted_sql,
        verdict=verdict.outcome.value,
        is_correct=verdict.is_correct,
        columns=result.columns,
        rows=result.rows[:5] if result.outcome is Outcome.ROWS else ((result.message,),),
        model=model,
    )


def _rows(answer: AnsweredQuestion) -> str:
    shown = "; ".join(", ".join(map(str, row)) for row in answer.rows) or "(no rows)"
    return f"→ {shown}"
