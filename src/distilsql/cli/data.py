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
    gold_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a gold query may run")] = 120.0,
) -> None:
    """Report every missing database, malformed record and gold query that does not run, all at once.

    Golds that a tie decides are named, too, and are no problem: they can be judged.
    """
    from distilsql.data.check import check, problem_lines

    report = check(target, data, database=own_place(database), timeout_s=gold_timeout)
    for checked in report.benchmarks:
        golds = (
            f", {checked.databases} databases, {checked.gold_runs} golds run "
            f"({checked.gold_empty} with an empty result)"
        )
        of_records = f" of {checked.found} records" if checked.found != checked.examples else ""
        print(
            f"{checked.name}: {checked.examples} examples{of_records}{golds if checked.task == 'sql' else ''}"
        )
    for line in problem_lines(report.warnings):
        print(f"  note: {line}")
    for line in problem_lines(report.problems):
        print(f"  {line}")
    if report.problems:
        raise DataError(f"{len(report.problems)} problems in {target}, listed above.")


def suite_build(
    on: On,
    out: Annotated[Path, typer.Option(help="Folder of the suite")],
    data: Root = None,
    database: OwnDatabase = None,
    name: Annotated[str, typer.Option(help="Scores on the suite are labelled with this name")] = "",
    seed: Annotated[int, typer.Option(help="The same seed gives the same suite")] = 0,
) -> None:
    """Make variants of each database that tell wrong queries from the gold ones. An interrupted build resumes."""
    from distilsql.data.load import load_sql_benchmark
    from distilsql.interrupt import say_kept
    from distilsql.metrics.suites.build import build_suite

    place = own_place(database)
    benchmark = load_sql_benchmark(on, root=data, database=place, missing_databases="skip")
    say_kept(f"The databases that are finished are kept in {out}.")
    suite = build_suite(benchmark, out, name=name or out.name, seed=seed)
    for db_id, report in suite.reports.items():
        print(f"{db_id}: {len(report['variants'])} databases for {len(report['golds'])} gold queries")
    if not suite.size:
        print(
            "No wrong neighbour of a gold query was told apart by a variant: on this suite, TS says what EX says."
        )
    own = f" --database {place}" if place else ""
    print(f"Suite {suite.label} in {out}. Next: distilsql evaluate PREDICTIONS --on {on}{own} --suite {out}")
