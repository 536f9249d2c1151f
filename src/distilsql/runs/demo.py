"""`distilsql demo`: the whole story on an embedded benchmark, in minutes, on a CPU.

Real SQLite databases and questions are generated from a seed; a small teacher is trained from scratch; students
made of half of its layers are distilled by several methods with the same examples, start and number of updates;
every predicted query is run; and what was measured is shown, whatever the order. Run again, it resumes.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from distilsql.data.benchmark import SqlBenchmark, load_sql_benchmark
from distilsql.databases.execute import Outcome, execute
from distilsql.metrics.scores import Scores
from distilsql.models.tiny import save_tiny_llama, train_tokenizer
from distilsql.prompts.codes import build_prefix, build_suffix
from distilsql.report import (
    Answer,
    Reference,
    Score,
    comparison_table,
    load_runs,
    to_terminal,
    write_report,
)
from distilsql.runs.evaluate import evaluate_run
from distilsql.runs.folder import RunFolder, read_json
from distilsql.runs.predict import load_student, predict
from distilsql.runs.prepare import prompt_options
from distilsql.runs.progress import counting_bar, training_bar
from distilsql.runs.recipe import PromptSettings, Recipe, make_recipe
from distilsql.runs.train import train
from distilsql.shown import shown

METHODS = ("sft", "rkd", "kid", "gkd-rkl")
TEST = "demo:test"
_PROMPT = {"values": False, "max_prompt_tokens": 400, "max_completion_tokens": 64}
_VOCABULARY = 1200


def run_demo(
    out: Path, *, teacher_steps: int = 2300, student_steps: int = 150, console: Console | None = None
) -> None:
    """Train, distil, judge and report into `out`. Interrupted, it goes on where it stopped."""
    console = console or Console(stderr=True)
    console.print("[bold]distilsql demo[/bold]: teacher, students by four methods, and what each is worth")
    test = load_sql_benchmark(TEST)
    _make_start(out, console)
    teacher = _trained(teacher_recipe(out, teacher_steps), out / "teacher", "1/5 teacher", console)
    scores = {"teacher": _scored(teacher, test, "teacher", console)}
    runs: list[RunFolder] = []
    for number, method in enumerate(METHODS, start=2):
        recipe = student_recipe(out, method, student_steps)
        run = _trained(recipe, out / method, f"{number}/5 {method}", console)
        scores[method] = _scored(run, test, method, console)
        runs.append(run)
    _show(out, runs, teacher, scores, test, console)


def teacher_recipe(out: Path, steps: int) -> Recipe:
    return make_recipe(
        {
            "method": "sft",
            "name": "teacher",
            "student": {"path": str(out / "models" / "start"), "tuning": "full"},
            "data": {"train": "demo:train"},
            "prompt": _PROMPT,
            "train": _train(steps, learning_rate=2e-3, warmup_share=0.03, calibration_windows=0),
        }
    )


def student_recipe(out: Path, method: str, steps: int) -> Recipe:
    return make_recipe(
        {
            "method": method,
            "name": method,
            "student": {"path": str(out / "teacher" / "model"), "keep_layers": 2, "tuning": "full"},
            "teacher": {"path": str(out / "teacher" / "model")},
            "data": {"train": "demo:train"},
            "prompt": _PROMPT,
            "train": _train(steps, learning_rate=2e-3, warmup_share=0.1, calibration_windows=5),
        }
    )


def _train(steps: int, **options: float) -> dict[str, Any]:
    return {
        "steps": steps,
        "questions_per_tree": 16,
        "trees_per_step": 1,
        "precision": "float32",
        "save_every_steps": 250,
        **options,
    }


def _make_start(out: Path, console: Console) -> None:
    """A tokenizer learnt from the training texts, and the randomly initialised model that becomes the teacher."""
    folder = out / "models" / "start"
    if folder.exists():
        return
    benchmark = load_sql_benchmark("demo:train")
    options = prompt_options(PromptSettings.model_validate(_PROMPT))
    texts = [build_prefix(database, options) for database in benchmark.databases.values()]
    for example in benchmark.examples:
        texts += [build_suffix(example, benchmark.databases[example.db_id], options), example.gold_sql]
    tokenizer = train_tokenizer(texts, _VOCABULARY)
    unfinished = folder.with_name("start.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    parameters = save_tiny_llama(unfinished, tokenizer, hidden_size=128, layers=4, heads=4, seed=1)
    unfinished.rename(folder)
    console.print(
        f"{len(benchmark.examples):,} training questions on "
        f"{len({example.db_id for example in benchmark.examples})} databases; "
        f"a teacher of {parameters / 1e6:.1f} M parameters"
    )


def _trained(recipe: Recipe, folder: Path, title: str, console: Console) -> RunFolder:
    with training_bar(title, console) as report:
        return train(recipe, folder, report=report)


def _scored(run: RunFolder, test: SqlBenchmark, name: str, console: Console) -> Scores:
    """Predictions (kept from an earlier start if they are there) and their verdicts."""
    if not run.predictions(TEST).exists():
        with counting_bar(f"{name} answers", console) as on_progress:
            predict(load_student(run), test, run.predictions(TEST), on_progress=on_progress)
    scores = evaluate_run(run, test)
    assert isinstance(scores, Scores)  # the demo is text-to-SQL
    low, high = scores.interval
    console.print(
        f"{name}: {scores.accuracy:.1%} of {len(scores.verdicts)} test queries right "
        f"({low:.1%} to {high:.1%}), {scores.valid_sql_rate:.1%} valid SQL",
        highlight=False,
    )
    return scores


def _show(
    out: Path,
    runs: Sequence[RunFolder],
    teacher: RunFolder,
    scores: dict[str, Scores],
    test: SqlBenchmark,
    console: Console,
) -> None:
    records = load_runs([run.path for run in runs])
    reference = _reference(teacher, scores["teacher"])
    best = max(METHODS, key=lambda method: scores[method].accuracy)
    answers = [_answer(test, index, scores[best], best) for index in _varied(test, scores[best])]
    paths = write_report(
        records,
        out / "report",
        title="distilsql demo",
        benchmark_order=[TEST],
        answers=answers,
        teacher=reference,
    )
    terminal = Console()
    terminal.print(
        to_terminal(comparison_table(records, benchmark_order=[TEST], teacher=reference), "Measured")
    )
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


def _reference(teacher: RunFolder, scores: Scores) -> Reference:
    score = Score(
        benchmark=TEST, accuracy=scores.accuracy, interval=scores.interval, total=len(scores.verdicts)
    )
    return Reference("teacher", {TEST: score}, int(read_json(teacher.summary)["student_parameters"]))


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


def _answer(test: SqlBenchmark, index: int, scores: Scores, model: str) -> Answer:
    example, verdict = test.examples[index], scores.verdicts[index]
    database = test.databases[example.db_id]
    result = execute(database.path, verdict.predicted_sql, mode="serving")
    return Answer(
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


def _rows(answer: Answer) -> str:
    shown = "; ".join(", ".join(map(str, row)) for row in answer.rows) or "(no rows)"
    return f"→ {shown}"
