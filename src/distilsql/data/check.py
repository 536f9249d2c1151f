"""Checking data before anything is trained or scored on it: every fault at once, and whether each gold runs."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distilsql.data.benchmark import Task, benchmark_names, find_instructions, find_source
from distilsql.data.instruct import (
    INSTRUCT_FOLDER,
    INSTRUCT_SPECS,
    instruct_file,
    read_instructions,
)
from distilsql.data.pairs import PAIR_SUFFIXES
from distilsql.data.records import Problem
from distilsql.data.source import DECODING, Evaluator, Reading, Source, read_source
from distilsql.databases.execute import Execution, Outcome, make_job
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.schema import introspect
from distilsql.errors import DataError

Progress = Callable[[int, int], None]  # (golds run, golds in all)
InstructFile = tuple[str, Path]  # the name of a benchmark of instructions, and its file


@dataclass(frozen=True)
class CheckedBenchmark:
    """What was found of one benchmark. `gold_runs` counts examples whose gold query ran to the end; instructions have
    neither golds to run nor databases."""

    name: str
    examples: int
    databases: int
    gold_runs: int
    gold_empty: int
    problems: tuple[Problem, ...]
    task: Task = "sql"


@dataclass(frozen=True)
class CheckReport:
    """One entry for each benchmark, in the order of checking. A fault of a database is listed once."""

    benchmarks: tuple[CheckedBenchmark, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(dict.fromkeys(problem for checked in self.benchmarks for problem in checked.problems))


def check(
    spec_or_folder: str | Path,
    root: Path | None = None,
    *,
    database: Path | None = None,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> CheckReport:
    """Read one benchmark, or every benchmark in a folder, and run its golds.

    A folder is a data folder (holding `spider/`, `bird/`, …), one of those, or one with own files; otherwise a
    spec as `load_benchmark` takes it. `progress` is called from several threads. Raises DataError only if there
    is nothing to check: all other faults are in the report.
    """
    found = list(_found(spec_or_folder, root, database))
    sources = [item for item in found if isinstance(item, Source)]
    readings = [read_source(source) for source in sources]
    with ExecutionPool() as pool:
        golds = _run_golds(sources, readings, timeout_s, pool, progress)
    return CheckReport(
        (
            *(_checked(source, reading, golds) for source, reading in zip(sources, readings, strict=True)),
            *(_checked_instructions(*item) for item in found if not isinstance(item, Source)),
        )
    )


def _found(
    spec_or_folder: str | Path, root: Path | None, database: Path | None
) -> Iterator[Source | InstructFile]:
    folder = Path(spec_or_folder)
    if not folder.is_dir():
        yield _one(str(spec_or_folder), root, database)
        return
    families = {INSTRUCT_FOLDER, *(spec.split(":")[0] for spec in _whole_specs())}
    found = [(folder, family) for family in families if (folder / family).is_dir()]
    if not found and folder.resolve().name in families:
        found = [(folder.resolve().parent, folder.resolve().name)]
    own = sorted(file for file in folder.iterdir() if file.suffix in PAIR_SUFFIXES)
    if not found and not own:
        raise DataError(
            f"There is nothing to check in {folder}: it holds none of {', '.join(sorted(families))}, "
            "and no .jsonl or .csv file of your own."
        )
    for parent, family in sorted(found):
        for spec in _whole_specs():
            if spec.startswith(f"{family}:"):
                yield find_source(spec, root=parent)
        if family == INSTRUCT_FOLDER:
            yield from ((spec, instruct_file(spec, parent)) for spec in INSTRUCT_SPECS)
    for file in own if not found else ():
        yield _one(str(file), None, database)


def _one(spec: str, root: Path | None, database: Path | None) -> Source | InstructFile:
    file = find_instructions(spec, root)
    return (spec, file) if file is not None else find_source(spec, root=root, database=database)


def _whole_specs() -> list[str]:
    """The text-to-SQL specs that together read every question file once."""
    parts = ("demo:", "spider:train_spider", "spider:indomain", *INSTRUCT_SPECS)
    return [spec for spec in benchmark_names() if not spec.startswith(parts) and "+" not in spec]


Gold = tuple[str, str, Evaluator]  # database file, SQL, evaluator


def _run_golds(
    sources: Sequence[Source],
    readings: Sequence[Reading],
    timeout_s: float,
    pool: ExecutionPool,
    progress: Progress | None,
) -> dict[Gold, Execution]:
    """Every different gold of the examples that have a database, run once."""
    golds = list(
        dict.fromkeys(
            (str(reading.paths[example.db_id]), example.gold_sql, source.evaluator)
            for source, reading in zip(sources, readings, strict=True)
            for example in reading.examples
            if example.example_id not in reading.missing
        )
    )
    jobs = [
        make_job(path, sql, timeout_s=timeout_s, decoding=DECODING[evaluator])
        for path, sql, evaluator in golds
    ]

    done = itertools.count(1)

    def arrived(index: int, execution: Execution) -> Execution:
        if progress:
            progress(next(done), len(jobs))
        return replace(execution, rows=execution.rows[:1])  # enough to tell an empty result

    return dict(zip(golds, pool.map(jobs, arrived), strict=True))


def _checked(source: Source, reading: Reading, golds: dict[Gold, Execution]) -> CheckedBenchmark:
    ran, empty = 0, 0
    failed = []
    unreadable: dict[str, str] = {}
    for example in reading.examples:
        if example.example_id in reading.missing:
            continue
        execution = golds[str(reading.paths[example.db_id]), example.gold_sql, source.evaluator]
        ran += execution.outcome is Outcome.ROWS
        empty += execution.outcome is Outcome.ROWS and not execution.rows
        if execution.outcome is Outcome.UNAVAILABLE:
            unreadable[example.db_id] = execution.message
        elif execution.outcome is not Outcome.ROWS:
            record = reading.records[example.example_id]
            message = (
                f"the gold does not run on '{example.db_id}' ({execution.outcome.value}: {execution.message})"
            )
            failed.append(
                Problem("gold_fails", record.file, record.index, record.first_of(source.sql_fields), message)
            )
    used = {example.db_id for example in reading.examples if example.example_id not in reading.missing}
    faults = [
        fault for db_id in sorted(used) for fault in _database_faults(source, db_id, reading.paths[db_id])
    ]
    whole = {fault.file for fault in faults if fault.kind == "unreadable"}
    faults += [  # files whose schema can be read, but not all of their pages
        Problem("unreadable", reading.paths[db_id], None, "", f"cannot be read ({message})")
        for db_id, message in sorted(unreadable.items())
        if reading.paths[db_id] not in whole
    ]
    problems = (*reading.problems, *reading.missing.values(), *faults, *failed)
    return CheckedBenchmark(source.name, len(reading.examples), len(used), ran, empty, problems)


def _checked_instructions(name: str, file: Path) -> CheckedBenchmark:
    examples, problems = read_instructions(file)
    return CheckedBenchmark(name, len(examples), 0, 0, 0, problems, task="instruct")


def _database_faults(source: Source, db_id: str, path: Path) -> list[Problem]:
    """What is wrong with a database file, or with what is said of it elsewhere."""
    try:
        schema, comments = introspect(path), source.comments(db_id, path)
    except DataError as error:
        return [Problem("unreadable", path, None, "", str(error))]
    known = {(table.name.lower(), column.name.lower()) for table in schema.tables for column in table.columns}
    return [
        Problem(
            "malformed",
            path,
            None,
            "",
            f"has no column {table}.{column}, which tables.json or a CSV describes",
        )
        for table, column in sorted(comments.columns.keys() - known)
    ]
