"""Commands that measure: accuracy, ExAccErr, and runs against each other."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distilsql.cli.options import Limit, On, OwnDatabase, Root, limited, own_place
from distilsql.errors import DataError
from distilsql.progress import progress
from distilsql.shown import shown

if TYPE_CHECKING:
    from distilsql.data.benchmark import Benchmark
    from distilsql.databases.url import Place
    from distilsql.runs.evaluate import AnyScores

log = logging.getLogger(__name__)


def evaluate(
    target: Annotated[Path, typer.Argument(help="A run folder or a prediction file of any system")],
    on: On,
    data: Root = None,
    database: OwnDatabase = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a CSV prediction file that holds the SQL")
    ] = None,
    keep_distinct: Annotated[
        bool, typer.Option("--keep-distinct", help="Spider: do not remove DISTINCT before running")
    ] = False,
    suite: Annotated[Path | None, typer.Option(help="Folder of a test suite: TS instead of EX")] = None,
    plug_values: Annotated[
        bool, typer.Option("--plug-values", help="Spider: also try the gold's values (inflates scores)")
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
        bool,
        typer.Option("--tables", help="Also by hardness, clause and database, or by length of the reference"),
    ] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Do not judge this example (its id; may be repeated), or broken-golds: all that cannot be"
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that a prediction may run  [default: 30]")
    ] = None,
    gold_timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that a gold query may run  [default: 120]")
    ] = None,
    limit: Limit = None,
    out: Annotated[Path | None, typer.Option(help="Also write the scores here (JSON)")] = None,
) -> None:
    """Judge predictions by running them, as the official evaluators do; responses to instructions by ROUGE-L."""
    from functools import partial

    from distilsql.files import refuse_unwritable, write_text
    from distilsql.runs.evaluate import compare_scores, evaluate_file, judge_run, score_lines, with_r_ves
    from distilsql.runs.folder import existing_run
    from distilsql.runs.recipe import load_recipe

    place_asked = own_place(database)
    if target.is_dir():
        _refuse(
            f"this option is for a prediction file, such as one in {target / 'predictions'}",
            column=column if against is None else None,
            plug_values=plug_values,
        )
        options = load_recipe(existing_run(target).recipe).data
        data = data or options.root_path
        place_asked = place_asked or options.database_place
    else:
        _refuse(
            "this option is for a run folder, which knows how each file was sampled", temperature=temperature
        )
    if out is not None:
        refuse_unwritable(out)
    whole = _load(on, data, place_asked)
    benchmark = limited(whole, limit)
    rules: dict[str, Any] = {
        "keep_distinct": keep_distinct,
        "suite": suite,
        "leave_out": tuple(leave_out or ()),
        "timeout_s": timeout,
        "gold_timeout_s": gold_timeout,
        "whole": whole,
    }
    judge_file: Callable[..., AnyScores] = partial(
        evaluate_file, benchmark=benchmark, column=column, plug_values=plug_values, **rules
    )
    place = None
    if target.is_dir():
        scores, place = judge_run(existing_run(target), benchmark, temperature=temperature, **rules)
    else:
        scores = judge_file(target)
    files = {place: scores.to_json()} if place else {}
    if r_ves:
        scores = with_r_ves(scores, benchmark)
    if out is not None:
        files[out] = scores.to_json()
    # Printed first: a file that cannot be written after all takes no number along.
    print(shown("\n".join(score_lines(scores, tables=tables)), keep_lines=True), flush=True)
    for path, text in files.items():
        write_text(path, text)
    if against is not None:
        comparison = f"\nfrom {against} to {target}: {compare_scores(judge_file(against), scores)}"
        print(shown(comparison, keep_lines=True))


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
    with progress("starting"):
        from distilsql.inference.exposure import ExposureOptions, expose_run
        from distilsql.inference.predict import benchmark_for, recipe_of
        from distilsql.runs.folder import RunFolder

    folder = RunFolder(run)
    benchmark = limited(benchmark_for(recipe_of(folder), on, data, own_place(database)), limit)
    options = ExposureOptions(length=length, samples_per_prompt=samples, seed=seed)
    result = expose_run(folder, benchmark, options, teacher=teacher)
    low, high = result.interval
    print(f"ExAccErr({length}) on {on}: {result.excess_accumulated_error:.1f} % ({low:.1f} to {high:.1f})")


def _load(on: str, data: Path | None, database: "Place | None") -> "Benchmark":
    from distilsql.data.load import load_benchmark

    benchmark = load_benchmark(on, root=data, database=database, missing_databases="skip")
    if benchmark.skipped:
        log.warning(f"{len(benchmark.skipped)} examples left out: {benchmark.skipped[0].reason}")
    return benchmark


def _refuse(reason: str, **options: object) -> None:
    """Raises DataError for an option that was given and would do nothing."""
    for name, value in options.items():
        if value:
            raise DataError(f"--{name.replace('_', '-')} does nothing here: {reason}. Leave it out.")
