"""Checking data before anything is trained or scored on it: every fault at once, and whether each gold runs."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distilsql.data.benchmark import Task
from distilsql.data.golds import (
    GOLD_TIMEOUT_S,
    PREDICTION_TIMEOUT_S,
    gold_fault,
    is_held_up,
    may_have_ties,
    tie,
    with_patience,
)
from distilsql.data.instruct import (
    INSTRUCT_FOLDER,
    INSTRUCT_SPECS,
    instruct_file,
    read_instructions,
)
from distilsql.data.layout import DECODING, Evaluator, Layout, Reading, read_layout
from distilsql.data.load import benchmark_names, find_instructions, find_layout
from distilsql.data.pairs import PAIR_SUFFIXES
from distilsql.data.records import Problem, RecordError
from distilsql.data.text import suffix_of
from distilsql.databases.job import Execution, Job, Outcome, make_job
from distilsql.databases.neighbours import with_ties_broken
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.schema import introspect
from distilsql.databases.url import Place
from distilsql.errors import DataError
from distilsql.progress import progress

InstructFile = tuple[str, Path]  # the name of a benchmark of instructions, and its file


@dataclass(frozen=True)
class CheckedBenchmark:
    """What was found of one benchmark. `examples` are those that can be used, `found` all records of its files;
    `gold_runs` counts examples whose gold query ran to the end; instructions have neither golds to run nor databases.

    `problems` keep an example from being judged; `warnings` do not, but say what its verdict depends on.
    """

    name: str
    examples: int
    databases: int
    gold_runs: int
    gold_empty: int
    problems: tuple[Problem, ...]
    found: int
    warnings: tuple[Problem, ...] = ()
    task: Task = "sql"


@dataclass(frozen=True)
class CheckReport:
    """One entry for each benchmark, in the order of checking. A fault of a database is listed once."""

    benchmarks: tuple[CheckedBenchmark, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(dict.fromkeys(problem for checked in self.benchmarks for problem in checked.problems))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(dict.fromkeys(warning for checked in self.benchmarks for warning in checked.warnings))


@dataclass(frozen=True)
class _CheckedGold:
    """What running one gold gave; `rows` are but the first."""

    execution: Execution
    fault: str
    tie: str


_Gold = tuple[Place, str, Evaluator]  # database, SQL, evaluator


def check(
    spec_or_folder: str | Path,
    root: Path | None = None,
    *,
    database: Place | None = None,
    timeout_s: float = GOLD_TIMEOUT_S,
) -> CheckReport:
    """Read one benchmark, or every benchmark in a folder, and run its golds.

    A folder is a data folder (holding `spider/`, `bird/`, …), one of those, or one with own files; otherwise a
    spec as `load_benchmark` takes it. Raises DataError only if there is nothing to check: all other faults are in the
    report.
    """
    found = list(_found(spec_or_folder, root, database))
    layouts = [item for item in found if isinstance(item, Layout)]
    readings = [read_layout(layout) for layout in layouts]
    faults = [_faults(layout, reading) for layout, reading in zip(layouts, readings, strict=True)]
    unusable = {fault.file for of_layout in faults for fault in of_layout if fault.kind == "unreadable"}
    with ExecutionPool() as pool:
        golds = _run_golds(layouts, readings, unusable, timeout_s, pool)
    return CheckReport(
        (
            *(_checked(*parts, golds) for parts in zip(layouts, readings, faults, strict=True)),
            *(_checked_instructions(*item) for item in found if not isinstance(item, Layout)),
        )
    )


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """For people: records of a file that have the same fault share a line."""
    alike: dict[Problem, list[int]] = {}
    for problem in problems:
        records = alike.setdefault(replace(problem, record=None), [])
        if problem.record is not None:
            records.append(problem.record)
    for problem, records in alike.items():
        if len(records) < 2:
            yield str(replace(problem, record=records[0] if records else None))
            continue
        first = ", ".join(map(str, records[:10]))
        more = f" and {len(records) - 10} more" if len(records) > 10 else ""
        field = f", field '{problem.field}'" if problem.field else ""
        yield f"{problem.file}, {len(records)} records ({first}{more}){field}: {problem.message}"


def _found(
    spec_or_folder: str | Path, root: Path | None, database: Place | None
) -> Iterator[Layout | InstructFile]:
    folder = Path(spec_or_folder)
    if not os.path.isdir(folder):
        yield _one(str(spec_or_folder), root, database)
        return
    families = {INSTRUCT_FOLDER, *(spec.split(":")[0] for spec in _whole_specs())}
    found = [(folder, family) for family in families if (folder / family).is_dir()]
    if not found and folder.resolve().name in families:
        found = [(folder.resolve().parent, folder.resolve().name)]
    own = sorted(file for file in folder.iterdir() if _may_hold_pairs(file))
    if not found and not own:
        raise DataError(
            f"There is nothing to check in {folder}: it holds none of {', '.join(sorted(families))}, "
            f"and no file of your own pairs ({', '.join(PAIR_SUFFIXES)})."
        )
    for parent, family in sorted(found):
        for spec in _whole_specs():
            if spec.startswith(f"{family}:"):
                yield find_layout(spec, root=parent)
        if family == INSTRUCT_FOLDER:
            yield from ((spec, instruct_file(spec, parent)) for spec in INSTRUCT_SPECS)
    for file in own if not found else ():
        yield _one(str(file), None, database)


def _may_hold_pairs(file: Path) -> bool:
    """Many a `.json` file beside pairs holds something else: one is looked into, to see if it has questions."""
    if suffix_of(file) != ".json":
        return suffix_of(file) in PAIR_SUFFIXES and file.is_file()
    try:
        records = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(records, list) and bool(records) and "question" in records[0]


def _one(spec: str, root: Path | None, database: Place | None) -> Layout | InstructFile:
    file = find_instructions(spec, root)
    return (spec, file) if file is not None else find_layout(spec, root=root, database=database)


def _whole_specs() -> list[str]:
    """The text-to-SQL specs that together read every question file once."""
    parts = ("demo:", "spider:train_spider", "spider:indomain", *INSTRUCT_SPECS)
    return [spec for spec in benchmark_names() if not spec.startswith(parts) and "+" not in spec]


def _run_golds(
    layouts: Sequence[Layout],
    readings: Sequence[Reading],
    unusable: set[Place],
    timeout_s: float,
    pool: ExecutionPool,
) -> dict[_Gold, _CheckedGold]:
    """Every different gold of the examples that have a database that can be read, run once; where ties may decide what
    comes out, also with ties broken otherwise."""
    golds = list(
        dict.fromkeys(
            (reading.paths[example.db_id], example.gold_sql, layout.evaluator)
            for layout, reading in zip(layouts, readings, strict=True)
            for example in reading.examples
            if example.example_id not in reading.missing and reading.paths[example.db_id] not in unusable
        )
    )
    jobs = [
        make_job(path, sql, timeout_s=timeout_s, decoding=DECODING[evaluator])
        for path, sql, evaluator in golds
    ]
    with progress("running gold queries", len(jobs)) as advance:

        def arrived(index: int, execution: Execution) -> _CheckedGold:
            if is_held_up(execution, timeout_s):
                execution = pool.run(with_patience(jobs[index]))
            fault = gold_fault(execution, golds[index][2])
            found = "" if fault else _tie(jobs[index], execution, golds[index][2], pool)
            advance()
            return _CheckedGold(replace(execution, rows=execution.rows[:1]), fault, found)

        return dict(zip(golds, pool.map(jobs, arrived), strict=True))


def _tie(job: Job, gold: Execution, evaluator: Evaluator, pool: ExecutionPool) -> str:
    if not may_have_ties(job.sql):
        return ""
    others = [replace(job, reverse_unordered=True)] if job.engine == "sqlite" else []
    others += [replace(job, sql=with_ties_broken(job.sql, direction)) for direction in ("asc", "desc")]
    ran = [pool.run(other) for other in others]
    return tie(job.sql, gold.rows, [other.rows for other in ran if other.outcome is Outcome.ROWS], evaluator)


def _checked(
    layout: Layout, reading: Reading, faults: Sequence[Problem], golds: dict[_Gold, _CheckedGold]
) -> CheckedBenchmark:
    ran, empty = 0, 0
    failed: list[Problem] = []
    warnings: list[Problem] = []
    unreadable: dict[str, str] = {}
    for example in reading.examples:
        gold = golds.get((reading.paths[example.db_id], example.gold_sql, layout.evaluator))
        if example.example_id in reading.missing or gold is None:
            continue
        if gold.execution.outcome is Outcome.UNAVAILABLE:
            unreadable[example.db_id] = gold.execution.message
            continue
        record = reading.records[example.example_id]
        field = record.first_of(layout.sql_fields)
        if gold.fault:
            message = f"the gold does not run on '{example.db_id}' ({gold.fault})"
            failed.append(Problem("gold_fails", record.file, record.index, field, message))
            continue
        ran += 1
        empty += not gold.execution.rows
        if gold.tie:
            warnings.append(Problem("gold_tie", record.file, record.index, field, gold.tie))
        if layout.evaluator == "bird" and 2 * gold.execution.cpu_seconds > PREDICTION_TIMEOUT_S:
            limit = f"{PREDICTION_TIMEOUT_S:g} s that it shares with a prediction"
            message = f"the gold takes more than half of the {limit}, so it is not right by itself"
            warnings.append(Problem("slow_gold", record.file, record.index, field, message))
    whole = {fault.file for fault in faults if fault.kind == "unreadable"}
    faults = [
        *faults,
        *(  # files whose schema can be read, but not all of their pages
            Problem("unreadable", reading.paths[db_id], None, "", f"cannot be read ({message})")
            for db_id, message in sorted(unreadable.items())
            if reading.paths[db_id] not in whole
        ),
    ]
    problems = (*reading.problems, *reading.missing.values(), *faults, *failed)
    used = {example.db_id for example in reading.examples if example.example_id not in reading.missing}
    return CheckedBenchmark(
        layout.name, len(reading.examples), len(used), ran, empty, problems, reading.found, tuple(warnings)
    )


def _checked_instructions(name: str, file: Path) -> CheckedBenchmark:
    examples, problems = read_instructions(file)
    faulty = {problem.record for problem in problems if problem.record is not None}
    return CheckedBenchmark(
        name, len(examples), 0, 0, 0, problems, len(examples) + len(faulty), task="instruct"
    )


def _faults(layout: Layout, reading: Reading) -> list[Problem]:
    used = {example.db_id for example in reading.examples if example.example_id not in reading.missing}
    return [
        fault for db_id in sorted(used) for fault in _database_faults(layout, db_id, reading.paths[db_id])
    ]


def _database_faults(layout: Layout, db_id: str, path: Place) -> list[Problem]:
    """What is wrong with a database, or with what other files say about it."""
    try:
        schema, comments = introspect(path), layout.comments(db_id, path)
    except RecordError as error:  # of tables.json
        return [error.problem]
    except DataError as error:
        return [Problem("unreadable", path, None, "", str(error))]
    except OSError as error:
        return [
            Problem("unreadable", path, None, "", f"cannot be read ({error.strerror}); check its permissions")
        ]
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
