"""The command line: thin commands over `runs` and `report`. Nothing heavy is imported before a command needs it."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distilsql import __version__
from distilsql.errors import DataError, DistilSQLError
from distilsql.runs.allocator import keep_freed_memory

if TYPE_CHECKING:
    from distilsql.data.benchmark import Benchmark

app = typer.Typer(
    help="Distil a large text-to-SQL language model into a small one, and judge it by running the SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at benchmarks and own question/SQL pairs.", no_args_is_help=True)
suite_app = typer.Typer(
    help="Test suites: many databases that tell wrong queries from right ones.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
app.add_typer(suite_app, name="suite")

Root = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds spider/, bird/, … [DISTILSQL_DATA]")
]
OwnDatabase = Annotated[Path | None, typer.Option("--database", help="SQLite file that own pairs are about")]
On = Annotated[
    str, typer.Option("--on", help="Benchmark such as spider:dev or dolly:valid, or a file of own examples")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Replace a recipe key: --set train.steps=200")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only this many examples (a seeded draw)")]


# typer carries click inside itself; the root of its usage errors is reachable only through a public one.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


INTERRUPTED = 130


def main() -> None:
    """Run the command line; errors are a sentence and a non-zero exit status, never a traceback."""
    keep_freed_memory()
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # typer answers KeyboardInterrupt so
            raise KeyboardInterrupt
        sys.exit(status or 0)
    except _UsageError as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except DistilSQLError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        anew = " without --overwrite" if "--overwrite" in sys.argv else ""
        _fail(
            f"stopped. Run the same command again{anew} to go on from where it was saved.", status=INTERRUPTED
        )
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}. Check the path, its permissions and the free disk space.")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _fail(message: str, status: int = 1) -> None:
    print(f"distilsql: {message}", file=sys.stderr)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"distilsql {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demo's runs and report go")] = Path("runs/demo"),
) -> None:
    """The whole story on an embedded benchmark, in minutes, on a CPU."""
    from distilsql.runs.demo import run_demo

    run_demo(out)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML); see recipes/")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<recipe's name>")] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option(help="Delete the run that is there and start anew")] = False,
) -> None:
    """Train by a recipe: any method, sft included. The same command resumes an interrupted run."""
    from distilsql.runs.recipe import load_recipe

    resolved = load_recipe(recipe, settings or [])
    folder = out or Path("runs") / (resolved.name or recipe.stem)
    from distilsql.runs.progress import training_bar
    from distilsql.runs.train import train as run_training

    with training_bar() as report:
        run = run_training(resolved, folder, overwrite=overwrite, report=report)
    print(
        f"Finished: {run.path}. Next: distilsql predict {run.path} --on {resolved.data.valid or 'QUESTIONS'}"
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or any model folder together with --recipe")],
    on: On,
    data: Root = None,
    database: OwnDatabase = None,
    beams: Annotated[int, typer.Option(min=1, help="1 is greedy")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sample at this temperature; 0 is greedy")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples; each seed has its own file")] = 0,
    limit: Limit = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose prompt settings a plain model is asked with")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Prediction file; default: inside the run")] = None,
) -> None:
    """Answer a benchmark's questions and write predictions/<benchmark>.jsonl."""
    from distilsql.errors import RunError
    from distilsql.runs.folder import RunFolder
    from distilsql.runs.predict import benchmark_for, load_any, load_student, recipe_of
    from distilsql.runs.predict import predict as run_predict
    from distilsql.runs.progress import counting_bar
    from distilsql.runs.recipe import load_recipe

    if beams > 1 and out is None:
        raise RunError(
            "The predictions in a run's folder are greedy or sampled ones, and comparable with other runs'. Say where "
            f"those of {beams} beams go: --out predictions.jsonl"
        )
    folder = RunFolder(run)
    if recipe is None:
        resolved = recipe_of(folder)
        benchmark = _limited(benchmark_for(resolved, on, data, database), limit)
        model = load_student(folder, beams=beams, temperature=temperature, seed=seed, say=_say)
    else:
        resolved = load_recipe(recipe)
        benchmark = _limited(benchmark_for(resolved, on, data, database), limit)
        model = load_any(
            str(run),
            resolved.prompt,
            beams=beams,
            precision=resolved.train.precision,
            temperature=temperature,
            seed=seed,
            say=_say,
        )
        if out is None:
            raise RunError(f"{run} is not a run folder, so say where predictions go: --out predictions.jsonl")
    path = out or folder.predictions(benchmark.name, temperature, seed)
    with counting_bar("predicting") as on_progress:
        run_predict(model, benchmark, path, on_progress=on_progress)
    by_file = out is not None or (temperature > 0 and benchmark.task == "sql")
    options = {
        "--data": data,
        "--database": database or (resolved.data.database_path if by_file else None),
        "--limit": limit,
        "--temperature": f"{temperature:g}" if temperature and not by_file else None,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    command = ["distilsql", "evaluate", str(path if by_file else run), "--on", on, *given]
    print(f"Wrote {path}. Next: {shlex.join(command)}")


@app.command()
def ask(
    run: Annotated[Path, typer.Argument(help="A finished run")],
    question: Annotated[str, typer.Argument(help="In quotes")],
    database: OwnDatabase = None,
    evidence: Annotated[str, typer.Option(help="What the question takes for granted")] = "",
    rows: Annotated[int, typer.Option(min=1, help="Show at most this many rows")] = 20,
) -> None:
    """Answer one question: the SQL that the student writes, and what it returns, read-only and under tight limits."""
    from rich.console import Console

    from distilsql.runs.ask import ask as ask_student
    from distilsql.runs.ask import own_database, rows_table
    from distilsql.runs.folder import RunFolder
    from distilsql.runs.predict import load_student, recipe_of

    folder = RunFolder(run)
    database = database or recipe_of(folder).data.database_path
    if database is None:
        raise DataError("The run's recipe names no database of its own; give one: --database shop.sqlite.")
    asked = own_database(database)
    answer = ask_student(load_student(folder, say=_say), question, asked, evidence=evidence)
    print(answer.sql)
    Console().print(rows_table(answer, rows))


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(help="A run folder or a prediction file of any system")],
    on: On,
    data: Root = None,
    database: OwnDatabase = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a CSV prediction file that holds the SQL")
    ] = None,
    keep_distinct: Annotated[
        bool, typer.Option(help="Spider: do not remove DISTINCT before running")
    ] = False,
    suite: Annotated[Path | None, typer.Option(help="Folder of a test suite: TS instead of EX")] = None,
    plug_values: Annotated[
        bool, typer.Option(help="Spider: also try the gold's values (inflates scores)")
    ] = False,
    r_ves: Annotated[
        bool, typer.Option("--r-ves", help="BIRD: also time right predictions against gold")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="Another prediction file: a paired comparison with it")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="The run's predictions sampled at this temperature, all seeds together"),
    ] = 0.0,
    tables: Annotated[
        bool, typer.Option(help="Also by hardness, clause and database, or by length of the reference")
    ] = False,
    limit: Limit = None,
    out: Annotated[Path | None, typer.Option(help="Also write the scores here (JSON)")] = None,
) -> None:
    """Judge predictions by running them, as the official evaluators do; responses to instructions by ROUGE-L."""
    from functools import partial

    from distilsql.runs.evaluate import compare_scores, evaluate_file, evaluate_run, score_lines, with_r_ves
    from distilsql.runs.folder import existing_run, write_text
    from distilsql.runs.progress import counting_bar
    from distilsql.runs.recipe import load_recipe

    if target.is_dir():
        _refuse(
            f"this option is for a prediction file, such as one in {target / 'predictions'}",
            column=column if against is None else None,
            plug_values=plug_values,
        )
        options = load_recipe(existing_run(target).recipe).data
        data = data or options.root_path
        database = database or options.database_path
    else:
        _refuse(
            "this option is for a run folder, which knows how each file was sampled", temperature=temperature
        )
    whole = _load(on, data, database)
    benchmark = _limited(whole, limit)
    judge_file = partial(
        evaluate_file,
        benchmark=benchmark,
        column=column,
        keep_distinct=keep_distinct,
        suite=suite,
        plug_values=plug_values,
        whole=whole,
    )
    with counting_bar("judging") as on_progress:
        if target.is_dir():
            scores = evaluate_run(
                existing_run(target),
                benchmark,
                keep_distinct=keep_distinct,
                suite=suite,
                temperature=temperature,
                whole=whole,
                on_progress=on_progress,
            )
        else:
            scores = judge_file(target, on_progress=on_progress)
    if r_ves:
        scores = with_r_ves(scores, benchmark)
    if out is not None:
        write_text(out, scores.to_json())
    print("\n".join(score_lines(scores, tables=tables)))
    if against is not None:
        print(f"\nfrom {against} to {target}: {compare_scores(judge_file(against), scores)}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders")],
    out: Annotated[Path, typer.Option(help="Where table, figures and page go")] = Path("report"),
    title: Annotated[str, typer.Option(help="Title of the page")] = "Accuracy against cost",
) -> None:
    """Accuracy against cost: table, figures and a page, from run folders."""
    from rich.console import Console

    from distilsql.report import comparison_table, load_runs, to_terminal, write_report

    records = load_runs(runs)
    paths = write_report(records, out, title=title)
    Console().print(to_terminal(comparison_table(records), title))
    print(f"Page: {paths.page}")


