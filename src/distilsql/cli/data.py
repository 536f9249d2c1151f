"""Commands about data: checking it, and test suites."""

from pathlib import Path
from typing import Annotated

import typer

from distilsql.cli.options import On, OwnDatabase, Root, own_place
from distilsql.errors import DataError


def data_check(
    target: Annotated[str, typer.Argument(help="A data folder, a benchmark's name, or a file of own pairs")],
    data: Root = None,
    database: OwnDatabase = None,
    gold_timeout: Annotated[
        float, typer.Option(min=0.1, help="Time limit of a gold query, in seconds")
    ] = 120.0,
) -> None:
    """List every missing database, malformed record and gold query that does not run, all at once.

    Gold queries whose result depends on a tie are listed as notes, not as problems: they can still be judged.
    """
    from distilsql.data.check import check, problem_lines
    from distilsql.data.plural import counted

    report = check(target, data, database=own_place(database), timeout_s=gold_timeout)
    for checked in report.benchmarks:
        golds = (
            f", {counted(checked.databases, 'database')}, {counted(checked.gold_runs, 'gold')} run "
            f"({checked.gold_empty} with an empty result)"
        )
        of_records = f" of {checked.found} records" if checked.found != checked.examples else ""
        told = golds if checked.task == "sql" else ""
        print(f"{checked.name}: {counted(checked.examples, 'example')}{of_records}{told}")
    for line in problem_lines(report.warnings):
        print(f"  note: {line}")
    for line in problem_lines(report.problems):
        print(f"  {line}")
    if report.problems:
        raise DataError(f"{target} has {counted(len(report.problems), 'problem')}, listed above.")


def suite_build(
    on: On,
    out: Annotated[Path, typer.Option(help="Where to write the suite")],
    data: Root = None,
    database: OwnDatabase = None,
    name: Annotated[str, typer.Option(help="Name of the suite in scores; default: the folder's name")] = "",
    seed: Annotated[int, typer.Option(help="The same seed gives the same suite")] = 0,
) -> None:
    """Build variants of each database that distinguish wrong queries from gold ones. Run it again to resume."""
    from distilsql.data.load import load_sql_benchmark
    from distilsql.interrupt import say_kept
    from distilsql.metrics.suites.build import build_suite

    place = own_place(database)
    benchmark = load_sql_benchmark(on, root=data, database=place, missing_databases="skip")
    say_kept(f"Finished databases are kept in {out}.")
    suite = build_suite(benchmark, out, name=name or out.name, seed=seed)
    for db_id, report in suite.reports.items():
        print(f"{db_id}: {len(report['variants'])} databases for {len(report['golds'])} gold queries")
    if not suite.size:
        print("No variant distinguishes a wrong neighbour from its gold query: on this suite, TS equals EX.")
    own = f" --database {place}" if place else ""
    print(f"Suite {suite.label} in {out}. Next: distilsql evaluate PREDICTIONS --on {on}{own} --suite {out}")
