"""Commands that measure: accuracy, ExAccErr, and comparisons of runs."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distilsql.cli.options import Limit, On, OwnDatabase, Root, limited, own_place, places
from distilsql.errors import DataError
from distilsql.progress import progress
from distilsql.shown import shown

if TYPE_CHECKING:
    from distilsql.data.benchmark import Benchmark
    from distilsql.databases.url import Place

log = logging.getLogger(__name__)


def evaluate(
    target: Annotated[Path, typer.Argument(help="A run folder, or any system's prediction file")],
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
        bool, typer.Option("--r-ves", help="BIRD: also time right predictions against their golds")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="Another prediction file to compare with, paired by example")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="Judge the run's samples at this temperature, all seeds together"),
    ] = 0.0,
    tables: Annotated[
        bool,
        typer.Option("--tables", help="Also show hardness, clauses and databases, or reference lengths"),
    ] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="Id of an example to leave out (repeatable), or broken-golds: all that fail"),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Time limit of a prediction, in seconds  [default: 30]")
    ] = None,
    gold_timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Time limit of a gold query, in seconds  [default: 120]")
    ] = None,
    limit: Limit = None,
    out: Annotated[Path | None, typer.Option(help="Also write the scores to this file (JSON)")] = None,
) -> None:
    """Judge predicted SQL by running it, as the official evaluators do; responses to instructions by ROUGE-L."""
    from distilsql.files import check_writable, write_text
    from distilsql.runs.evaluate import (
        Rules,
        compare_scores,
        evaluate_file,
        judge_run,
        score_lines,
        with_r_ves,
    )
    from distilsql.runs.folder import existing_run

    _refuse_of_other_kind(target, column if against is None else None, plug_values, temperature)
    run = existing_run(target) if target.is_dir() else None
    if out is not None:
        check_writable(out)
    if not target.exists():
        raise DataError(f"There is no run folder and no prediction file {target}; check the path.")
    whole = _load(on, *places(run, data, own_place(database)))
    benchmark = limited(whole, limit)
    of_run = Rules(keep_distinct, suite, tuple(leave_out or ()), timeout, gold_timeout)
    of_file = replace(of_run, plug_values=plug_values, column=column)
    files = {}
    if run is not None:
        scores, place = judge_run(run, benchmark, of_run, temperature=temperature, whole=whole)
        files[place] = scores.to_json()
    else:
        scores = evaluate_file(target, benchmark, of_file, whole=whole)
    if r_ves:
        scores = with_r_ves(scores, benchmark)
    if out is not None:
        files[out] = scores.to_json()
    # Printed first, so that the scores are not lost if a file cannot be written after all.
    print(shown("\n".join(score_lines(scores, tables=tables)), keep_lines=True), flush=True)
    for path, text in files.items():
        write_text(path, text)
    if against is not None:
        other = evaluate_file(against, benchmark, of_file, whole=whole)
        print(shown(f"\nfrom {against} to {target}: {compare_scores(other, scores)}", keep_lines=True))


def _refuse_of_other_kind(target: Path, column: str | None, plug_values: bool, temperature: float) -> None:
    """Raises DataError for an option that is for a prediction file and was given with a run, or the reverse."""
    if target.is_dir():
        reason = f"this option is for a prediction file, such as one in {target / 'predictions'}"
        _refuse(reason, column=column, plug_values=plug_values)
    else:
        reason = "this option is for a run folder, which records how each file was sampled"
        _refuse(reason, temperature=temperature)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders")],
    out: Annotated[Path, typer.Option(help="Where to write table, figures and HTML page")] = Path("report"),
    title: Annotated[str, typer.Option(help="Title of the page")] = "Accuracy against cost",
) -> None:
    """Compare runs: a table, figures and an HTML page of accuracy against cost."""
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
        str | None, typer.Option(help="Teacher to use instead of the run's: folder or hub name")
    ] = None,
    limit: Limit = 100,
    length: Annotated[
        int, typer.Option(min=1, help="Number of tokens over which errors accumulate (l)")
    ] = 15,
    samples: Annotated[int, typer.Option(min=1, help="Samples per prompt and model")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and the interval")] = 0,
) -> None:
    """Measure exposure bias (ExAccErr): how much more a student errs on its own samples than on its teacher's."""
    from distilsql.runs.folder import existing_run
    from distilsql.runs.recipe import load_recipe

    folder = existing_run(run)
    recipe = load_recipe(folder.recipe)
    with progress("starting"):
        from distilsql.inference.exposure import ExposureOptions, expose_run
        from distilsql.inference.predict import benchmark_for

    benchmark = limited(benchmark_for(recipe, on, data, own_place(database)), limit)
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
    """Raises DataError for an option that was given but would have no effect."""
    for name, value in options.items():
        if value:
            raise DataError(f"--{name.replace('_', '-')} has no effect here: {reason}. Leave it out.")