@app.command()
def exposure(
    run: Annotated[Path, typer.Argument(help="A finished run, whose student and teacher are compared")],
    on: On,
    data: Root = None,
    database: OwnDatabase = None,
    teacher: Annotated[
        str | None, typer.Option(help="Another teacher than the run's: folder or hub name")
    ] = None,
    limit: Limit = 100,
    length: Annotated[int, typer.Option(min=1, help="l: how many tokens errors are accumulated over")] = 15,
    samples: Annotated[int, typer.Option(min=1, help="Samples per prompt and model")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples and the interval")] = 0,
) -> None:
    """ExAccErr: how much more a student errs along its own samples than along its teacher's (exposure bias)."""
    from distilsql.runs.exposure import ExposureOptions, expose_run
    from distilsql.runs.folder import RunFolder
    from distilsql.runs.predict import benchmark_for, recipe_of
    from distilsql.runs.progress import counting_bar

    folder = RunFolder(run)
    benchmark = _limited(benchmark_for(recipe_of(folder), on, data, database), limit)
    options = ExposureOptions(length=length, samples_per_prompt=samples, seed=seed)
    with counting_bar("sampling") as on_progress:
        result = expose_run(folder, benchmark, options, teacher=teacher, on_progress=on_progress, say=_say)
    low, high = result.interval
    print(f"ExAccErr({length}) on {on}: {result.excess_accumulated_error:.1f} % ({low:.1f} to {high:.1f})")


@app.command()
def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Such as table3 figure1, or all; without any, what there is is listed"),
    ] = None,
    scale: Annotated[str, typer.Option(help="paper (its models, on GPUs) or cpu (two cores)")] = "cpu",
    runs: Annotated[
        Path | None, typer.Option(help="Where the runs go; default runs/reproduce/<scale>")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where tables and figures go; default report/ beside the runs")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make only this row's runs, such as kid; may be repeated")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs, how far each is, and how long the rest may take")
    ] = False,
    render_only: Annotated[
        bool, typer.Option("--render", help="Render from the runs that are there; make none")
    ] = False,
    recipes: Annotated[Path, typer.Option(help="Folder of the experiments")] = Path("recipes/paper"),
) -> None:
    """The papers' tables and figures: make the runs that are missing, and show them beside the published numbers."""
    from distilsql.runs.experiment import Book
    from distilsql.runs.listing import print_experiments, print_plan
    from distilsql.runs.plan import make_plan

    book = Book(recipes)
    if not what:
        print_experiments(book)
        return
    folder = runs or Path("runs") / "reproduce" / scale
    plan = make_plan(book, book.names_at(scale) if what == ["all"] else what, scale, folder, only=only or ())
    if dry_run:
        print_plan(plan)
        return
    from distilsql.runs.render import render

    if render_only:
        paths = render(plan, out or folder / "report")
    else:
        from distilsql.runs.reproduce import reproduce as run_reproduction

        paths = run_reproduction(plan, out or folder / "report")
    print("\n".join(f"Wrote {path}" for path in paths))


@app.command()
def methods(
    markdown: Annotated[bool, typer.Option(help="Print the method reference, docs/methods.md")] = False,
) -> None:
    """The table of methods: divergence, completions trained on, gold likelihood."""
    from distilsql.method_reference import method_reference, print_methods

    if markdown:
        print(method_reference(), end="")
    else:
        print_methods()


@data_app.command("check")
def data_check(
    target: Annotated[str, typer.Argument(help="A data folder, a benchmark's name, or a file of own pairs")],
    data: Root = None,
    database: OwnDatabase = None,
) -> None:
    """Report every missing database, malformed record and gold query that does not run, all at once."""
    from distilsql.data.check import check
    from distilsql.runs.progress import counting_bar

    with counting_bar("running golds") as on_progress:
        report = check(target, data, database=database, progress=on_progress)
    for checked in report.benchmarks:
        golds = (
            f", {checked.databases} databases, {checked.gold_runs} golds run "
            f"({checked.gold_empty} with an empty result)"
        )
        print(f"{checked.name}: {checked.examples} examples{golds if checked.task == 'sql' else ''}")
    for problem in report.problems:
        print(f"  {problem}")
    if report.problems:
        raise DataError(f"{len(report.problems)} problems in {target}, listed above.")


@suite_app.command("build")
def suite_build(
    on: On,
    out: Annotated[Path, typer.Option(help="Folder of the suite")],
    data: Root = None,
    database: OwnDatabase = None,
    name: Annotated[str, typer.Option(help="Scores on the suite are labelled with this name")] = "",
    seed: Annotated[int, typer.Option(help="The same seed gives the same suite")] = 0,
) -> None:
    """Make variants of each database that tell wrong queries from the gold ones. An interrupted build resumes."""
    from distilsql.data.benchmark import load_sql_benchmark
    from distilsql.metrics.build_suite import build_suite
    from distilsql.runs.progress import counting_bar

    benchmark = load_sql_benchmark(on, root=data, database=database, missing_databases="skip")
    with counting_bar("databases") as on_progress:
        suite = build_suite(
            benchmark,
            out,
            name=name or out.name,
            seed=seed,
            on_progress=lambda _, done, total: on_progress(done, total),
        )
    for db_id, report in suite.reports.items():
        print(f"{db_id}: {len(report['variants'])} databases for {len(report['golds'])} gold queries")
    if not suite.size:
        print(
            "No wrong neighbour of a gold query was told apart by a variant: on this suite, TS says what EX says."
        )
    own = f" --database {database}" if database else ""
    print(f"Suite {suite.label} in {out}. Next: distilsql evaluate PREDICTIONS --on {on}{own} --suite {out}")


def _load(on: str, data: Path | None, database: Path | None) -> "Benchmark":
    from distilsql.data.benchmark import load_benchmark

    benchmark = load_benchmark(on, root=data, database=database, missing_databases="skip")
    if benchmark.skipped:
        print(f"{len(benchmark.skipped)} examples left out: {benchmark.skipped[0].reason}", file=sys.stderr)
    return benchmark


def _refuse(reason: str, **options: object) -> None:
    """Raises DataError for an option that was given and would do nothing."""
    for name, value in options.items():
        if value:
            raise DataError(f"--{name.replace('_', '-')} does nothing here: {reason}. Leave it out.")


def _limited(benchmark: "Benchmark", limit: int | None) -> "Benchmark":
    return benchmark if limit is None else benchmark.take(limit, 0)


if __name__ == "__main__":
    main()
